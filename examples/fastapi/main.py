"""An ordinary FastAPI application; nothing in it knows about toolB.

Run it with `toolb run main:app`, or with any other ASGI server.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, File, Form, HTTPException, Query, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send


class Worker:
    """What one worker process knows about itself."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.requests = 0


class CountRequests:
    """Counts the requests that reach the application."""

    def __init__(self, app: ASGIApp, worker: Worker) -> None:
        self._app = app
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._worker.requests += 1
        await self._app(scope, receive, send)


class Item(BaseModel):
    """Something to buy."""

    name: str = Field(min_length=1, max_length=100)
    price: float = Field(gt=0)
    tags: list[str] = []


class Order(BaseModel):
    """What the order route answers."""

    name: str
    quantity: int
    total: float


worker = Worker()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Runs once per worker process, around everything it serves."""
    worker.started = time.monotonic()
    yield


app = FastAPI(title="toolB example", lifespan=lifespan)
app.add_middleware(CountRequests, worker=worker)


@app.get("/")
async def greet() -> dict[str, str]:
    """Greets."""
    return {"message": "Hello from FastAPI on toolB"}


@app.get("/api/users")
async def users(
    user_id: Annotated[int | None, Query(alias="id")] = None, role: str | None = None
) -> dict[str, int | str | None]:
    """Gives back the query parameters."""
    return {"id": user_id, "role": role}


@app.post("/api/data")
async def data(body: Annotated[Any, Body()]) -> dict[str, Any]:
    """Gives back the JSON it was sent."""
    return {"received": body}


@app.get("/api/status")
async def status() -> dict[str, float | int]:
    """Tells about the worker that happens to answer."""
    return {
        "worker": os.getpid(),
        "uptime_seconds": round(time.monotonic() - worker.started, 3),
        "requests": worker.requests,
    }


@app.post("/api/orders", status_code=201)
async def order(item: Item, quantity: Annotated[int, Query(ge=1, le=1000)] = 1) -> Order:
    """Checks its input against a pydantic model: a bad one is answered with 422."""
    return Order(name=item.name, quantity=quantity, total=round(item.price * quantity, 2))


@app.post("/api/upload")
async def upload(
    file: Annotated[UploadFile, File()], note: Annotated[str, Form()] = ""
) -> dict[str, str | int | None]:
    """Takes a multipart upload and reads it piece by piece."""
    digest, size = hashlib.sha256(), 0
    while piece := await file.read(64 * 1024):
        digest.update(piece)
        size += len(piece)
    return {"filename": file.filename, "size": size, "sha256": digest.hexdigest(), "note": note}


@app.get("/api/stream")
async def stream(lines: Annotated[int, Query(ge=1, le=1_000_000)] = 5) -> StreamingResponse:
    """Sends its answer line by line, without knowing its length beforehand."""

    async def numbered() -> AsyncIterator[str]:
        for number in range(lines):
            yield f"line {number}\n"

    return StreamingResponse(numbered(), media_type="text/plain")


@app.get("/api/events")
async def events(
    count: Annotated[int, Query(ge=1, le=1000)] = 5,
    interval: Annotated[float, Query(ge=0, le=60)] = 1.0,
) -> StreamingResponse:
    """Sends server-sent events, one per interval."""

    async def ticks() -> AsyncIterator[str]:
        for number in range(count):
            if number:
                await asyncio.sleep(interval)
            yield f"id: {number}\nevent: tick\ndata: tick {number}\n\n"

    return StreamingResponse(
        ticks(), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@app.get("/api/slow")
async def slow(seconds: Annotated[float, Query(ge=0, le=60)] = 1.0) -> dict[str, float]:
    """Answers late; the worker serves others meanwhile."""
    await asyncio.sleep(seconds)
    return {"waited": seconds}


@app.get("/api/missing")
async def missing() -> None:
    """Fails the way applications do."""
    raise HTTPException(status_code=404, detail="there is nothing here")
