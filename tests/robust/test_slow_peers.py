"""Slow peers cost the engine no memory to speak of, whichever side is slow."""

from __future__ import annotations

import hashlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from .harness import Server, Servers, peak_rss, reset_peak, rss, wait_until
from .http1 import Connection, Parser, request
from .payload import marked

PEERS = 64
SIZE = 20_000_000
MOST = 24 * 1024  # KiB that the engine may grow by
SMALL_BUFFER = 64 * 1024
# What goes on, however slowly, does not hang; this is for what does.
PATIENCE = 60.0
pytestmark = pytest.mark.timeout(600)


def connect(server: Server) -> socket.socket:
    """With small buffers on this side, so that the kernel does not hide who is slow."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    s.connect(server.address)
    s.setblocking(False)
    return s


def warm_up(server: Server) -> int:
    """Has everything that is allocated once allocated; the engine's RSS after that, in KiB."""
    for _ in range(2):
        connections = [server.connect() for _ in range(PEERS)]
        for n, connection in enumerate(connections):
            connection.send(request("/whole", "POST", marked(f"w{n}", 50_000)))
        for n, connection in enumerate(connections):
            assert connection.receive().body == marked(f"w{n}", 50_000)
            connection.socket.close()
    reset_peak(server.pid)
    return rss(server.pid)


class Uploads:
    """Sends bodies from many sockets as fast as the server takes them, or a little of each."""

    def __init__(self, server: Server, gate: str) -> None:
        self.bodies = [marked(f"u{n}", SIZE) for n in range(PEERS)]
        self.sockets = [connect(server) for _ in self.bodies]
        self.sent = [0] * PEERS
        for n, s in enumerate(self.sockets):
            head = request(
                f"/upload?gate={gate}",
                "POST",
                headers={"X-Id": f"u{n}", "Content-Length": str(SIZE)},
            )
            assert s.send(head) == len(head)

    def push(self, most: int = 1 << 20) -> int:
        """One turn through all sockets that take something; how much they took."""
        total = 0
        for n, s in enumerate(self.sockets):
            if self.sent[n] < SIZE:
                try:
                    took = s.send(memoryview(self.bodies[n])[self.sent[n] : self.sent[n] + most])
                except BlockingIOError:
                    continue
                self.sent[n] += took
                total += took
        return total


def until_still(move: Callable[[], int], still: float = 1.0, patience: float = 120.0) -> None:
    """Goes on until nothing has moved for a while: the state this waits for is standing still."""
    deadline = time.monotonic() + patience
    last = time.monotonic()
    while time.monotonic() - last < still:
        if move():
            last = time.monotonic()
        else:
            time.sleep(0.01)  # not-sync: the pause between two looks
        assert time.monotonic() < deadline, "it never stood still: nobody holds it back"


def receive_all(sockets: Iterable[socket.socket], slow: int) -> list[bytes]:
    """The bodies of all answers, read in turn and `slow` bytes at a time."""
    everyone = list(sockets)
    parsers = [Parser() for _ in everyone]
    bodies: list[bytes] = [b""] * len(everyone)
    left = len(everyone)
    with selectors.DefaultSelector() as selector:
        for n, s in enumerate(everyone):
            selector.register(s, selectors.EVENT_READ, n)
        deadline = time.monotonic() + PATIENCE
        while left:
            for key, _ in selector.select(1):
                deadline = time.monotonic() + PATIENCE
                n = key.data
                data = everyone[n].recv(slow)
                assert data, f"answer {n} was cut off: {parsers[n].answer}"
                if parsers[n].feed(data):
                    answer = parsers[n].answer
                    assert answer is not None
                    assert answer.status == 200, answer
                    bodies[n] = answer.body
                    selector.unregister(everyone[n])
                    left -= 1
            assert time.monotonic() < deadline, f"{left} answers did not come"
    return bodies


def check_growth(server: Server, baseline: int, when: str) -> None:
    growth = peak_rss(server.pid) - baseline
    print(f"{when}: the engine grew by {growth} KiB over {baseline} KiB")
    assert growth < MOST, f"{when}: {growth} KiB over {baseline} KiB"


