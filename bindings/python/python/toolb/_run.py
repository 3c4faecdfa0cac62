"""Running the loop of a worker, whatever the application raises in it, and what comes of that."""

import asyncio
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger("toolb.error")

START_UP_FAILED = 3
"""Nothing is gained by starting this worker again."""

ENGINE_GONE = 1
"""The engine hung up or broke the rules of the bus."""

CANCELLED = 1
"""The application cancelled the task that a worker lives in."""


def run(
    loop: asyncio.AbstractEventLoop,
    main: Coroutine[Any, Any, int],
    end: Callable[[], None],
) -> int:
    """Runs `main` to its end.

    A SystemExit or KeyboardInterrupt that a task of the application raises stops any loop. Here it
    asks `main` to `end`, so that what others have asked for is finished; its code is the one then.
    Whoever cancels all tasks there are cancels `main`, too, which ends at once unless it serves.
    """
    process = os.getpid()
    task = loop.create_task(main)
    asked: int | None = None
    while True:
        try:
            code = loop.run_until_complete(task)
            return code or asked or 0
        except (SystemExit, KeyboardInterrupt) as error:
            if os.getpid() != process:
                _leave_fork(error)
            if task.done():
                raise
            logger.error(
                "%s was raised in a task of the application: "
                "this worker finishes what it has begun and ends",
                type(error).__name__,
            )
            asked = _code_of(error)
            end()
        except asyncio.CancelledError:
            tell_of_cancel()
            return CANCELLED


@functools.cache
def tell_of_cancel() -> None:
    """Says once who has cancelled `main`: nobody here does."""
    logger.error(
        "the application cancelled all tasks, that of its worker too, which ends: "
        "let it cancel only those that it has made"
    )


def _code_of(error: SystemExit | KeyboardInterrupt) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def _leave_fork(error: SystemExit | KeyboardInterrupt) -> None:
    """Ends a process that the application has forked, as nothing here is its business."""
    code = _code_of(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
