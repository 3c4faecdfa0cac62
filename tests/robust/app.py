"""The application that the robustness tests run: ASGI without a framework.

Where the test wants to know afterwards what has reached an application, ROBUST_DIR names a folder:
`events` gets one line per event, written in one piece before anything else is done with the
request; `progress` holds how far each numbered stream has got; files named `gate-...` let those
who wait for them go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import struct
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from payload import marked

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DIRECTORY = os.environ.get("ROBUST_DIR")
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
EVENTS = os.open(Path(DIRECTORY) / "events", APPEND, 0o600) if DIRECTORY else None
PROGRESS = (
    os.open(Path(DIRECTORY) / "progress", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if DIRECTORY
    else None
)
NEWS: dict[str, asyncio.Event] = {}


def note(event: str, *words: object) -> None:
    if EVENTS is not None:
        os.write(EVENTS, (" ".join([event, *map(str, words)]) + "\n").encode())


class Request:
    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.query: dict[str, list[str]] = parse_qs(scope["query_string"].decode())
        self.id = self.headers.get(b"x-id", b"").decode("latin-1") or self.ask("id", "-")

    def ask(self, name: str, default: str) -> str:
        values: list[str] = self.query.get(name, [default])
        return values[0]

    def number(self, name: str, default: int = 0) -> int:
        return int(self.ask(name, str(default)))

    def may_go_on(self) -> bool:
        """Whether the gate that the request names is open."""
        name = self.ask("gate", "")
        return not name or (Path(DIRECTORY or ".") / f"gate-{name}").exists()

    async def pieces(self) -> Any:
        """The body, part by part; ends early with None if the client leaves."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                note("DISCONNECT", self.id)
                yield None
                return
            yield message.get("body", b"")
            if not message.get("more_body", False):
                note("COMPLETE", self.id)
                return

    async def body(self) -> bytes:
        return b"".join([piece or b"" async for piece in self.pieces()])

    async def start(
        self, length: int | None, kind: bytes = b"text/plain", status: int = 200
    ) -> None:
        headers = [
            (b"content-type", kind),
            (b"x-id", self.id.encode("latin-1")),
            (b"x-pid", b"%d" % os.getpid()),
        ]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, data: bytes, kind: bytes = b"text/plain", status: int = 200) -> None:
        await self.start(len(data), kind, status)
        await self.write(data)


async def identity(r: Request) -> None:
    """Tells everything about the request that a mix-up could have changed."""
    body = await r.body()
    told = {
        "id": r.id,
        "pid": os.getpid(),
        "method": r.scope["method"],
        "path": r.scope["path"],
        "query": r.scope["query_string"].decode("latin-1"),
        "version": r.scope["http_version"],
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "headers": [[k.decode("latin-1"), v.decode("latin-1")] for k, v in r.scope["headers"]],
    }
    await r.answer(json.dumps(told).encode(), b"application/json")


async def echo(r: Request) -> None:
    """The body back as it comes, with or without its length."""
    length = r.headers.get(b"content-length")
    await r.start(int(length) if length and r.ask("chunked", "0") == "0" else None)
    async for piece in r.pieces():
        if piece is None:
            return
        if piece:
            await r.write(piece, more=True)
    await r.write(b"")


async def whole(r: Request) -> None:
    """The body back in one piece, after all of it has come."""
    await r.answer(await r.body())


async def sleep(r: Request) -> None:
    """So long, or until a gate opens."""
    await asyncio.sleep(r.number("ms") / 1000)  # not-sync: the delay is what the test asks for
    while not r.may_go_on():
        await asyncio.sleep(0.02)  # not-sync: the pause between two looks
    await r.answer(r.id.encode())
    note("END", r.id)


async def block(r: Request) -> None:
    """What no asynchronous application should do, and all of them do somewhere."""
    # not-sync: the delay is what the test asks for
    time.sleep(r.number("ms") / 1000)
    while not r.may_go_on():
        time.sleep(0.02)  # not-sync: the pause between two looks
    await r.answer(r.id.encode())
    note("END", r.id)


