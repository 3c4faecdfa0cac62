"""Event loops that look at the bus: how a worker waits without a system call per request."""

import asyncio
import logging
import select
import selectors
from typing import Protocol

from ._toolb import Worker

logger = logging.getLogger("toolb.error")


class Bridge(Protocol):
    """What lets a loop serve a worker's requests."""

    def attach(self, worker: Worker) -> None:
        """Begins. The loop is running."""

    def detach(self) -> None:
        """Ends. The loop is still running."""


def new_loop(kind: str) -> tuple[asyncio.AbstractEventLoop, Bridge]:
    """A loop of this kind (auto, asyncio or uvloop), with its bridge."""
    if kind in ("auto", "uvloop"):
        try:
            import uvloop
        except ImportError as error:
            if kind == "uvloop":
                raise LoopError(
                    "--loop uvloop: uvloop is not installed; install it (pip install uvloop) or use --loop asyncio"
                ) from error
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop, UvBridge(loop)
    selector = BusSelector()
    return asyncio.SelectorEventLoop(selector), selector


class LoopError(Exception):
    """There is no such loop; the text is one line that says how to mend it."""


class BusSelector(selectors.EpollSelector):
    """Serves the bus before and after it polls, and polls no more often than needed.

    The doorbell is registered with epoll alone, edge-triggered, and never read: it ends a wait and is
    reported to nobody.
    """

    def __init__(self) -> None:
        super().__init__()
        self._worker: Worker | None = None
        self._epoll: select.epoll = self._selector  # type: ignore[attr-defined]

    def attach(self, worker: Worker) -> None:
        self._epoll.register(worker.fd, select.EPOLLIN | select.EPOLLET)
        self._worker = worker

    def detach(self) -> None:
        if self._worker is not None:
            self._epoll.unregister(self._worker.fd)
            self._worker = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        worker = self._worker
        if worker is None:
            return super().select(timeout)
        wait = worker.before_poll(timeout)
        if wait is None:
            return []
        events = super().select(None if wait < 0 else wait)
        worker.after_poll(len(events))
        return events


class UvBridge:
    """Serves the bus from within uvloop's own loop, before it polls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worker: Worker | None = None
        self._fallback: ReaderBridge | None = None

    def attach(self, worker: Worker) -> None:
        try:
            worker.attach_uv(self._loop)
        except (AttributeError, RuntimeError) as error:
            # A uvloop that was built in another way.
            logger.debug("serving through add_reader: %s", error)
            self._fallback = ReaderBridge(self._loop)
            self._fallback.attach(worker)
        self._worker = worker

    def detach(self) -> None:
        if self._fallback is not None:
            self._fallback.detach()
        elif self._worker is not None:
            self._worker.detach_uv()
        self._worker = None


class ReaderBridge:
    """For any loop with `add_reader`: serves, and goes on serving in each turn until nothing comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worker: Worker | None = None
        self._next: asyncio.Handle | None = None

    def attach(self, worker: Worker) -> None:
        self._worker = worker
        self._loop.add_reader(worker.fd, self._rung)
        self._serve()

    def detach(self) -> None:
        if self._worker is not None:
            self._loop.remove_reader(self._worker.fd)
            self._worker = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _rung(self) -> None:
        worker = self._worker
        if worker is not None:
            worker.clear_doorbell()
            if self._next is None:
                self._serve()

    def _serve(self) -> None:
        self._next = None
        worker = self._worker
        if worker is not None and (worker.drain() or not worker.arm()):
            self._next = self._loop.call_soon(self._serve)
