"""How a worker comes to the end of the requests it has begun."""

import asyncio
import logging
from collections.abc import Callable

from ._toolb import Worker

logger = logging.getLogger("toolb.error")

CANCEL_GRACE = 1.0
"""Seconds that handlers get once they are cancelled."""


async def finish(worker: Worker, hurry: asyncio.Event, grace: Callable[[], float]) -> None:
    """Waits for the requests in flight; once it is told to hurry, only so long.

    Until the caller awaits anything else, no others begin.
    """
    urged = asyncio.ensure_future(hurry.wait())
    # Others may have begun before the loop came to what it was told.
    while worker.in_flight and not hurry.is_set():
        await asyncio.wait((_idle(worker), urged), return_when=asyncio.FIRST_COMPLETED)
    urged.cancel()
    if worker.in_flight:
        worker.end_streams()
        await asyncio.wait((_idle(worker),), timeout=grace())
        tasks = worker.tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            logger.warning("requests that had not ended in time were cancelled: %d", len(tasks))
            await asyncio.wait(tasks, timeout=CANCEL_GRACE)
    worker.flush(True)


def _idle(worker: Worker) -> asyncio.Future[None]:
    """Done once nothing is in flight."""
    idle = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not idle.done():
            idle.set_result(None)

    worker.when_idle(tell)
    return idle
