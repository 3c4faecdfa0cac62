"""Workers that end though nobody has stopped the server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PATIENCE, Server

APP = """
import asyncio, os, sys, threading

early = set()

async def answer(send, text):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})

async def leave():
    sys.exit(9)

async def cancel_all():
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)  # not-sync: where a cancel comes in

async def cancel_and_wait_for_others():
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait(others)

def outlive():
    threading.main_thread().join()
    print("outlived", flush=True)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        early.update(asyncio.all_tasks())
        while (await receive())["type"] != "lifespan.shutdown":
            if "AT_START" in os.environ:
                await cancel_all()
            await send({"type": "lifespan.startup.complete"})
        if "AT_END" in os.environ:
            await cancel_and_wait_for_others()
        print("shut down", flush=True)
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["path"] == "/cancel":
        await cancel_all()
    if scope["path"] == "/cancel-beside-a-thread":
        threading.Thread(target=outlive).start()
        await cancel_all()
    if scope["path"] == "/cancel-and-wait":
        await cancel_and_wait_for_others()
    if scope["path"] == "/hold":
        print(f"held by {os.getpid()}\\n", end="", flush=True)
        while not os.path.exists(os.environ["GO"]):
            await asyncio.sleep(0.01)  # not-sync: looks for the file again
        if b"cancel" in scope["query_string"]:
            known = early if scope["query_string"] == b"cancel-new" else set()
            for task in asyncio.all_tasks() - {asyncio.current_task()} - known:
                task.cancel()
            await asyncio.sleep(0.1)  # not-sync: what was cancelled has its turn
    if scope["path"] == "/quit":
        await asyncio.create_task(leave())
    await answer(send, str(os.getpid()))
"""


@pytest.fixture
def run(start: Callable[..., Server], tmp_path: Path, go: Path) -> Callable[..., Server]:
    (tmp_path / "main.py").write_text(APP)
    return lambda *arguments: start("main:app", *arguments, app_dir=tmp_path).listening()


def ask_until(server: Server, wanted: Callable[[str], bool]) -> None:
    """Asks who answers until it is the right one. Each gets an answer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        response = server.ask("/pid")
        assert response.status == 200
        if wanted(response.text):
            return
        assert time.monotonic() < deadline, f"{response.text} goes on answering"


def test_a_worker_that_is_told_to_end_gets_no_more_requests(
    run: Callable[..., Server], go: Path
) -> None:
    server = run("--workers", "2")
    with server.connect() as one, server.connect() as two, server.connect() as three:
        for connection in (one, two, three):
            connection.request("/hold")
        said = server.until_said("held by", 3)
        holders = [words.split()[0] for words in said.split("held by ")[1:]]
        # The one with less to do, which would be asked again and again.
        less = server.ask("/pid").text
        os.kill(int(less), signal.SIGTERM)
        for _ in range(10):
            ask_until(server, lambda answer: answer != less)
        go.touch()
        answers = [connection.response() for connection in (one, two, three)]
    assert sorted(answer.text for answer in answers) == sorted(holders)
    server.until_said(f"(pid {less}) has left; another starts")
    assert "warning" not in server.said


def test_an_exit_in_a_task_ends_its_worker_but_no_request_of_others(
    run: Callable[..., Server], go: Path
) -> None:
    server = run()
    with server.connect() as connection:
        connection.request("/hold")
        said = server.until_said("held by")
        worker = said.split("held by ")[1].split()[0]
        assert server.ask("/quit").status == 500
        server.until_said("SystemExit was raised in a task of the application")
        go.touch()
        assert connection.response().text == worker
    server.until_said(f"(pid {worker}) exited with code 9; another starts")
    ask_until(server, lambda answer: answer != worker)


CANCELLED = "ERROR the application cancelled all tasks, that of its worker too"


@pytest.mark.parametrize(("path", "status"), [("/cancel", 500), ("/cancel-and-wait", 503)])
def test_whoever_cancels_all_tasks_ends_its_worker(
    run: Callable[..., Server], path: str, status: int
) -> None:
    """Even if it waits for its worker, which waits for it."""
    server = run()
    worker = server.ask("/pid").text
    with server.connect() as connection:
        connection.request(path)
        server.until_said(f"[{worker}] {CANCELLED}")
        assert connection.response().status == status
    server.until_said(f"(pid {worker}) exited with code 1; another starts")
    ask_until(server, lambda answer: answer != worker)
    assert server.stop() == 0
    said = server.said
    assert said.count(CANCELLED) == 1, said
    assert "Traceback" not in said
    assert said.count("shut down") == 1, said


@pytest.mark.parametrize(("query", "lines"), [("cancel", 1), ("cancel-new", 0)])
def test_whoever_cancels_tasks_while_their_worker_waits_for_it_is_answered(
    run: Callable[..., Server], go: Path, query: str, lines: int
) -> None:
    server = run("--workers", "2")
    with server.connect() as connection:
        connection.request(f"/hold?{query}")
        worker = server.until_said("held by").split("held by ")[1].split()[0]
        os.kill(int(worker), signal.SIGTERM)
        for _ in range(10):
            ask_until(server, lambda answer: answer != worker)
        go.touch()
        response = connection.response()
        assert (response.status, response.text) == (200, worker), server.said
    server.until_said(f"(pid {worker}) has left; another starts")
    assert server.said.count(CANCELLED) == lines, server.said


def test_a_thread_ends_what_it_does_though_all_tasks_were_cancelled(
    run: Callable[..., Server],
) -> None:
    """The server is there, to end it if need be."""
    server = run()
    assert server.ask("/cancel-beside-a-thread").status == 500
    server.until_said("exited with code 1; another starts")
    assert "outlived" in server.said, server.said


@pytest.mark.parametrize(("when", "code"), [("AT_START", 3), ("AT_END", 0)])
def test_an_application_that_cancels_all_tasks_before_or_after_it_serves(
    start: Callable[..., Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    code: int,
) -> None:
    (tmp_path / "main.py").write_text(APP)
    monkeypatch.setenv(when, "1")
    server = start("main:app", app_dir=tmp_path)
    if when == "AT_END":
        assert server.listening().ask("/pid").status == 200
        server.signal()
    assert server.wait() == code, server.said
    assert CANCELLED in server.said, server.said
    assert "Traceback" not in server.said
