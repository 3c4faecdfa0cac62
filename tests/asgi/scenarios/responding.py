"""Responses with and without a length, in parts, and to clients that read slowly or leave."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .base import Receive, Scope, Send, answer, body_of, chunk, events, notes, scenario, start


@scenario
async def after_response(scope: Scope, receive: Receive, send: Send) -> None:
    """Has work to do when the response is complete."""
    await answer(send, "sent")
    await events["finish"].wait()
    notes["finished"] = True
    events["finished"].set()


@scenario
async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    events["slow-started"].set()
    await events["go"].wait()
    await answer(send, "slow")


@scenario
async def send_after_disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await chunk(send, b"first")
    events["streaming"].set()
    await body_of(receive)
    assert (await receive())["type"] == "http.disconnect"
    try:
        await chunk(send, b"second")
    except OSError as error:
        notes["raised"] = [base.__name__ for base in type(error).__mro__]
        notes["module"] = type(error).__module__
        events["raised"].set()
        raise


@scenario
async def with_status(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers any method with the status in the query, a body and its length."""
    status = int(scope["query_string"])
    await start(send, status, (b"content-length", b"5"))
    await chunk(send, b"hello", more=False)


@scenario
async def own_transfer_encoding(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, (b"transfer-encoding", b"chunked"), (b"Transfer-Encoding", b"gzip"))
    await chunk(send, b"one,")
    await chunk(send, b"two", more=False)


@scenario
async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Streams without a length; the second part waits until it is told."""
    await start(send, 200, (b"content-type", b"text/event-stream"))
    await chunk(send, b"data: 1\n\n")
    if scope["query_string"] == b"wait":
        await events["go"].wait()
    await chunk(send, b"data: 2\n\n")
    await chunk(send, b"", more=False)


@scenario
async def no_length(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await chunk(send, b"all at once", more=False)


@scenario
async def too_much(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, (b"content-length", b"5"))
    with suppress(OSError):
        await chunk(send, b"hel")
        await chunk(send, b"lo, and more", more=False)


@scenario
async def too_little(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, (b"content-length", b"50"))
    await chunk(send, b"hello", more=False)


@scenario
async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends 64 MiB and notes how far it came before it had to wait."""
    await start(send)
    block = bytes(64 * 1024)
    for number in range(1024):
        sending = asyncio.ensure_future(chunk(send, block))
        await asyncio.wait([sending], timeout=0.5)
        if not sending.done():
            notes.setdefault("waited after", number)
            events["waiting"].set()
        try:
            await sending
        except OSError:
            notes["raised at"] = number
            events["raised"].set()
            return
    notes.setdefault("waited after", "never")
    events["waiting"].set()
    await chunk(send, b"", more=False)
