"""Where there is no room: a full disk, limits on files, no folder for temporary ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import native
from .harness import Servers, wait_until
from .test_log import status_of

ROOM = 64 * 1024


def program(name: str) -> list[str]:
    """Both that there are: Python ignores signals that others would end by."""
    return [str(native.built() / "toolb")] if name == "native" else [sys.executable, "-m", "toolb"]


def redirected(out: Path | str, limit: str = "unlimited") -> list[str]:
    return ["bash", "-c", f'ulimit -f {limit}; exec "$@" >>"{out}" 2>&1', "bash"]


@pytest.mark.parametrize("name", ["native", "python"])
@pytest.mark.parametrize("kib", [0, 20, 100])
def test_shared_memory_counts_as_a_file(tmp_path: Path, name: str, kib: int) -> None:
    """Some of these limits are too small for the engine, some only for a worker."""
    limited = ["bash", "-c", f'ulimit -f {kib}; exec "$@"', "bash"]
    ended = subprocess.run(
        [*limited, *program(name), "run", "app:plain", "--port", "0", "--python", sys.executable],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3, (ended.returncode, ended.stdout)
    lines = [line for line in ended.stdout.splitlines() if "toolb error: " in line]
    assert len(lines) == 1, ended.stdout
    assert "shared memory" in lines[0]
    assert "ulimit -f" in lines[0]
    assert lines[0].count("cannot start") == 1


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for nothing, until `filler` is removed."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "test", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this test needs root, to mount a file system: {mounted.stderr.strip()}")
    try:
        (folder / "log").touch()
        with (folder / "filler").open("wb") as filler:
            filler.write(b"." * ROOM)
    except OSError:
        pass  # it is full
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_log_on_a_full_disk(servers: Servers, tmp_path: Path, full_disk: Path) -> None:
    """The log and the access log have no room; requests are answered. Later there is room."""
    path, log = tmp_path / "socket", full_disk / "log"
    command = [*program("python"), "run", "app:app", "--uds", str(path), "--access-log"]
    server = servers.start_only(program=[*redirected(log), *command])
    server.await_workers()
    wait_until("it listens", path.exists)
    for _ in range(100):
        assert status_of(path, "/too-long") == 200
    assert status_of(path, "/pid") == 200
    assert log.stat().st_size == 0
    (full_disk / "filler").unlink()

    def told(words: str) -> bool:
        # The same error is written only now and then.
        assert status_of(path, "/too-long") == 200
        return words in log.read_text()

    wait_until("the access log goes on", lambda: told("/too-long"))
    wait_until("the log tells what it lacks", lambda: told("lines of the log were left out"))
    wait_until("and what that lacks", lambda: told("of the access log w"))
    assert server.stop() == 0, log.read_text()


def test_a_line_that_did_not_fit_is_not_continued_by_the_next(
    servers: Servers, tmp_path: Path, full_disk: Path
) -> None:
    """The disk takes a part of a line of the access log, and later it has room."""
    path, log = tmp_path / "socket", full_disk / "log"
    command = [*program("python"), "run", "app:app", "--uds", str(path), "--access-log"]
    to_log = ["bash", "-c", f'exec "$@" >>"{log}"', "bash"]
    server = servers.start_only(program=[*to_log, *command])
    server.await_workers()
    wait_until("it listens", path.exists)
    # One page has room, and no line ends where the page does.
    with (full_disk / "filler").open("rb+") as filler:
        filler.truncate(ROOM - 4096)
    asked = 0

    def ask() -> None:
        nonlocal asked
        assert status_of(path, f"/pid?n={asked:05}&fill={'x' * 101}") == 200
        asked += 1

    def lost() -> bool:
        ask()
        return "of the access log w" in server.said()

    wait_until("lines were lost", lost)
    assert "No space left on device" in server.said()
    assert not log.read_bytes().endswith(b"\n")
    (full_disk / "filler").unlink()
    before = asked
    for _ in range(3):
        ask()
    wait_until("the log goes on", lambda: f"?n={asked - 1:05}&" in log.read_text())
    assert server.stop() == 0
    lines = log.read_text().splitlines()
    whole = [line for line in lines if re.fullmatch(r'unix: .*?n=\d{5}&.*" \d+\.\d{6}', line)]
    assert all(line.count(" - - [") == 1 for line in lines), lines
    assert len(lines) - len(whole) == 1, lines
    assert [f"?n={n:05}&" in line for n, line in zip(range(before, asked), whole[-3:], strict=True)]
    counted = [int(n) for n in re.findall(r"(\d+) lines? of the access log", server.said())]
    assert sum(counted) == asked - len(whole), server.said()


@pytest.mark.parametrize("name", ["native", "python"])
def test_a_log_that_has_become_too_large(servers: Servers, tmp_path: Path, name: str) -> None:
    """The limit on the size of files is no reason to end, whoever asks for one line more."""
    path, log = tmp_path / "socket", tmp_path / "log"
    kib = 2000
    log.write_bytes(b"." * (kib * 1024 - 500))
    command = [*program(name), "run", "app:app", "--uds", str(path), "--access-log"]
    command += ["--python", sys.executable]
    server = servers.start_only(program=[*redirected(log, str(kib)), *command])
    server.await_workers()
    for _ in range(100):
        assert status_of(path, "/too-long") == 200
    # The access log has a thread of its own.
    wait_until("it is as large as it may be", lambda: log.stat().st_size == kib * 1024)
    assert server.stop() == 0


def test_no_folder_for_temporary_files(servers: Servers, tmp_path: Path) -> None:
    server = servers.start(environment={"TMPDIR": str(tmp_path / "nowhere")})
    with server.connect() as connection:
        assert connection.ask("/id").status == 200
