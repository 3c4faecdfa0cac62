"""What the engine says to a worker, apart from its requests."""

import asyncio
import logging
from collections.abc import Callable

from ._toolb import BusError, Worker

logger = logging.getLogger("toolb.error")


def hear(worker: Worker, take: Callable[[str, float | None], None]) -> None:
    """Hands on the words that have come, and the seconds that are left.

    After a `hang-up`, the last one, nothing is read any more.
    """
    while word := _next_word(worker):
        kind, text, left = word
        if kind == "error":
            logger.error("the engine says: %s", text)
            continue
        take(kind, left)
        if kind == "hang-up":
            asyncio.get_running_loop().remove_reader(worker.control_fd)
            # Tells the handlers: no bell will ring.
            worker.drain()
            break


def _next_word(worker: Worker) -> tuple[str, str, float | None] | None:
    try:
        return worker.control()
    except BusError as error:
        logger.error("%s", error)
        return ("hang-up", "", None)