def test_uploads_that_nobody_reads(servers: Servers) -> None:
    server = servers.start(workers=2)
    baseline = warm_up(server)
    uploads = Uploads(server, "read")
    until_still(uploads.push)
    # Applications have begun to read and wait now; the clients would send on, and cannot.
    wait_until("all had begun", lambda: len(server.began("HOLD")) == PEERS)
    assert max(uploads.sent) < SIZE * 3 // 4, "the server took (nearly) whole bodies"
    check_growth(server, baseline, "all uploads stand still")
    server.open_gate("read")
    deadline = time.monotonic() + PATIENCE
    while min(uploads.sent) < SIZE:
        if uploads.push(SMALL_BUFFER):
            deadline = time.monotonic() + PATIENCE
        else:
            time.sleep(0.001)  # not-sync: the pause between two tries
        assert time.monotonic() < deadline, f"uploads do not go on: {sorted(uploads.sent)[:5]}"
    answers = receive_all(uploads.sockets, 1 << 16)
    for n, told in enumerate(answers):
        sha = hashlib.sha256(uploads.bodies[n]).hexdigest()
        assert told == f"u{n} {SIZE} {sha}".encode()
    check_growth(server, baseline, "all uploads are done")
    for s in uploads.sockets:
        s.close()


def test_uploads_that_come_in_drops(servers: Servers) -> None:
    """The application reads at once; the clients are slow: half a body each, then a pause."""
    server = servers.start(workers=2)
    baseline = warm_up(server)
    server.open_gate("open")
    uploads = Uploads(server, "open")
    deadline = time.monotonic() + PATIENCE
    while min(uploads.sent) < SIZE // 2:
        if uploads.push(16 * 1024):
            deadline = time.monotonic() + PATIENCE
        assert time.monotonic() < deadline, "uploads do not go on"
    wait_until("all had begun", lambda: len(server.began("HOLD")) == PEERS)
    check_growth(server, baseline, "half of every upload is there")
    while min(uploads.sent) < SIZE:
        if uploads.push(256 * 1024):
            deadline = time.monotonic() + PATIENCE
        assert time.monotonic() < deadline, "uploads do not go on"
    answers = receive_all(uploads.sockets, 1 << 16)
    assert [told.split()[:2] for told in answers] == [
        [b"u%d" % n, b"%d" % SIZE] for n in range(PEERS)
    ]
    check_growth(server, baseline, "all uploads are done")
    for s in uploads.sockets:
        s.close()


def progress(server: Server) -> list[int]:
    """How many bytes each stream of the application has handed to the server."""
    path = Path(server.directory) / "progress"
    data = path.read_bytes() if path.exists() else b""
    return list(struct.unpack(f"={len(data) // 8}Q", data[: len(data) // 8 * 8]))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_downloads_that_nobody_reads(servers: Servers, framing: str) -> None:
    server = servers.start(workers=2)
    baseline = warm_up(server)
    sockets = [connect(server) for _ in range(PEERS)]
    length = int(framing == "length")
    for n, s in enumerate(sockets):
        path = f"/stream?size={SIZE}&parts=640&number={n}&length={length}"
        data = request(path, headers={"X-Id": f"d{n}"})
        assert s.send(data) == len(data)
    last: list[int] = []

    def moved() -> int:
        nonlocal last
        now = progress(server)
        changed = now != last
        last = now
        return changed

    wait_until("all streams had begun", lambda: sum(p > 0 for p in progress(server)) == PEERS)
    until_still(moved)
    # The applications would send on, and cannot.
    assert len(last) == PEERS
    assert max(last) < SIZE * 3 // 4, "the server took (nearly) whole bodies"
    check_growth(server, baseline, "all downloads stand still")
    bodies = receive_all(sockets, 32 * 1024)
    for n, body in enumerate(bodies):
        assert body == marked(f"d{n}", SIZE)
    check_growth(server, baseline, "all downloads are done")
    for s in sockets:
        s.close()


def test_clients_that_leave_give_their_memory_back(servers: Servers) -> None:
    server = servers.start(workers=2)
    baseline = warm_up(server)
    for turn in range(5):
        sockets = [connect(server) for _ in range(PEERS)]
        for n, s in enumerate(sockets):
            s.send(request(f"/stream?size={SIZE}", headers={"X-Id": f"t{turn}n{n}"}))

        def all_begun(count: int = (turn + 1) * PEERS) -> bool:
            return sum(own.startswith("t") for own in server.began()) == count

        wait_until("all had begun", all_begun)
        for s in sockets:
            s.close()
    wait_until("it is small again", lambda: rss(server.pid) - baseline < MOST)
    check_growth(server, baseline, "all clients have left")
    with Connection(server.address) as connection:
        answer = connection.ask("/stream?size=1000000", headers={"X-Id": "after"})
        assert answer.body == marked("after", 1_000_000)
    assert len(os.listdir(f"/proc/{server.pid}/fd")) < 100
