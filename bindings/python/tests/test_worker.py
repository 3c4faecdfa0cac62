"""A worker's process, as far as it needs no engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolb._finish import finish

STARTING = """
import asyncio

async def app(scope, receive, send):
    print("starting", flush=True)
    await asyncio.Event().wait()
"""


def test_a_second_ctrl_c_ends_a_start_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(STARTING)
    command = [sys.executable, "-m", "toolb.worker", "main:app", "--app-dir", str(tmp_path)]
    worker = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOOLB_BUS": str(tmp_path / "bus")},
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "starting\n"
        while True:
            # Two that come at once may count as one.
            worker.send_signal(signal.SIGINT)
            try:
                _, said = worker.communicate(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            break
    finally:
        worker.kill()
    assert "told to end before it had started" in said


class FakeWorker:
    """Is idle for a moment, while another request comes."""

    def __init__(self) -> None:
        self.in_flight = 1
        self.asked = 0

    def when_idle(self, callback: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        self.asked += 1
        if self.asked == 1:
            loop.call_soon(callback)
        else:
            loop.call_soon(self._end, callback)

    def _end(self, callback: Callable[[], object]) -> None:
        self.in_flight = 0
        callback()

    def flush(self, idle: bool) -> None:
        assert idle


def test_who_finishes_waits_for_requests_that_came_meanwhile() -> None:
    worker: Any = FakeWorker()

    async def run() -> None:
        await finish(worker, asyncio.Event(), lambda: 0.0)

    asyncio.run(run())
    assert (worker.in_flight, worker.asked) == (0, 2)
