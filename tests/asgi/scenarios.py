"""Applications that do what no framework would, one for each path."""

from __future__ import annotations

import array
import asyncio
import contextvars
import gc
import http
import json
import mmap
import os
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
Scenario = Callable[[Scope, Receive, Send], Awaitable[None]]

scenarios: dict[str, Scenario] = {}
events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
notes: dict[str, Any] = {}
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def scenario(function: Scenario) -> Scenario:
    """Serves `function` at the path of its name."""
    scenarios["/" + function.__name__.replace("_", "-")] = function
    return function


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
    variable.set("of the lifespan, which no request is to see")
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


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


@scenario
async def context(scope: Scope, receive: Receive, send: Send) -> None:
    found = [variable.get()]
    variable.set(scope["query_string"].decode())
    await asyncio.sleep(0)  # not-sync: another step of this task
    found.append(variable.get())

    async def child() -> str:
        return variable.get()

    found.append(await asyncio.create_task(child()))
    await answer(send, found)


@scenario
async def tasks(scope: Scope, receive: Receive, send: Send) -> None:
    """What asyncio says about the task that runs a request, in its first step and later."""
    task = asyncio.current_task()
    assert task is not None
    first = [
        isinstance(task, asyncio.Task),
        task in asyncio.all_tasks(),
        task.get_loop() is asyncio.get_running_loop(),
    ]
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", None)
    shown = repr(task)
    await asyncio.sleep(0)  # not-sync: another step of this task
    same = asyncio.current_task() is task and task in asyncio.all_tasks()
    depth = len(task.get_stack())
    await answer(send, {"first": first, "name": name, "same": same, "repr": shown, "stack": depth})


@scenario
async def all_tasks(scope: Scope, receive: Receive, send: Send) -> None:
    """The set of all tasks while tasks come and go, and while somebody goes through it."""

    def known() -> Collection[Any]:
        # Before Python 3.12 the set itself, which is entered natively and must not keep who has gone.
        return asyncio.all_tasks() if sys.version_info >= (3, 12) else asyncio.tasks._all_tasks

    before = len(known())
    slow = asyncio.create_task(events["never"].wait())
    quick = [asyncio.create_task(asyncio.sleep(0)) for _ in range(50)]  # not-sync: a step each
    counts = [len(known()) - before, len({slow, *quick} & asyncio.all_tasks())]
    await asyncio.wait(quick)
    everybody = iter(known())
    next(everybody)
    quick.clear()
    for _ in everybody:
        pass
    del _
    counts.append(len(known()) - before)
    slow.cancel()
    await asyncio.wait([slow])
    del slow
    counts.append(len(known()) - before)
    await answer(send, counts)


@scenario
async def timeouts(scope: Scope, receive: Receive, send: Send) -> None:
    seen = []
    for wait in (0.0, 0.001):
        try:
            await asyncio.wait_for(events["never"].wait(), wait)
        except asyncio.TimeoutError:
            seen.append("wait_for")
    if sys.version_info >= (3, 11):
        try:
            async with asyncio.timeout(0.001):
                await events["never"].wait()
        except TimeoutError:
            seen.append("timeout")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(events["never"].wait())
                raise KeyError("stop")
        except BaseExceptionGroup:  # noqa: F821 - of Python 3.11
            seen.append("group")
    else:
        seen += ["timeout", "group"]
    await answer(send, seen)


@scenario
async def disturb(scope: Scope, receive: Receive, send: Send) -> None:
    """Has something else scheduled while the task of the next request is made."""
    loop = asyncio.get_running_loop()

    def get_debug() -> bool:
        del loop.get_debug  # type: ignore[attr-defined]
        loop.call_soon(events["disturbed"].set)
        return loop.get_debug()

    loop.get_debug = get_debug  # type: ignore[method-assign]
    await answer(send, "disturbed")


@scenario
async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await events["never"].wait()


@scenario
async def anyio_task_group(scope: Scope, receive: Receive, send: Send) -> None:
    import anyio

    seen: list[str] = []

    async def listen() -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except anyio.get_cancelled_exc_class():
            seen.append("listener cancelled")
            raise

    with anyio.move_on_after(0.001) as timed:
        await anyio.sleep_forever()
    seen.append(f"timed out: {timed.cancelled_caught}")
    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.lowlevel.checkpoint()
        value = await anyio.to_thread.run_sync(lambda: "from a thread")
        seen.append(value)
        group.cancel_scope.cancel()
    await answer(send, seen)


@scenario
async def send_from_child(scope: Scope, receive: Receive, send: Send) -> None:
    """Streams from a task of its own, as middleware does."""

    async def child() -> None:
        await start(send)
        await chunk(send, b"one ")
        await asyncio.sleep(0)  # not-sync: another step of this task
        await chunk(send, b"two ")
        await chunk(send, b"three", more=False)

    await asyncio.create_task(child())


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


async def needs_four(scope: Scope, receive: Receive, send: Send, extra: object) -> None:
    """No application."""
