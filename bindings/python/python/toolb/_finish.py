"""How a worker comes to the end of the requests it has begun."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

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


async def finish(worker: Worker, hurry: asyncio.Event, grace: Callable[[], Grace]) -> None:
    """Waits for the requests in flight; once it is told to hurry, only so long."""
    idle = asyncio.Event()
    worker.when_idle(idle.set)
    waits = [asyncio.ensure_future(event.wait()) for event in (idle, hurry)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if not idle.is_set():
        worker.end_streams()
        end, cancel = grace()
        await asyncio.wait(waits[:1], timeout=end)
        tasks = worker.tasks()
        worker.give_up()
        for task in tasks:
            task.cancel()
        if tasks:
            logger.warning("requests that had not ended in time were cancelled: %d", len(tasks))
            await asyncio.wait(tasks, timeout=cancel)
    for wait in waits:
        wait.cancel()
    worker.flush(True)
