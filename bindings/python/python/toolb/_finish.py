"""How a worker comes to the end of the requests it has begun."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ._run import tell_of_cancel
from ._toolb import Worker

logger = logging.getLogger("toolb.error")


class Grace(NamedTuple):
    """Seconds that handlers get, once there is a hurry."""

    end: float
    """To end by themselves, before they are cancelled."""

    cancel: float = 1.0
    """To end after that."""

    @classmethod
    def of(cls, left: float | None) -> "Grace":
        """What there is of the time until this process is killed.

        About half of it is left for the application's own end.
        """
        if left is None:
            return DRAIN
        return cls(min(DRAIN.end, 0.3 * left), min(DRAIN.cancel, 0.2 * left))


DRAIN = Grace(2.0)
"""If there is time. It is said when nothing is in flight, or when little is left of the time."""

HANG_UP = Grace(1.0)
"""Nobody hears of the answers."""


async def told_to_end(end: asyncio.Event, hurry: asyncio.Event) -> bool:
    """Waits for the `end`. False: the application has cancelled all tasks, and so there is a `hurry`."""
    if await _uncancelled(end.wait()):
        return True
    end.set()
    hurry.set()
    return False


async def finish(worker: Worker, hurry: asyncio.Event, grace: Callable[[], Grace]) -> None:
    """Waits for the requests in flight; once it is told to hurry, only so long.

    Until the caller awaits anything else, no others begin.
    """
    # Others may have begun before the loop came to what it was told.
    while worker.in_flight and not hurry.is_set():
        # The application may have cancelled the last one as a task that it does not know.
        urged = asyncio.ensure_future(hurry.wait())
        waits = asyncio.wait((_idle(worker), urged), return_when=asyncio.FIRST_COMPLETED)
        if not await _uncancelled(waits):
            hurry.set()
        urged.cancel()
    if worker.in_flight:
        worker.end_streams()
        end, cancel = grace()
        await _uncancelled(asyncio.wait((_idle(worker),), timeout=end))
        tasks = worker.tasks()
        worker.give_up()
        for task in tasks:
            task.cancel()
        if tasks:
            logger.warning("requests that had not ended in time were cancelled: %d", len(tasks))
            await _uncancelled(asyncio.wait(tasks, timeout=cancel))
    worker.flush(True)


async def _uncancelled(wait: Coroutine[Any, Any, object]) -> bool:
    """Waits. False: the application has cancelled all tasks, this one too."""
    try:
        await wait
    except asyncio.CancelledError:
        tell_of_cancel()
        return False
    return True


def _idle(worker: Worker) -> asyncio.Future[None]:
    """Done once nothing is in flight."""
    idle = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not idle.done():
            idle.set_result(None)

    worker.when_idle(tell)
    return idle
