"""Applications that raise, or return too early."""

from __future__ import annotations

import asyncio

from .base import Receive, Scope, Send, answer, chunk, events, scenario, start


@scenario
async def raises_before(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("before the head")


@scenario
async def raises_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, (b"x-never", b"seen"))
    raise ValueError("after the start message")


@scenario
async def raises_midway(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await chunk(send, b"part")
    raise ValueError("in the middle")


@scenario
async def raises_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, "complete")
    raise ValueError("after the end")


@scenario
async def returns_early(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["query_string"] == b"started":
        await start(send)
    if scope["query_string"] == b"midway":
        await start(send)
        await chunk(send, b"part")


@scenario
async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await events["never"].wait()
