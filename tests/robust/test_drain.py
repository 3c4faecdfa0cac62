"""A drain in the middle of large bodies both ways: within the grace time nothing is cut off."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from . import native
from .harness import Servers, children, wait_until
from .http1 import Parser, request
from .payload import BLOCK, payload
from .stage import Stage
from .test_run import refused

PEERS = 64  # each way
SIZE = 20_000_000
HALF = SIZE // 2
STEP = 64 * 1024  # so much is sent or taken at once
# The peers are slow, and so may the machine be; the length of the grace time is not tested here.
GRACE = ("--timeout-graceful-shutdown", "600")
# What goes on, however slowly, does not hang; this is for what does.
PATIENCE = 60.0
pytestmark = pytest.mark.timeout(600)


class Peer:
    """A client that sends and takes a little at a time. `theirs` is what it should get."""

    def __init__(self, address: tuple[str, int], own: str, head: bytes, theirs: Body) -> None:
        self.own = own
        self.theirs = theirs
        self.taken = 0
        self.done = False
        self.parser = Parser()
        self.socket = socket.socket()
        # So that the kernel does not hide who is slow.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STEP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STEP)
        self.socket.connect(address)
        self.socket.sendall(head)
        self.socket.setblocking(False)

    def turn(self) -> None:
        with suppress(BlockingIOError):
            self.send()
            data = self.socket.recv(STEP)
            assert data, f"{self.own} was cut off after {self.progress()} bytes"
            self.done = self.parser.feed(data)
            answer = self.parser.answer
            assert answer is None or answer.status == 200, (self.own, answer)
            part = self.parser.take_body()
            assert self.theirs.has(self.taken, part), f"{self.own}: not what was sent"
            self.taken += len(part)

    def send(self) -> None:
        """Nothing but its request."""

    def progress(self) -> int:
        return self.taken

    def ends(self, closes: bool) -> None:
        """It has its whole answer; if the server ends, it is told so and nothing comes after."""
        assert self.taken == self.theirs.size, (self.own, self.taken)
        if closes:
            self.socket.setblocking(True)
            self.socket.settimeout(PATIENCE)
            assert self.socket.recv(1) == b""
        self.socket.close()


class Upload(Peer):
    def __init__(self, address: tuple[str, int], own: str, theirs: Body) -> None:
        fields = {"X-Id": own, "Content-Length": str(SIZE)}
        super().__init__(address, own, request("/upload", "POST", headers=fields), theirs)
        self.sent = 0
        self.body = Body(own.encode())

    def send(self) -> None:
        if self.sent < SIZE:
            with suppress(BlockingIOError):
                self.sent += self.socket.send(self.body.part(self.sent, STEP))

    def progress(self) -> int:
        return self.sent


class Body:
    """Bytes that are known without being kept for each peer: a mark, and then the same for all."""

    def __init__(self, mark: bytes, size: int = SIZE, period: int = SIZE) -> None:
        self.mark = mark
        self.size = size
        self.rest = memoryview(payload(period))

    def part(self, at: int, most: int) -> bytes | memoryview:
        if at < len(self.mark):
            return self.mark[at:]
        at_rest = at % len(self.rest)
        return self.rest[at_rest : at_rest + min(most, self.size - at)]

    def has(self, at: int, data: bytes) -> bool:
        seen = 0
        while seen < len(data) and at + seen < self.size:
            part = self.part(at + seen, len(data) - seen)
            if data[seen : seen + len(part)] != part:
                return False
            seen += len(part)
        return seen == len(data)


@dataclass
class Traffic:
    """Uploads and downloads, all of them in the middle when it is made."""

    peers: list[Peer]

    def __post_init__(self) -> None:
        self.go_on(lambda: all(peer.progress() >= HALF for peer in self.peers), HALF)
        assert not any(peer.done for peer in self.peers)

    def finish(self, closes: bool = True) -> None:
        self.go_on(lambda: all(peer.done for peer in self.peers), SIZE)
        for peer in self.peers:
            peer.ends(closes)

    def go_on(self, over: Callable[[], bool], most: int) -> None:
        deadline, before = time.monotonic() + PATIENCE, -1
        while not over():
            for peer in self.peers:
                if not peer.done and (most == SIZE or peer.progress() < most):
                    peer.turn()
            moved = sum(peer.progress() + peer.taken for peer in self.peers)
            if moved != before:
                deadline, before = time.monotonic() + PATIENCE, moved
            least = min(peer.progress() for peer in self.peers)
            assert time.monotonic() < deadline, f"it does not go on: {least} bytes"


def by_python(address: tuple[str, int]) -> Traffic:
    peers: list[Peer] = []
    for n in range(PEERS):
        body = Body(f"u{n}".encode())
        sha = hashlib.sha256(body.mark)
        sha.update(body.part(len(body.mark), SIZE))
        told = f"u{n} {SIZE} {sha.hexdigest()}".encode()
        peers += [Upload(address, f"u{n}", Body(told, len(told))), download(address, n, SIZE)]
    return Traffic(peers)


def by_c(address: tuple[str, int]) -> Traffic:
    peers: list[Peer] = []
    for n in range(PEERS):
        told = f"u{n} {SIZE}".encode()
        peers += [Upload(address, f"u{n}", Body(told, len(told))), download(address, n, BLOCK)]
    return Traffic(peers)


def download(address: tuple[str, int], n: int, period: int) -> Peer:
    """Programs in C send the same block over and over."""
    head = request(f"/stream?size={SIZE}&parts=640", headers={"X-Id": f"d{n}"})
    return Peer(address, f"d{n}", head, Body(f"d{n}".encode(), period=period))


def test_run_cuts_nothing(servers: Servers) -> None:
    server = servers.start(workers=2, flags=GRACE)
    traffic = by_python(server.address)
    server.process.send_signal(signal.SIGTERM)
    wait_until("nobody is accepted", lambda: refused(server.address))
    traffic.finish()
    assert server.process.wait(PATIENCE) == 0, server.said()
    assert "cut off" not in server.said(), server.said()
    assert len(server.began("SHUTDOWN")) == 2


def test_serve_cuts_nothing_of_consumers_in_c(stage: Stage) -> None:
    serve = stage.serve(*GRACE)
    native.prepare(stage.directory)
    own = {"TOOLB_BUS": str(stage.bus), "ROBUST_DIR": str(stage.directory)}
    environment = {**os.environ, **own}
    consumers = [subprocess.Popen(native.command("consumer"), env=environment) for _ in range(2)]
    try:
        serve.says("requests go to 2 consumers now")
        traffic = by_c(stage.address)
        serve.process.terminate()
        serve.says("SIGTERM: finishing")
        traffic.finish()
        assert serve.ends() == 0, serve.said()
        assert "cut off" not in serve.said(), serve.said()
        # Without an engine there is nothing to be a consumer of.
        assert [consumer.wait(PATIENCE) for consumer in consumers] == [0, 0]
    finally:
        for consumer in consumers:
            consumer.kill()
            consumer.wait()


def test_work_that_stops_cuts_nothing(stage: Stage) -> None:
    """The engine goes on: others take the requests that come meanwhile."""
    serve = stage.serve(*GRACE)
    work = stage.work("-w", "2", *GRACE)
    serve.says("requests go to 2 consumers now")
    traffic = by_python(stage.address)
    heir = stage.work(*GRACE)
    serve.says("requests go to 3 consumers now")
    work.process.terminate()
    serve.says("requests go to 1 consumer now")
    assert stage.pid() in {p.pid for p in children(heir.process.pid)}
    traffic.finish(closes=False)
    assert work.ends() == 0, work.said()
    assert "did not finish" not in work.said(), work.said()
    heir.stop()
    serve.stop()
