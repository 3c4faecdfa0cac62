"""The bridges between loops and a worker, with a worker that is none."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator

import pytest

from toolb._loops import BusSelector, LoopError, ReaderBridge, new_loop


class FakeWorker:
    """A doorbell, and batches of work behind it."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.batches: deque[int] = deque()
        self.calls: list[str] = []
        self.done = asyncio.Event()

    def ring(self, *batches: int) -> None:
        self.batches.extend(batches)
        os.eventfd_write(self.fd, 1)

    def clear_doorbell(self) -> None:
        os.eventfd_read(self.fd)

    def drain(self) -> int:
        count = self.batches.popleft() if self.batches else 0
        self.calls.append(f"drain {count}")
        return count

    def arm(self) -> bool:
        self.calls.append("arm")
        if not self.batches:
            self.done.set()
        return not self.batches

    def before_poll(self, timeout: float | None) -> float | None:
        while self.drain():
            pass
        self.arm()
        return -1.0 if timeout is None else timeout

    def after_poll(self, found: int) -> None:
        self.calls.append(f"found {found}")
        self.drain()


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    worker = FakeWorker()
    yield worker
    os.close(worker.fd)


def test_reader_bridge_serves_until_nothing_comes(worker: FakeWorker) -> None:
    async def main() -> None:
        bridge = ReaderBridge(asyncio.get_running_loop())
        bridge.attach(worker)  # type: ignore[arg-type]
        await worker.done.wait()
        assert worker.calls == ["drain 0", "arm"]
        worker.calls.clear()
        worker.done.clear()
        worker.ring(3, 2)
        await worker.done.wait()
        assert worker.calls == ["drain 3", "drain 2", "drain 0", "arm"]
        bridge.detach()

    asyncio.run(main())


def test_selector_reports_the_bell_to_nobody(worker: FakeWorker) -> None:
    selector = BusSelector()
    read, write = os.pipe()
    try:
        selector.register(read, 1)
        selector.attach(worker)  # type: ignore[arg-type]
        worker.ring(1)
        assert selector.select(None) == []
        assert worker.calls == ["drain 1", "drain 0", "arm", "found 0", "drain 0"]
        # It was not read, and yet does not ring again.
        assert selector.select(0) == []
        os.write(write, b"x")
        assert [key.fd for key, _ in selector.select(None)] == [read]
        selector.detach()
        worker.ring()
        assert [key.fd for key, _ in selector.select(0)] == [read]
    finally:
        selector.close()
        os.close(read)
        os.close(write)


def test_a_loop_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    with pytest.raises(LoopError, match="pip install uvloop"):
        new_loop("uvloop")
    loop, bridge = new_loop("auto")
    assert isinstance(bridge, BusSelector)
    loop.close()
