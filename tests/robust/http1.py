"""A strict HTTP/1.1 client: it believes nothing that a server does not say correctly."""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import termios
import time
from contextlib import suppress
from dataclasses import dataclass, field

STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) [\t -~\x80-\xff]*")
FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})")


class MalformedError(Exception):
    """The server sent something that is not HTTP."""


class CutError(Exception):
    """The connection ended before the answer did. `began`: its head had come already."""

    def __init__(self, began: bool, got: bytes) -> None:
        super().__init__(f"cut off {'in the body' if began else 'before the head'}: {got[-100:]!r}")
        self.began = began
        self.got = got


@dataclass
class Answer:
    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    closes: bool = False
    interim: list[int] = field(default_factory=list)

    def get(self, name: bytes) -> bytes | None:
        """The only value of a field; two of them are an error of the server."""
        values = [v for n, v in self.fields if n.lower() == name]
        if len(values) > 1:
            raise MalformedError(f"{name!r} came {len(values)} times: {values}")
        return values[0] if values else None


class Parser:
    """Takes bytes, gives one answer. What follows it stays in `rest`."""

    def __init__(self, method: str = "GET", rest: bytes = b"") -> None:
        self.method = method
        self.rest = bytearray(rest)
        self.answer: Answer | None = None
        self.interim: list[int] = []
        self._parts: list[bytes] = []
        self._left: int | None = None  # of the body or the chunk
        self._chunked = False
        self._until_close = False
        self._stage = "head"

    @property
    def began(self) -> bool:
        return self.answer is not None

    def feed(self, data: bytes) -> bool:
        """True: the answer is complete."""
        self.rest += data
        while self._step():
            pass
        return self._stage == "done"

    def eof(self) -> Answer:
        if self._until_close and self._stage == "body":
            return self._finish()
        raise CutError(self.began, bytes(self.rest))

    def take_body(self) -> bytes:
        """What has come of the body, which is not kept then: for bodies too large to keep."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken

    def _finish(self) -> Answer:
        assert self.answer is not None
        self.answer.body = b"".join(self._parts)
        self.answer.interim = self.interim
        self._stage = "done"
        return self.answer

    def _line(self) -> bytes | None:
        at = self.rest.find(b"\n")
        if at < 0:
            return None
        if at == 0 or self.rest[at - 1] != 13:
            raise MalformedError(f"a line without CR: {bytes(self.rest[:at])!r}")
        line = bytes(self.rest[: at - 1])
        del self.rest[: at + 1]
        return line

    def _step(self) -> bool:
        if self._stage == "head":
            return self._head()
        if self._stage == "size":
            line = self._line()
            if line is None:
                return False
            size = CHUNK_SIZE.fullmatch(line)
            if not size:
                raise MalformedError(f"chunk size {line!r}")
            self._left = int(size[1], 16)
            self._stage = "chunk" if self._left else "trailer"
            return True
        if self._stage == "chunk":
            assert self._left is not None
            if self._left:
                return self._take()
            if len(self.rest) < 2:
                return False
            if self.rest[:2] != b"\r\n":
                raise MalformedError(f"after a chunk: {bytes(self.rest[:20])!r}")
            del self.rest[:2]
            self._stage = "size"
            return True
        if self._stage == "trailer":
            line = self._line()
            if line is None:
                return False
            if line:
                raise MalformedError(f"a trailer nobody asked for: {line!r}")
            self._finish()
            return False
        if self._stage == "body":
            if self._until_close:
                if self.rest:
                    self._parts.append(bytes(self.rest))
                    self.rest.clear()
                return False
            if self._left:
                return self._take()
            self._finish()
        return False

    def _take(self) -> bool:
        assert self._left is not None
        part = bytes(self.rest[: self._left])
        if not part:
            return False
        self._parts.append(part)
        self._left -= len(part)
        del self.rest[: len(part)]
        return True

    def _head(self) -> bool:
        end = self.rest.find(b"\r\n\r\n")
        if end < 0:
            if len(self.rest) >= 12 and not re.match(rb"HTTP/1\.[01] \d\d\d", self.rest):
                raise MalformedError(f"no status line: {bytes(self.rest[:80])!r}")
            return False
        first, *lines = bytes(self.rest[:end]).split(b"\r\n")
        del self.rest[: end + 4]
        line = STATUS_LINE.fullmatch(first)
        if not line:
            raise MalformedError(f"no status line: {first!r}")
        fields = []
        for text in lines:
            found = FIELD.fullmatch(text)
            if not found:
                raise MalformedError(f"no field: {text!r}")
            fields.append((found[1], found[2]))
        answer = Answer(int(line[1]), fields)
        if answer.status < 200:
            self.interim.append(answer.status)
            return True
        self.answer = answer
        length, coding = answer.get(b"content-length"), answer.get(b"transfer-encoding")
        tokens = (answer.get(b"connection") or b"").lower().replace(b" ", b"").split(b",")
        answer.closes = b"close" in tokens or (
            first.startswith(b"HTTP/1.0") and b"keep-alive" not in tokens
        )
        if length is not None and coding is not None:
            raise MalformedError("Content-Length and Transfer-Encoding in one answer")
        if length is not None and not re.fullmatch(rb"\d+", length):
            raise MalformedError(f"Content-Length {length!r}")
        if self.method == "HEAD" or answer.status in (204, 304):
            self._left = 0
        elif coding is not None:
            if coding.lower() != b"chunked":
                raise MalformedError(f"Transfer-Encoding {coding!r}")
            self._stage = "size"
            return True
        elif length is not None:
            self._left = int(length)
        else:
            if not answer.closes:
                raise MalformedError("an answer without an end")
            self._until_close = True
        self._stage = "body"
        return True


def request(
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    version: str = "1.1",
    chunks: int = 0,
) -> bytes:
    """The bytes of a request. `chunks`: how many the body comes in instead of with its length."""
    lines = [f"{method} {path} HTTP/{version}", "Host: test"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    tail = body or b""
    if chunks:
        lines.append("Transfer-Encoding: chunked")
        step = max(1, -(-len(tail) // chunks))
        parts = [tail[at : at + step] for at in range(0, len(tail), step)]
        tail = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + tail


class Connection:
    """Blocking, for one thing at a time."""

    def __init__(self, address: tuple[str, int], timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_more(self, data: bytes) -> None:
        """Sends what the server reads separately from what was sent before, as far as can be seen
        from here: the kernel on the other side has acknowledged all of that."""
        deadline = time.monotonic() + 5
        while fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4) != b"\0" * 4:
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not take what it is sent")
        time.sleep(0.002)  # not-sync: widens the gap; nothing depends on it
        # A server that has refused already may have closed already.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def await_head(self) -> bytes:
        """What has come once that is the whole head of an answer; `receive` goes on with it."""
        while b"\r\n\r\n" not in self.rest:
            data = self.socket.recv(1 << 18)
            if not data:
                raise CutError(False, self.rest)
            self.rest += data
        return self.rest

    def receive(self, method: str = "GET") -> Answer:
        parser = Parser(method)
        done = parser.feed(self.rest)
        while not done:
            data = self.socket.recv(1 << 18)
            if not data:
                answer = parser.eof()
                self.rest = b""
                return answer
            done = parser.feed(data)
        self.rest = bytes(parser.rest)
        assert parser.answer is not None
        return parser.answer

    def ask(self, path: str, method: str = "GET", **more: object) -> Answer:
        self.send(request(path, method, **more))  # type: ignore[arg-type]
        return self.receive(method)

    def until_closed(self) -> bytes:
        """Everything that still comes; raises TimeoutError if the server keeps the connection."""
        parts = [self.rest]
        try:
            while data := self.socket.recv(1 << 18):
                parts.append(data)
        except ConnectionResetError:
            pass
        self.rest = b""
        return b"".join(parts)


class AsyncConnection:
    """The same for many at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.rest = b""

    @classmethod
    async def open(cls, address: tuple[str, int]) -> AsyncConnection:
        reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
        return cls(reader, writer)

    def close(self) -> None:
        self.writer.transport.abort()

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Sends and receives at the same time: an echo would otherwise stop halfway."""
        self.writer.write(data)
        parser = Parser(method)
        done = parser.feed(self.rest)
        while not done:
            try:
                data = await self.reader.read(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                try:
                    return parser.eof()
                finally:
                    self.close()
            done = parser.feed(data)
        self.rest = bytes(parser.rest)
        assert parser.answer is not None
        return parser.answer
