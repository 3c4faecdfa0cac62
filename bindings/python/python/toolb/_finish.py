"""How a worker comes to the end of the requests it has begun."""

import asyncio
import logging
from collections.abc import Callable

from ._toolb import Worker

logger = logging.getLogger("toolb.error")

CANCEL_GRACE = 1.0
"""Seconds that handlers get once they are cancelled."""


async def finish(worker: Worker, hurry: asyncio.Event, grace: Callable[[], float]) -> None:
    """Waits for the requests in flight; once it is told to hurry, only so long."""
    idle = asyncio.Event()
    worker.when_idle(idle.set)
    waits = [asyncio.ensure_future(event.wait()) for event in (idle, hurry)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if not idle.is_set():
        worker.end_streams()
        await asyncio.wait(waits[:1], timeout=grace())
        tasks = worker.tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            logger.warning("requests that had not ended in time were cancelled: %d", len(tasks))
            await asyncio.wait(tasks, timeout=CANCEL_GRACE)
    for wait in waits:
        wait.cancel()
    worker.flush(True)
