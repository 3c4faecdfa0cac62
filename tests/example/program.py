"""`toolb` as a person runs it, and what it says."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._said.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def said(self) -> str:
        return "".join(self._said)

    def until(self, pattern: str) -> re.Match[str]:
        """Waits until it has said what matches `pattern`."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.said)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, PATIENCE)
        match = found()
        assert match, f"it never said {pattern!r}:\n{self.said}"
        return match

    def stop(self) -> None:
        """Asks it to end, which it must do well."""
        self.process.terminate()
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        self._reader.join(PATIENCE)
        assert code == 0, self.said
        assert "Traceback" not in self.said


@contextmanager
def running(*arguments: str | Path) -> Iterator[Program]:
    program = Program(*arguments)
    try:
        yield program
    except BaseException:
        program.process.kill()
        program.process.wait()
        raise
    program.stop()
