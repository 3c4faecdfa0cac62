"""Files that consumers answer with, on file systems that fail or wait, and without a thread."""

from __future__ import annotations

import errno
import resource
import threading
from pathlib import Path

import pytest

from . import native
from .fuse import mounted
from .harness import Server, Servers, status_kib, wait_until
from .http1 import CutError, request
from .payload import payload

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def server(servers: Servers) -> Server:
    """One loop, so that whoever holds it up holds up everybody."""
    return servers.start(program=native.serving("consumer", loops=1))


def serve(server: Server, path: Path) -> None:
    """Has the consumer answer /file with this one."""
    served = server.directory / "served"
    served.unlink(missing_ok=True)
    served.symlink_to(path)


def test_a_read_that_fails_in_the_middle(server: Server, tmp_path: Path) -> None:
    content = payload(SIZE)
    bad = 2 * MIB  # from here on

    def read(at: int, size: int) -> bytes:
        if at + size > bad:
            raise OSError(errno.EIO, "")
        return content[at : at + size]

    with mounted(tmp_path / "mnt", SIZE, read) as file:
        serve(server, file.path)
        with server.connect() as connection:
            connection.send(request("/file"))
            with pytest.raises((CutError, ConnectionResetError)):
                connection.receive()
        wait_until("it was told", lambda: "could not be sent to its end" in server.said())
        bad = 0
        with server.connect() as connection:
            # Nothing was sent yet: there still is a better answer.
            assert connection.ask("/file").status == 500
            assert connection.ask("/x").status == 200
            bad = SIZE
            assert connection.ask("/file").body == content


def test_a_file_system_that_waits_holds_nobody_up(server: Server, tmp_path: Path) -> None:
    content = payload(SIZE)
    waits, go_on = threading.Event(), threading.Event()

    def read(at: int, size: int) -> bytes:
        if at >= 2 * MIB:
            waits.set()
            go_on.wait()
        return content[at : at + size]

    with mounted(tmp_path / "mnt", SIZE, read) as file:
        serve(server, file.path)
        with server.connect() as slow, server.connect() as other:
            slow.send(request("/file"))
            assert waits.wait(20), "the file was read without a read"
            for _ in range(100):
                assert other.ask("/x").status == 200
            go_on.set()
            assert slow.receive().body == content


def test_a_file_system_that_hangs_does_not_hold_up_the_end(server: Server, tmp_path: Path) -> None:
    waits, never = threading.Event(), threading.Event()

    def read(at: int, size: int) -> bytes:
        waits.set()
        never.wait()
        return b""

    with mounted(tmp_path / "mnt", SIZE, read) as file:
        serve(server, file.path)
        with server.connect() as connection:
            connection.send(request("/file"))
            assert waits.wait(20), "the file was read without a read"
        assert server.stop() == 0, server.said()
    never.set()


def test_without_a_thread_of_its_own_a_consumer_shares_one(server: Server) -> None:
    content = payload(10_000)
    (server.directory / "served").write_bytes(content)
    with server.connect() as connection:
        # Has everything allocated that all requests need.
        for _ in range(100):
            assert connection.ask("/x").status == 200
        # Not enough for the stack of another thread, which is 128 KiB.
        room = status_kib(server.pid, "VmSize") * 1024 + 100 * 1024
        before = resource.prlimit(server.pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
        for _ in range(3):
            assert connection.ask("/file").body == content
            assert connection.ask("/x").status == 200
        wait_until("it was told", lambda: "no thread for a consumer's files" in server.said())
        assert threads(server.pid).count("toolb-files") == 1
        resource.prlimit(server.pid, resource.RLIMIT_AS, before)
        assert connection.ask("/file").body == content
        assert threads(server.pid).count("toolb-files") == 2


def threads(pid: int) -> list[str]:
    return [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]
