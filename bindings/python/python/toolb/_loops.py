"""Event loops that wait for the bus and for everything else at once."""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from toolb._toolb import Worker

# While requests come without a pause, other descriptors are looked at this often (in seconds).
_LOOK_ELSEWHERE = 0.0005


class BusSelector(selectors.EpollSelector):
    """A selector that serves the bus before, and instead of, sleeping.

    The doorbell is registered edge-triggered and never read, so a busy worker makes no system call
    for it at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._worker: Worker | None = None
        self._looked = 0.0

    def serve(self, worker: Worker) -> None:
        """Serve this worker from now on."""
        self._worker = worker
        key = self.register(worker.fd(), selectors.EVENT_READ, None)
        edge = 1 << 31  # select.EPOLLET
        self._selector.modify(key.fd, selectors.EVENT_READ | edge)  # type: ignore[attr-defined]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events; those of the bus are served here."""
        worker = self._worker
        if worker is None:
            return super().select(timeout)
        if worker.drain():
            now = time.monotonic()
            if now - self._looked < _LOOK_ELSEWHERE:
                return []
            self._looked = now
            return self._others(0)
        if timeout is None or timeout > 0:
            if not worker.arm():
                worker.drain()
                return self._others(0)
            events = self._others(timeout)
            worker.disarm()
            worker.drain()
            return events
        return self._others(timeout)

    def _others(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        # The doorbell's own key has nobody to be handed to.
        return [event for event in super().select(timeout) if event[0].data is not None]


class CatchingSelectorLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, with instance attributes."""


def new_loop(kind: Literal["auto", "asyncio", "uvloop"]) -> asyncio.AbstractEventLoop:
    """Make the loop that ``--loop`` asks for; ``auto`` is uvloop if it is installed."""
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise
        else:

            class Loop(uvloop.Loop):
                """uvloop's loop, with instance attributes."""

            return Loop()
    return CatchingSelectorLoop(BusSelector())


def serve_bus(loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
    """Serve the worker on the loop."""
    selector: Any = getattr(loop, "_selector", None)
    if isinstance(selector, BusSelector):
        selector.serve(worker)
        return
    Turner(loop, worker).turn()


class Turner:
    """Serves the bus from callbacks of a loop whose sleep cannot be reached."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
        self._loop = loop
        self._worker = worker
        loop.add_reader(worker.fd(), self._ring)

    def _ring(self) -> None:
        self._worker.clear_doorbell()
        self._worker.disarm()
        self.turn()

    def turn(self) -> None:
        """Serve what has come; come again at once if there was something, else arm."""
        if self._worker.drain() or not self._worker.arm():
            self._loop.call_soon(self.turn)
