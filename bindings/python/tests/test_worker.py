"""A worker's process, as far as it needs no engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from program import PATIENCE

from toolb._finish import finish

STARTING = """
import asyncio

async def app(scope, receive, send):
    print("starting", flush=True)
    await asyncio.Event().wait()
"""


IMPORTING = """
import time

print("importing", flush=True)
time.sleep(600)  # not-sync: an import that takes long
"""


def start(directory: Path, source: str) -> subprocess.Popen[str]:
    """A worker that looks for its engine itself, once it has printed a line."""
    (directory / "main.py").write_text(source)
    command = [sys.executable, "-m", "toolb.worker", "main:app", "--app-dir", str(directory)]
    worker = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOOLB_BUS": str(directory / "bus")},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline()
    return worker


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, 3)])
def test_a_signal_ends_an_import(tmp_path: Path, number: int, code: int) -> None:
    with start(tmp_path, IMPORTING) as worker:
        worker.send_signal(number)
        try:
            worker.communicate(timeout=PATIENCE)
        finally:
            worker.kill()
    assert worker.returncode == code


def test_a_second_ctrl_c_ends_a_start_that_hangs(tmp_path: Path) -> None:
    with start(tmp_path, STARTING) as worker:
        while worker.poll() is None:
            # Two that come at once may count as one.
            worker.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                worker.wait(timeout=0.1)
        _, said = worker.communicate()
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
