"""Start and end of applications and workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server, wait_for_exit

PREAMBLE = """
import asyncio, os, signal, sys

def say(*words):
    print(*words, flush=True)

async def answer(send, text):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})

async def told_to_go():
    while not os.path.exists(os.environ["GO"]):
        await asyncio.sleep(0.01)  # not-sync: looks for the file again

async def live(receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    say("shutting down")
    await send({"type": "lifespan.shutdown.complete"})
"""

Starter = Callable[..., Server]


@pytest.fixture
def run(start: Starter, tmp_path: Path) -> Starter:
    """Runs an application given as source."""

    def run(source: str, *arguments: str, target: str = "main:app") -> Server:
        (tmp_path / "main.py").write_text(PREAMBLE + source)
        return start(target, *arguments, app_dir=tmp_path)

    return run


COMPLETE = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        say("lifespan of", id(asyncio.get_running_loop()) == id(asyncio.get_event_loop()))
        assert (await receive())["type"] == "lifespan.startup"
        say("starting up")
        scope["state"]["ready"] = True
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        say("shutting down")
        await send({"type": "lifespan.shutdown.complete"})
        say("shut down")
    else:
        await answer(send, repr(scope.get("state")))
"""


def test_startup_and_shutdown(run: Starter) -> None:
    server = run(COMPLETE).listening()
    assert server.ask("/").text == "{'ready': True}"
    assert server.stop() == 0
    assert server.said.count("starting up") == 1
    assert server.said.count("shut down") == 1


def test_off_starts_without(run: Starter) -> None:
    server = run(COMPLETE, "--lifespan", "off").listening()
    assert server.ask("/").text == "None"
    assert server.stop() == 0
    assert "starting up" not in server.said


UNSUPPORTED = """
async def app(scope, receive, send):
    assert scope["type"] == "http", "only http"
    await answer(send, repr(scope.get("state")))
"""


def test_auto_tells_of_a_start_up_that_fails(run: Starter) -> None:
    """Who takes the message and raises then is not without lifespan."""
    source = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        raise ValueError("no database")
    await answer(send, "hello")
"""
    server = run(source).listening()
    assert server.ask("/").text == "hello"
    assert server.stop() == 0
    assert "the application's start-up failed, and it is served without" in server.said
    assert "ValueError: no database" in server.said


def test_auto_goes_on_without_support(run: Starter) -> None:
    server = run(UNSUPPORTED).listening()
    assert server.ask("/").text == "None"
    assert server.stop() == 0
    assert "Traceback" not in server.said


def test_on_needs_support(run: Starter) -> None:
    server = run(UNSUPPORTED, "--lifespan", "on")
    assert server.wait() == 3
    assert "only http" in server.said
    assert "--lifespan auto" in server.said


FAILED = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})
"""


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_failed_startup_ends_the_server(run: Starter, mode: str) -> None:
    server = run(FAILED, "--lifespan", mode)
    assert server.wait() == 3
    assert server.said.count("the database is away") == 1


LENGTHY = """
import traceback

async def app(scope, receive, send):
    await receive()
    try:
        raise ValueError("the database is away\\nhost: db\\n" + "see to it " * 5000 + "soon")
    except ValueError:
        message = traceback.format_exc()
    await send({"type": "lifespan.startup.failed", "message": message})
"""


def test_a_failure_of_many_words_is_told_whole_above_one_line(run: Starter) -> None:
    server = run(LENGTHY)
    assert server.wait() == 3
    said = server.said
    last = (
        "the application's start-up failed: ValueError: the database is away; all of it is above\n"
    )
    assert said.endswith(last), said
    for part in ("Traceback (most recent", "host: db", "characters are left out", "see to it soon"):
        assert part in said
    assert len(said) < 20_000


STOPPED_MEANWHILE = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    say("in the middle")
    await told_to_go()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shut down all the same")
    await send({"type": "lifespan.shutdown.complete"})
"""


def test_shutdown_runs_if_the_end_comes_during_startup(run: Starter, go: Path) -> None:
    server = run(STOPPED_MEANWHILE)
    server.until_said("in the middle")
    server.signal(signal.SIGTERM)
    server.until_said("SIGTERM")
    go.touch()
    server.wait()
    assert "shut down all the same" in server.said


IN_FLIGHT = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await live(receive, send)
    await answer(send, "sent")
    say("working on")
    await told_to_go()
    say("background work done")
"""


def test_background_work_is_finished_before_the_shutdown(run: Starter, go: Path) -> None:
    server = run(IN_FLIGHT).listening()
    assert server.ask("/").text == "sent"
    server.until_said("working on")
    server.signal(signal.SIGTERM)
    server.until_said("SIGTERM")
    go.touch()
    assert server.wait() == 0
    assert server.said.index("background work done") < server.said.index("shutting down")


ENDLESS = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await live(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: 1", "more_body": True})
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    say("told to end")
    await send({"type": "http.response.body", "body": b"goodbye"})
"""


def test_endless_streams_are_told_to_end(run: Starter) -> None:
    # Half of it is there to end in: no more is asked of the machine than that.
    server = run(ENDLESS, "--timeout-graceful-shutdown", "10s").listening()
    with server.connect() as connection:
        connection.request("/")
        connection.until(b"data: 1")
        server.signal(signal.SIGTERM)
        assert connection.rest().endswith(b"7\r\ngoodbye\r\n0\r\n\r\n")
        code = server.wait()
    assert code == 0
    assert server.said.index("told to end") < server.said.index("shutting down")


FACTORY = """
made = []

def factory(loop, coroutine, **options):
    made.append(coroutine)
    return asyncio.Task(coroutine, loop=loop, **options)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        asyncio.get_running_loop().set_task_factory(factory)
        return await live(receive, send)
    await answer(send, str(asyncio.current_task().get_coro() in made))
"""


def test_the_task_factory_of_the_application_is_used(run: Starter) -> None:
    server = run(FACTORY).listening()
    assert server.ask("/").text == "True"


PIDS = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, str(os.getpid()))
"""


def test_workers_end_when_the_engine_dies(run: Starter) -> None:
    server = run(PIDS).listening()
    worker = int(server.ask("/").text)
    server.signal(signal.SIGKILL)
    server.wait()
    wait_for_exit(worker)


WAITING = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await live(receive, send)
    if scope["path"] == "/pid":
        await answer(send, str(os.getpid()))
        return
    say("handler waits")
    await receive()
    message = await receive()
    open(os.environ["LEFT"], "w").write(message["type"])
"""


def test_handlers_hear_that_the_engine_died(
    run: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    monkeypatch.setenv("LEFT", str(left))
    server = run(WAITING).listening()
    worker = int(server.ask("/pid").text)
    with server.connect() as connection:
        connection.request("/wait")
        server.until_said("handler waits")
        server.signal(signal.SIGKILL)
        wait_for_exit(worker)
    assert left.read_text() == "http.disconnect"


THREADS = """
import threading

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/pid":
        await answer(send, str(os.getpid()))
    else:
        say("thread waits")
        await asyncio.to_thread(threading.Event().wait)
"""


def test_workers_end_even_if_a_thread_does_not(run: Starter) -> None:
    server = run(THREADS).listening()
    worker = int(server.ask("/pid").text)
    with server.connect() as connection:
        connection.request("/wait")
        server.until_said("thread waits")
        server.signal(signal.SIGKILL)
        wait_for_exit(worker)


STARTING = """
async def app(scope, receive, send):
    say("pid", os.getpid(), "starts")
    await asyncio.Event().wait()
"""


def test_workers_end_even_if_they_only_start(run: Starter) -> None:
    server = run(STARTING)
    said = server.until_said("starts")
    worker = int(said.split("pid ")[1].split()[0])
    server.signal(signal.SIGKILL)
    wait_for_exit(worker)


def test_ctrl_c_is_the_supervisors_business(run: Starter) -> None:
    server = run(PIDS).listening()
    worker = int(server.ask("/").text)
    # Ctrl-C reaches the worker too; it goes on until the supervisor says otherwise.
    os.kill(worker, signal.SIGINT)
    assert int(server.ask("/").text) == worker


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("", "main:app", ['no attribute "app"']),
        ("async def other(scope, receive, send): pass", "main:app", ["did you mean main:other?"]),
        ("", "nowhere:app", ['no module "nowhere"', "--app-dir"]),
        ("import not_installed_anywhere", "main:app", ["not_installed_anywhere", "not installed"]),
        ("1 / 0", "main:app", ["ZeroDivisionError: division by zero", "Traceback"]),
        ("def ):", "main:app", ["SyntaxError"]),
        ("app = 5", "main:app", ["int", "cannot be called"]),
        ("def app(): pass", "main:app", ["--factory"]),
        ("def app(environ, start_response): pass", "main:app", ["WSGI"]),
    ],
)
def test_an_application_that_does_not_load(
    run: Starter, source: str, target: str, words: list[str]
) -> None:
    server = run(source, target=target)
    assert server.wait() == 3
    for word in words:
        assert word in server.said


NAMESAKES = """
import colorsys, selectors

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, f"{hasattr(colorsys, 'OWN')} {hasattr(selectors, 'OWN')}")
"""


def test_files_may_have_names_of_the_standard_library(
    run: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the worker has imported already stays what it is, as under other servers."""
    for name in ("colorsys", "queue", "random", "selectors", "signal", "token"):
        (tmp_path / f"{name}.py").write_text("OWN = 1")
    monkeypatch.chdir(tmp_path)
    assert run(NAMESAKES).listening().ask("/").text == "True False"


def test_factory(run: Starter) -> None:
    server = run(PIDS + "\ndef make():\n    return app\n", "--factory", target="main:make")
    assert server.listening().ask("/").status == 200


DIES = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await told_to_go()
        raise ValueError("the background task has died")
    await answer(send, "served")
"""


def test_a_lifespan_that_dies_is_told_of(run: Starter, go: Path) -> None:
    server = run(DIES).listening()
    go.touch()
    server.until_said("ValueError: the background task has died")
    assert server.ask("/").text == "served"
    assert server.stop() == 0
    assert server.said.count("ValueError: the background task has died") == 1


FAILS_TO_STOP = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if "FAILED" in os.environ:
        # As frameworks do: with the traceback, and the exception as well.
        await send({"type": "lifespan.shutdown.failed", "message": "ValueError: not closed"})
    raise ValueError("not closed")
"""


@pytest.mark.parametrize("is_told", [False, True])
def test_a_failed_shutdown_is_told_of_once(
    run: Starter, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    if is_told:
        monkeypatch.setenv("FAILED", "1")
    server = run(FAILS_TO_STOP).listening()
    assert server.stop() == 0
    assert server.said.count("ValueError: not closed") == 1


SILENCING = """
import logging.config

logging.config.dictConfig({"version": 1})

async def app(scope, receive, send):
    assert scope["type"] == "http"
    raise ValueError("heard all the same")
"""


def test_an_application_that_configures_logging_does_not_silence_its_server(run: Starter) -> None:
    server = run(SILENCING).listening()
    assert server.ask("/").status == 500
    server.until_said("ValueError: heard all the same")


LEFT_BEHIND = """
async def work():
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("not cleaned up")

async def numbers():
    try:
        yield 1
    finally:
        await asyncio.sleep(0)  # not-sync: another turn
        say("generator closed")

async def app(scope, receive, send):
    global task, generator
    if scope["type"] == "lifespan":
        return await live(receive, send)
    task = asyncio.create_task(work())
    generator = numbers()
    await generator.__anext__()
    await answer(send, "begun")
"""


def test_what_an_application_leaves_behind_is_ended_as_asyncio_does(run: Starter) -> None:
    server = run(LEFT_BEHIND).listening()
    assert server.ask("/").text == "begun"
    assert server.stop() == 0
    assert "ValueError: not cleaned up" in server.said
    assert server.said.index("shutting down") < server.said.index("generator closed")
