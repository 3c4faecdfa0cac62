"""Applications that do what no framework would, one for each path."""

from __future__ import annotations

import os

from . import failing, messages, receiving, responding, tasks  # noqa: F401 - each enters its own
from .base import Receive, Scope, Send, answer, events, notes, scenario, scenarios


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Finds the scenario for a request."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    found = scenarios.get(scope["path"])
    if found is None:
        found = show_scope if scope["path"].startswith("/scope") else not_found
    await found(scope, receive, send)


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["number"] = 1
    scope["state"]["list"] = []
    tasks.variable.set("of the lifespan, which no request is to see")
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, f"no scenario {scope['path']}", 404)


@scenario
async def forget(scope: Scope, receive: Receive, send: Send) -> None:
    events.clear()
    notes.clear()
    await answer(send, "forgotten")


@scenario
async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, "Hello, World!")


@scenario
async def pid(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, os.getpid())


@scenario
async def release(scope: Scope, receive: Receive, send: Send) -> None:
    """Sets the event that the query names."""
    events[scope["query_string"].decode()].set()
    await answer(send, "released")


@scenario
async def await_event(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers once the event that the query names is set."""
    await events[scope["query_string"].decode()].wait()
    await answer(send, notes)


async def show_scope(scope: Scope, receive: Receive, send: Send) -> None:
    shown = {key: repr(value) for key, value in scope.items()}
    await answer(send, shown)


@scenario
async def state(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what state and scope it found, and changes both."""
    found = {"state": repr(scope["state"]), "mine": scope.get("mine", "no")}
    scope["mine"] = "yes"
    scope["state"]["number"] += 1
    scope["state"]["new"] = True
    scope["state"]["list"].append(1)
    scope["headers"].append((b"added", b"by the application"))
    found["headers"] = len(scope["headers"])
    await answer(send, found)
