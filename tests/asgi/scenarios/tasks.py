"""Tasks, contexts and timeouts, as asyncio and anyio know them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import weakref
from collections.abc import Collection
from typing import Any

from .base import Receive, Scope, Send, answer, chunk, events, scenario, start

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


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
async def set_of_all_tasks(scope: Scope, receive: Receive, send: Send) -> None:
    """What can be done with the set itself, in the first step of a task."""
    tasks = asyncio.tasks._all_tasks
    task = asyncio.current_task()
    assert task is not None
    match scope["query_string"].decode():
        case "copy":
            found = task in tasks.copy()
        case "difference":
            found = task in tasks - weakref.WeakSet() and task not in tasks - {task}
        case "discard":
            asyncio._unregister_task(task)
            found = task not in asyncio.all_tasks()
            asyncio._register_task(task)
        case "repr":
            found = hex(id(task)) in repr(tasks)
        case "subset":
            found = weakref.WeakSet([task]).issubset(tasks) and tasks.issuperset([task])
        case _:
            found = tasks | {task} == tasks
    await answer(send, found)


@scenario
async def nested(scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the loop within the first step of a task, as some make it do, until another has begun."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    events["nested-begun"].set()
    asyncio._leave_task(loop, task)
    while not events["nested-done"].is_set():
        loop._run_once()  # type: ignore[attr-defined]
    asyncio._enter_task(loop, task)
    await answer(send, task in asyncio.all_tasks())


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


born: list[asyncio.Task[Any]] = []


@scenario
async def disturb_by_a_task(scope: Scope, receive: Receive, send: Send) -> None:
    """Has another task made while that of the next request is made, as a finalizer might."""
    loop = asyncio.get_running_loop()

    def get_debug() -> bool:
        del loop.get_debug  # type: ignore[attr-defined]
        born.append(loop.create_task(events["never"].wait()))
        return loop.get_debug()

    loop.get_debug = get_debug  # type: ignore[method-assign]
    await answer(send, "disturbed")


@scenario
async def born_is_known(scope: Scope, receive: Receive, send: Send) -> None:
    known = asyncio.all_tasks()
    await answer(send, [len(born), born[0] in known, asyncio.current_task() in known])
    born.pop().cancel()


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
