"""`toolb` as a person runs it, and what it says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

PATIENCE = 60
"""Seconds after which something hangs; nothing waits this long when all is well."""


# Who starts a run in the background may have it ignore SIGINT, and every program under test with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")


class Output:
    """What a process and those that it has started print, line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.lines: list[str] = []
        self.ended = False
        self._process = process
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # To the end, so that nobody ever waits for room in the pipe.
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        self._process.stdout.close()
        with self._news:
            self.ended = True
            self._news.notify_all()

    def text(self) -> str:
        """All of it so far."""
        return "".join(f"{line}\n" for line in self.lines)

    def until(self, found: Callable[[], T], patience: float) -> T:
        """Waits until something is `found`, or nothing more can come; what is found then."""
        with self._news:
            self._news.wait_for(lambda: found() or self.ended, patience)
        return found()

    def join(self, patience: float) -> None:
        """Waits until nothing more can come."""
        self._reader.join(patience)


class Program:
    """`toolb` with some arguments, and what it says."""

    def __init__(self, *arguments: str | Path) -> None:
        toolb = Path(sys.executable).with_name("toolb")
        self.process = subprocess.Popen(
            [toolb, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._output = Output(self.process)

    @property
    def said(self) -> str:
        """All it has printed so far."""
        return self._output.text()

    def until(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Waits until it has said so many times what matches `pattern`; the last of these."""

        def found() -> re.Match[str] | None:
            matches = list(re.finditer(pattern, self.said))
            return matches[times - 1] if len(matches) >= times else None

        match = self._output.until(found, PATIENCE)
        assert match, f"it never said {pattern!r}:\n{self.said}"
        return match

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
        self._output.join(PATIENCE)
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
