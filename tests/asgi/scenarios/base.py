"""What the scenarios are made of: their register, what they tell each other, and short answers."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
Scenario = Callable[[Scope, Receive, Send], Awaitable[None]]

scenarios: dict[str, Scenario] = {}
events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
notes: dict[str, Any] = {}


def scenario(function: Scenario) -> Scenario:
    """Serves `function` at the path of its name."""
    scenarios["/" + function.__name__.replace("_", "-")] = function
    return function


async def start(send: Send, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def chunk(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def answer(send: Send, value: object, status: int = 200) -> None:
    """Answers with text, or with JSON if it is no text."""
    text = value if isinstance(value, str) else json.dumps(value)
    body = text.encode()
    await start(send, status, (b"content-length", str(len(body)).encode()))
    await chunk(send, body, more=False)


async def body_of(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left before its body was complete")
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)
