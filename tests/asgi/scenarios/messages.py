"""What an application hands to send(), and must not."""

from __future__ import annotations

import array
import http
import json
import mmap
from collections.abc import MutableMapping
from typing import Any

from .base import Message, Receive, Scope, Send, chunk, events, notes, scenario, start


@scenario
async def reused_buffer(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends from a buffer that it overwrites afterwards."""
    buffer = bytearray(b"first ")
    await start(send)
    await chunk(send, buffer)  # type: ignore[arg-type]
    buffer[:] = b"second"
    await chunk(send, memoryview(buffer))  # type: ignore[arg-type]
    last = bytearray(b" third")
    await chunk(send, memoryview(last)[1:], more=False)  # type: ignore[arg-type]
    last[:] = b"------"


@scenario
async def bad_messages(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends what must be refused and says how it was."""
    refused = []

    async def attempt(message: Any) -> None:
        try:
            await send(message)
        except Exception as error:
            refused.append(f"{type(error).__name__}: {error}")
        else:
            refused.append("taken")

    def head(*headers: Any, status: object = 200) -> Message:
        return {"type": "http.response.start", "status": status, "headers": headers}

    async def attempt_headers(headers: object) -> None:
        await attempt({"type": "http.response.start", "status": 200, "headers": headers})

    async def attempt_body(body: object) -> None:
        await attempt({"type": "http.response.body", "body": body, "more_body": True})

    await attempt({"type": "http.response.body", "body": b"too early"})
    await attempt({"type": "websocket.accept"})
    await attempt({})
    await attempt({"type": b"http.response.start"})
    await attempt("http.response.start")
    await attempt(None)
    await attempt(head((b"x", b"a\r\nSet-Cookie: b=c")))
    await attempt(head((b"x", b"a\nb")))
    await attempt(head((b"x", b"a\0b")))
    await attempt(head((b"x", b"a\x7fb")))
    await attempt(head((b"x: y", b"z")))
    await attempt(head((b"", b"z")))
    await attempt(head(("text", b"text")))
    await attempt(head((b"length", 5)))
    await attempt(head((b"one",)))
    await attempt(head(b"x"))
    await attempt(head(7))
    await attempt(head((b"one", b"two", b"three")))
    await attempt(head((b"content-length", b"-1")))
    await attempt(head((b"content-length", b"1"), (b"content-length", b"2")))
    await attempt_headers({b"name": b"value"})
    await attempt_headers(None)
    await attempt_headers("name: value")
    await attempt_headers(5)
    await attempt_headers([("name", "value")])
    await attempt(head(status=100))
    await attempt(head(status=103))
    await attempt(head(status=600))
    await attempt(head(status=2**70))
    await attempt(head(status="200"))
    await attempt(head(status=200.0))
    await attempt(head(status=None))
    await attempt({"type": "http.response.start"})
    await attempt(head((b"x-good", b"yes")))
    await attempt_headers({})
    await attempt_body("text")
    await attempt_body(None)
    await attempt_body(5)
    await attempt_body([b"text"])
    await attempt_body(b"")
    await attempt({"type": "http.response.body", "body": json.dumps(refused).encode()})
    await attempt({"type": "http.response.body", "body": b"too late"})
    notes["late"] = refused[-1]
    events["late"].set()


@scenario
async def message_types(scope: Scope, receive: Receive, send: Send) -> None:
    """Headers and messages in every shape the specification allows."""

    class Header(tuple):
        pass

    headers = [
        [b"x-list", b"1"],
        Header((b"x-tuple", b"2")),
        (b"X-Case", b"3"),
        (bytearray(b"x-array"), memoryview(b"4")),
        iter((b"x-iterator", b"5")),
        (b"content-length", b"8"),
        (b"content-length", b"8"),
    ]
    await send(
        MappingMessage(
            type="http.response.start", status=http.HTTPStatus.CREATED, headers=iter(headers)
        )
    )
    bodies = [bytearray(b"ab"), memoryview(b"c-d-")[::2], array.array("B", b"ef"), mmap.mmap(-1, 2)]
    for body in bodies:
        await send({"type": "http.response.body", "body": body, "more_body": 1, "more": None})
    await send({"type": "http.response.body"})


class MappingMessage(MutableMapping[str, Any]):
    """A message that is no dict."""

    def __init__(self, **content: Any) -> None:
        self._content = content

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._content[key] = value

    def __delitem__(self, key: str) -> None:
        del self._content[key]

    def __iter__(self) -> Any:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)
