"""What Starlette, and with it FastAPI, makes of clients that leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server

APP = """
import asyncio, os

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

def say(*words):
    print(*words, flush=True)

async def gone(request):
    say("begun")
    while not await request.is_disconnected():
        await asyncio.sleep(0.001)  # not-sync: looks again

async def waiting(request):
    async def events():
        try:
            yield "data: 1"
            await asyncio.Event().wait()
        finally:
            say("the stream has ended")
    return StreamingResponse(events())

async def endless(request):
    async def numbers():
        try:
            while True:
                yield "number"
                await asyncio.sleep(0)  # not-sync: another turn
        finally:
            say("the stream has ended")
    # Cancelled from outside the generator, which the garbage collector closes.
    return StreamingResponse(numbers(), background=BackgroundTask(say, "the stream has ended"))

async def group(request):
    await gone(request)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request._send, {"type": "http.response.start", "status": 200})
        part = {"type": "http.response.body", "body": b"part", "more_body": True}
        tasks.start_soon(request._send, part)
    say("nothing was raised")

async def whole(request):
    await gone(request)
    return PlainTextResponse("whole", background=BackgroundTask(say, "background work done"))

async def broken(request):
    await gone(request)
    try:
        raise ConnectionError("the database")
    except ConnectionError:
        raise ValueError("a mistake")

class Older:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        # As of servers that announce a later specification.
        scope["asgi"] = {**scope["asgi"], "spec_version": "2.5"}
        await self.app(scope, receive, send)

class Middleware(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)

functions = [waiting, endless, group, whole, broken]
app = Starlette(routes=[Route("/" + function.__name__, function) for function in functions])
if os.environ["WRAPPED"] == "later":
    app = Older(app)
elif os.environ["WRAPPED"] == "middleware":
    app.add_middleware(Middleware)
"""


@pytest.fixture
def run(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Server]:
    (tmp_path / "main.py").write_text(APP)

    def run(wrapped: str = "") -> Server:
        monkeypatch.setenv("WRAPPED", wrapped)
        return start("main:app", app_dir=tmp_path).listening()

    return run


@pytest.mark.parametrize(
    ("wrapped", "target"),
    [
        ("", "/waiting"),
        ("middleware", "/waiting"),
        ("", "/endless"),
        ("middleware", "/endless"),
        ("later", "/endless"),
    ],
)
def test_a_stream_ends_with_its_client(
    run: Callable[[str], Server], wrapped: str, target: str
) -> None:
    server = run(wrapped)
    with server.connect() as connection:
        connection.request(target)
        connection.until(b"data: 1" if target == "/waiting" else b"number")
    server.until_said("the stream has ended")
    assert server.stop() == 0
    assert "Exception" not in server.said


def test_a_group_of_disconnects_is_no_error(run: Callable[..., Server]) -> None:
    server = run()
    with server.connect() as connection:
        connection.request("/group")
        server.until_said("begun")
    assert server.stop() == 0
    assert "nothing was raised" not in server.said
    assert "Exception" not in server.said


def test_background_work_is_done_though_the_client_has_left(run: Callable[..., Server]) -> None:
    server = run()
    with server.connect() as connection:
        connection.request("/whole")
        server.until_said("begun")
    server.until_said("background work done")
    assert server.stop() == 0
    assert "Exception" not in server.said


def test_other_mistakes_are_told_of_though_the_client_has_left(run: Callable[..., Server]) -> None:
    server = run()
    with server.connect() as connection:
        connection.request("/broken")
        server.until_said("begun")
    server.until_said("ValueError: a mistake")