async def stream(r: Request) -> None:
    """`size` bytes in `parts` with `gap` ms in between; `number` is its place in `progress`."""
    data = marked(r.id, r.number("size"))
    step = max(1, -(-len(data) // r.number("parts", 16)))
    number, gap = r.number("number", -1), r.number("gap") / 1000
    await r.start(len(data) if r.ask("length", "0") == "1" else None)
    for at in range(0, len(data), step):
        await r.write(data[at : at + step], more=True)
        if number >= 0 and PROGRESS is not None:
            os.pwrite(PROGRESS, struct.pack("=Q", min(at + step, len(data))), 8 * number)
        if gap:
            # not-sync: the delay is what the test asks for
            await asyncio.sleep(gap)
    await r.write(b"")


async def upload(r: Request) -> None:
    """Reads one part, waits for the gate, and then the rest."""
    sha, size, first = hashlib.sha256(), 0, True
    async for piece in r.pieces():
        if piece is None:
            return
        sha.update(piece)
        size += len(piece)
        if first:
            first = False
            note("HOLD", r.id)
            while not r.may_go_on():
                # not-sync: a slow reader is what the test asks for
                await asyncio.sleep(0.02)
    await r.answer(f"{r.id} {size} {sha.hexdigest()}".encode())


async def sse(r: Request) -> None:
    """One event at once, the next ones whenever /news is called, until the client leaves."""
    news = NEWS.setdefault(r.ask("name", "news"), asyncio.Event())
    await r.start(None, b"text/event-stream")
    await r.write(b"data: hello\n\n", more=True)
    gone = asyncio.ensure_future(r.receive())
    await gone  # the request itself; the next message is the disconnect
    gone = asyncio.ensure_future(r.receive())
    while not gone.done():
        next_one = asyncio.ensure_future(news.wait())
        await asyncio.wait({gone, next_one}, return_when=asyncio.FIRST_COMPLETED)
        if next_one.done():
            news.clear()
            await r.write(b"data: news\n\n", more=True)
        else:
            next_one.cancel()
    note("GONE", r.id)


async def news(r: Request) -> None:
    NEWS.setdefault(r.ask("name", "news"), asyncio.Event()).set()
    await r.answer(b"told")


async def pid(r: Request) -> None:
    await r.answer(b"%d" % os.getpid())


async def ignore(r: Request) -> None:
    """Answers without a look at the body."""
    await r.answer(r.id.encode())


async def too_long(r: Request) -> None:
    """A response that the engine cuts short, with a line in its log."""
    headers = [(b"content-length", b"2")]
    await r.send({"type": "http.response.start", "status": 200, "headers": headers})
    await r.write(b"abc")


async def silent(r: Request) -> None:
    """No answer at all."""


async def cleans_up(r: Request) -> None:
    """What is cancelled may fail on its way out."""
    try:
        # not-sync: it never ends by itself
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        raise RuntimeError("its database has gone already") from None


async def crash(r: Request) -> None:
    raise RuntimeError("this route always fails")


ROUTES: dict[str, Callable[[Request], Awaitable[None]]] = {
    "/block": block,
    "/cleans-up": cleans_up,
    "/crash": crash,
    "/echo": echo,
    "/id": identity,
    "/ignore": ignore,
    "/news": news,
    "/pid": pid,
    "/silent": silent,
    "/sleep": sleep,
    "/sse": sse,
    "/stream": stream,
    "/too-long": too_long,
    "/upload": upload,
    "/whole": whole,
}


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        r = Request(scope, receive, send)
        path = quote(scope["path"])  # a line must stay a line
        note("BEGIN", r.id, os.getpid(), scope["method"], path)
        route = ROUTES.get("/" + scope["path"].split("/")[1], ignore)
        await route(r)
    elif scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                note("STARTUP", os.getpid())
                await send({"type": "lifespan.startup.complete"})
            else:
                note("SHUTDOWN", os.getpid())
                await send({"type": "lifespan.shutdown.complete"})
                return


async def plain(scope: Message, receive: Receive, send: Send) -> None:
    """As little as an application can be."""
    assert scope["type"] == "http"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


async def refuses_to_start(scope: Message, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    note("REFUSED", os.getpid())
    await send({"type": "lifespan.startup.failed", "message": "no database today"})
