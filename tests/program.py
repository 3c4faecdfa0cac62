"""`toolb` as a person runs it, and what it says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 60
"""Seconds after which something hangs; nothing waits this long when all is well."""


class Program:
    """`toolb` with some arguments, and what it says."""

    def __init__(self, *arguments: str | Path) -> None:
        toolb = Path(sys.executable).with_name("toolb")
        self.process = subprocess.Popen(
            [toolb, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._said: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # To the end, so that it never waits for room in the pipe.
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._said.append(line)
                self._news.notify_all()
        self.process.stdout.close()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def said(self) -> str:
        """All it has printed so far."""
        return "".join(self._said)

    def until(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Waits until it has said so many times what matches `pattern`; the last of these."""

        def found() -> list[re.Match[str]]:
            return list(re.finditer(pattern, self.said))

        with self._news:
            self._news.wait_for(lambda: len(found()) >= times or self._ended, PATIENCE)
        matches = found()
        assert len(matches) >= times, f"it never said {pattern!r}:\n{self.said}"
        return matches[times - 1]

    def url(self) -> str:
        """Its address, once it listens."""
        return self.until(r"\bon (http://127\.0\.0\.1:\d+)")[1]

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Waits until it has ended and tells its exit code."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"it did not end:\n{self.said}")
        self._reader.join(PATIENCE)
        return code

    def stop(self) -> int:
        """Asks it to end and tells its exit code."""
        if self.process.poll() is None:
            self.signal()
        return self.wait()


@contextmanager
def running(*arguments: str | Path) -> Iterator[Program]:
    """One that is asked to end afterwards, which it must do well."""
    program = Program(*arguments)
    try:
        yield program
    except BaseException:
        program.process.kill()
        program.process.wait()
        raise
    assert program.stop() == 0, program.said
    assert "Traceback" not in program.said
