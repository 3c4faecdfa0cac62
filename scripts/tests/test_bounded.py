"""A command within its time, and one that never ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import SCRIPTS


def bounded(minutes: str, *command: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(SCRIPTS / "bounded.py"), minutes, *command]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_the_code_is_that_of_the_command() -> None:
    assert bounded("1", "sh", "-c", "exit 7").returncode == 7
    assert bounded("1", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    assert bounded("1", "true").returncode == 0


def test_what_hangs_is_named_and_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    # Its child keeps the pipe open for as long as it lives.
    hang = f"(exec sleep 1000 9>{pids}) & exec sleep 2000"
    reader = os.open(pids, os.O_RDONLY | os.O_NONBLOCK)
    done = bounded("0.01", "sh", "-c", hang)
    assert done.returncode == 124
    assert "not done after 0.01 minutes" in done.stderr
    assert "sleep 1000" in done.stderr
    assert "sleep 2000" in done.stderr
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_wrong_use_is_explained() -> None:
    for arguments in (["soon", "true"], ["1"]):
        done = bounded(*arguments)
        assert done.returncode == 2
        assert "bounded.py MINUTES COMMAND" in done.stderr
