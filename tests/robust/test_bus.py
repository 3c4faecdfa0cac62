"""The bus of `toolb serve` in the file system: who may come to it, and who is sent away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .harness import descriptors, wait_until
from .stage import Stage

NOBODY = 65534


def test_a_second_instance_is_refused(stage: Stage) -> None:
    first = stage.serve()
    second = stage.start("serve", "--port", "0", "--bus", str(stage.bus))
    assert second.ends() == 3
    (line,) = second.lines
    assert f"another engine (pid {first.process.pid}) has it" in line
    assert str(stage.bus) in line
    # The first one has not lost anything by it.
    work = stage.work()
    assert stage.pid() > 0
    work.stop()
    first.stop()
    assert stage.left() == []


def test_nonsense_on_the_bus_ends_only_who_sends_it(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work()
    before = stage.pid()
    silent = bus_socket(stage)
    for nonsense in (b"\0", b"GET / HTTP/1.1\r\n\r\n", b"TBCP", os.urandom(2000), b"T" * 65536):
        with bus_socket(stage) as other:
            other.send(nonsense)
            assert b"TBCP\x03" in other.recv(65536), "no ERROR"
            assert other.recv(1) == b""
    with bus_socket(stage) as other:
        socket.send_fds(other, [b"TBCP\x04\0\0\0"], [0, 1, 2])
        assert b"descriptors" in other.recv(65536)
    before_fds = wait_until("descriptors were closed", lambda: len(descriptors(serve.process.pid)))
    for _ in range(50):
        bus_socket(stage).close()
    wait_until(
        "they were closed again",
        lambda: len(descriptors(serve.process.pid)) <= before_fds,
    )
    # Whoever says nothing at all is sent away after a while.
    silent.settimeout(20)
    assert b"hello" in silent.recv(65536)
    assert stage.pid() == before
    serve.says("was sent away", times=7)
    assert serve.said().count("was sent away") == 7
    work.stop()
    serve.stop()


def bus_socket(stage: Stage) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    found.connect(str(stage.bus))
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_other_users_are_refused(stage: Stage) -> None:
    with tempfile.TemporaryDirectory(prefix="robust-") as folder:
        # Where others can get to.
        os.chmod(folder, 0o755)
        stage.bus = Path(folder) / "b"
        serve = stage.serve()
        assert knock_as_nobody(stage.bus) == "PermissionError"
        # Even if the file lets them.
        os.chmod(stage.bus, 0o666)
        said = knock_as_nobody(stage.bus)
        assert "it runs as user 65534, and this engine as user 0" in said
        serve.says("run both as the same user")
        serve.stop()


def knock_as_nobody(bus: Path) -> str:
    """What the engine says to another user, or the error of the attempt."""
    mine, others = os.pipe()
    if (child := os.fork()) == 0:
        # The interpreter may be where others cannot go: no new one is started.
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as knocking:
                knocking.connect(str(bus))
                os.write(others, knocking.recv(65536))
        except OSError as error:
            os.write(others, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(others)
    with open(mine, "rb") as heard:
        text = heard.read()
    os.waitpid(child, 0)
    return text.decode(errors="replace")


def test_the_end_of_a_process_counts_though_a_child_keeps_its_socket(stage: Stage) -> None:
    serve = stage.serve()
    program = subprocess.Popen(
        [sys.executable, "-c", LEAVES_A_CHILD, str(stage.bus)], stdout=subprocess.PIPE
    )
    serve.says(f"(pid {program.pid}) has attached")
    out, _ = program.communicate(timeout=30)
    child = int(out)
    try:
        serve.says(f"(pid {program.pid}) is gone; requests wait for another consumer")
        assert Path(f"/proc/{child}").exists()
    finally:
        os.kill(child, signal.SIGKILL)
    work = stage.work()
    assert stage.pid() > 0
    work.stop()
    serve.stop()


LEAVES_A_CHILD = r"""
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.send(b"TBCP\x01\0\x30\0" b"\1\0\1\0" + bytes(20) + b"\x08\0\4\0\2\0" + bytes(4)
       + b"\1\0c\3\0old\4\0main")
assert s.recv(65536).startswith(b"TBCP\2")
s.send(b"TBCP\4\0\0\0")
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(1000)  # not-sync: holds the socket until it is killed
print(child, flush=True)
"""


def test_consumers_that_come_again_and_again_do_not_fill_the_log(stage: Stage) -> None:
    serve = stage.serve("--limit-consumers", "1")
    work = stage.work()
    serve.says("requests go to 1 consumer now")

    def is_sent_away() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.connect(str(stage.bus))
            assert b"there are 1 consumers already" in other.recv(65536)

    for _ in range(300):
        is_sent_away()
    serve.says("was sent away")
    assert serve.said().count("was sent away") <= 100

    def counted() -> bool:
        is_sent_away()
        return " more like it before)" in serve.said()

    wait_until("the others were counted", counted)
    work.stop()
    serve.stop()


def test_what_is_no_bus(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(stage.bus))
        other.listen()
        work = stage.work()
        assert work.ends() == 3
    (line,) = [line for line in work.lines if line[30:].startswith("toolb")]
    assert "is no bus" in line
