"""A running server per event loop, and clients that show every byte."""

from __future__ import annotations

import importlib
import os
import re
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import PATIENCE, Program

HERE = Path(__file__).parent
BANNER = r"\bon (?:http://(?P<host>[\d.]+):(?P<port>\d+)|unix:(?P<path>\S+))"
LOOPS = ("asyncio", "uvloop")


class Server(Program):
    """`toolb run` with one worker, on a port of its own choosing."""

    def __init__(self, app: str, *arguments: str, app_dir: Path = HERE) -> None:
        port = () if "--uds" in arguments else ("--port", "0")
        super().__init__("run", app, "--app-dir", app_dir, *port, *arguments)
        self.address: tuple[str, int] | str = ""

    def listening(self) -> Server:
        """This server, once it listens."""
        banner = self.until(BANNER)
        self.address = banner["path"] or (banner["host"], int(banner["port"]))
        return self

    def until_said(self, text: str, times: int = 1) -> str:
        """Waits until it has printed `text` so many times."""
        self.until(re.escape(text), times)
        return self.said

    def connect(self) -> Connection:
        """A connection to it."""
        return Connection(self)

    def ask(self, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Response:
        """One request on a connection of its own."""
        with self.connect() as connection:
            connection.request(target, *fields, method=method, body=body)
            return connection.response(method)


class Response:
    """What came back: the head, and the body as it was framed."""

    def __init__(self, head: bytes, framing: str, body: bytes, whole: bool) -> None:
        line, *fields = head.decode("latin-1").split("\r\n")
        self.version, status, _ = line.split(" ", 2)
        self.status = int(status)
        self.fields = [
            (name.lower(), value.strip()) for name, _, value in (f.partition(":") for f in fields)
        ]
        self.framing = framing
        self.body = body
        self.whole = whole
        """The body came to the end that its framing promised."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def all(self, name: str) -> list[str]:
        """The values of all fields of this name."""
        return [value for field, value in self.fields if field == name]

    def __getitem__(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None


class Connection:
    """A client of few words: it sends what it is told and parses no more than it must."""

    def __init__(self, server: Server) -> None:
        family = socket.AF_UNIX if isinstance(server.address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(server.address)
        self._buffer = bytearray()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def request(
        self,
        target: str,
        *fields: str,
        method: str = "GET",
        body: bytes = b"",
        version: str = "1.1",
    ) -> None:
        """Sends a request."""
        head = [f"{method} {target} HTTP/{version}", "Host: test", *fields]
        if body:
            head.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def more(self) -> bool:
        """Reads what has come. False: that was all there will be."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        while mark not in self._buffer:
            assert self.more(), f"the server hung up; it had sent {bytes(self._buffer)!r}"
        end = self._buffer.index(mark) + len(mark)
        return self.take(end)

    def take(self, count: int) -> bytes:
        """The next `count` bytes; fewer if the server hangs up."""
        while len(self._buffer) < count and self.more():
            pass
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def rest(self) -> bytes:
        """Everything until the server hangs up."""
        while self.more():
            pass
        return self.take(len(self._buffer))

    def response(self, method: str = "GET") -> Response:
        """The next response."""
        head = self.until(b"\r\n\r\n")[:-4]
        lower = b"\r\n" + head.lower()
        status = int(head.split(b" ", 2)[1])
        if method == "HEAD" or status in (204, 304) or status < 200:
            return Response(head, "none", b"", True)
        if b"\r\ntransfer-encoding: chunked" in lower:
            body, whole = self._chunks()
            return Response(head, "chunked", body, whole)
        if found := re.search(rb"\r\ncontent-length: *(\d+)", lower):
            length = int(found[1])
            body = self.take(length)
            return Response(head, "length", body, len(body) == length)
        return Response(head, "close", self.rest(), True)

    def _chunks(self) -> tuple[bytes, bool]:
        body = bytearray()
        while True:
            try:
                size = int(self.until(b"\r\n"), 16)
                chunk = self.take(size)
                self.until(b"\r\n")
            except AssertionError:
                return bytes(body), False
            if size == 0:
                return bytes(body), True
            body += chunk

    def idle(self) -> bool:
        """Nothing has come that was not read."""
        return not self._buffer and not select.select([self.socket], [], [], 0)[0]


def wait_for_exit(pid: int) -> None:
    """Waits until a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([descriptor], [], [], PATIENCE)
        assert ended, f"process {pid} did not end"
    finally:
        os.close(descriptor)


@pytest.fixture(scope="session", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each test runs on each of these loops."""
    # A loop that is not installed is a failure: nobody would miss tests that were skipped.
    importlib.import_module(request.param)
    return str(request.param)


@pytest.fixture
def start(loop: str) -> Iterator[Callable[..., Server]]:
    """Starts servers that are stopped after the test."""
    servers: list[Server] = []

    def start(app: str, *arguments: str, app_dir: Path = HERE) -> Server:
        # A request waits for its worker as long as a busy machine may take to start one.
        patient = ("--queue-timeout", "60s")
        server = Server(app, "--loop", loop, *patient, *arguments, app_dir=app_dir)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def running(loop: str) -> Iterator[Server]:
    """A server of the scenarios that all tests share."""
    server = Server("scenarios:app", "--loop", loop, "--limit-request-body", "1G").listening()
    yield server
    server.stop()


@pytest.fixture
def server(running: Server) -> Server:
    """The shared server, with nothing of other tests left in it."""
    assert running.ask("/forget").status == 200
    return running


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an application can wait for: a file that is not there yet, named by `GO`."""
    path = tmp_path / "go"
    monkeypatch.setenv("GO", str(path))
    return path
