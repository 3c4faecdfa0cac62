"""What receive() gives: bodies, and that the client has left."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

from .base import Receive, Scope, Send, answer, body_of, chunk, events, notes, scenario, start


@scenario
async def cancelled_receive(scope: Scope, receive: Receive, send: Send) -> None:
    """A task that waits in receive() is cancelled, with and without a turn in between."""
    await body_of(receive)
    seen = []
    for turns in (0, 1, 2):
        task = asyncio.create_task(receive())  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)  # not-sync: lets the task run so far
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            seen.append("cancelled")
    await answer(send, seen)


@scenario
async def receive_times_out(scope: Scope, receive: Receive, send: Send) -> None:
    await body_of(receive)
    try:
        await asyncio.wait_for(receive(), 0.001)
    except asyncio.TimeoutError:
        await answer(send, "timeout")


@scenario
async def listeners_come_and_go(scope: Scope, receive: Receive, send: Send) -> None:
    """As of an application that asks again and again whether its client is still there."""
    await body_of(receive)
    staying = [asyncio.ensure_future(receive()) for _ in range(3)]

    def futures() -> int:
        gc.collect()
        return sum(isinstance(each, asyncio.Future) for each in gc.get_objects())

    async def listen(times: int) -> None:
        for _ in range(times):
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)  # not-sync: lets the task run
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    await listen(100)
    before = futures()
    await listen(10_000)
    notes["kept"] = futures() - before
    events["listened"].set()
    notes["heard"] = [(await each)["type"] for each in staying]
    events["heard"].set()


@scenario
async def await_disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    await body_of(receive)
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0)  # not-sync: lets the task run
    notes["done at once"] = waiting.done()
    events["waiting"].set()
    notes["message"] = dict(await waiting)
    notes["again"] = dict(await receive())
    events["disconnected"].set()


@scenario
async def receive_after_response(scope: Scope, receive: Receive, send: Send) -> None:
    waiting = asyncio.ensure_future(receive())
    await waiting
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0)  # not-sync: lets the task run
    await answer(send, "sent")
    notes["pending"] = dict(await waiting)
    notes["later"] = dict(await receive())
    events["received"].set()


@scenario
async def expects(scope: Scope, receive: Receive, send: Send) -> None:
    events["called"].set()
    await events["go"].wait()
    if scope["query_string"] == b"refuse":
        await answer(send, "not wanted", 403)
        return
    body = await body_of(receive)
    await answer(send, f"{len(body)} bytes")


@scenario
async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """Counts the body's bytes and messages, when told to begin."""
    if scope["query_string"] == b"wait":
        events["called"].set()
        await events["go"].wait()
    total = messages = largest = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            notes["left"] = total
            events["left"].set()
            return
        messages += 1
        total += len(message["body"])
        largest = max(largest, len(message["body"]))
        notes["total"] = total
        events["some"].set()
        if not message["more_body"]:
            break
    await answer(send, {"total": total, "messages": messages, "largest": largest})


@scenario
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await body_of(receive)
    await start(send, 200, (b"content-length", str(len(body)).encode()))
    await chunk(send, body, more=False)
