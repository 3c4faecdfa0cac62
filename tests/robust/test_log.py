"""A log that nobody reads holds nobody up."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest

from .harness import Servers, wait_until
from .http1 import Parser, request

LEFT_OUT = b"lines of the log were left out"


def status_of(path: Path, target: str) -> int:
    parser = Parser()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request(target))
        while not parser.feed(client.recv(65536)):
            pass
    assert parser.answer is not None
    return parser.answer.status


@pytest.mark.parametrize("stops", [1, 2])
def test_a_log_that_nobody_reads(servers: Servers, tmp_path: Path, stops: int) -> None:
    """Each refused response is a line of the log. Its pipe is full from the beginning."""
    path, pipe = tmp_path / "socket", tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        full = os.write(reader, b"." * 4096)
        wrapper = ["bash", "-c", f'exec "$@" 2>"{pipe}"', "bash"]
        server = servers.start_only(flags=["--uds", str(path)], wrapper=wrapper)
        server.await_workers()
        wait_until("it listens", path.exists)
        for _ in range(200):
            assert status_of(path, "/two-lengths") == 500
        assert status_of(path, "/pid") == 200
        if stops == 1:
            # Somebody reads again: the next line comes with a word on those that are not there.
            assert len(os.read(reader, full)) == full
            assert status_of(path, "/two-lengths") == 500
            wait_until("the log goes on", lambda: LEFT_OUT in os.read(reader, 65536))
            server.process.send_signal(signal.SIGTERM)
        else:
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) is not None
    finally:
        os.close(reader)
