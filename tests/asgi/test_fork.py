"""Applications that fork."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server, wait_for_exit

APP = """
import json, os, sys, time, warnings

def fork():
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        # A child that forks in turn, as daemons do.
        second = os.fork()
        if second:
            os.waitpid(second, 0)
        os._exit(len(os.listdir("/proc/self/task")))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def app(scope, receive, send):
    assert scope["type"] == "http"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        codes = [fork() for _ in range(20)]
    said = {
        "codes": codes,
        "caught": [str(warning.message) for warning in caught],
        "threads": len(os.listdir("/proc/self/task")),
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/block":
        print("blocked", os.getpid(), flush=True)
        time.sleep(600)  # not-sync: the handler blocks its worker on purpose
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})
"""


@pytest.fixture
def forking(start: Callable[..., Server], tmp_path: Path) -> Server:
    (tmp_path / "main.py").write_text(APP)
    return start("main:app", app_dir=tmp_path).listening()


def test_a_fork_finds_no_other_thread(forking: Server) -> None:
    """Python 3.12 and later warn of a fork while there are others, as it may hang the child."""
    said = json.loads(forking.ask("/").text)
    assert said["caught"] == []
    # The child has the one thread that it was forked with; its worker's watch is not for it.
    assert said["codes"] == [1] * 20
    assert said["threads"] == 2


def test_a_worker_that_has_forked_is_still_watched(forking: Server) -> None:
    with forking.connect() as connection:
        connection.request("/block")
        said = forking.until_said("blocked")
        worker = int(said.split("blocked ")[1].split()[0])
        forking.signal(signal.SIGKILL)
        wait_for_exit(worker)
    forking.wait()
    assert f"process {worker} was still busy" in forking.said


CHILDREN = """
import asyncio, multiprocessing, os, signal, subprocess, sys, time

async def answer(send, value):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(value).encode()})

def wait(ready):
    ready.set()
    time.sleep(600)  # not-sync: until a signal ends it

def end(method, number):
    context = multiprocessing.get_context(method)
    ready = context.Event()
    child = context.Process(target=wait, args=(ready,))
    child.start()
    if number != signal.SIGTERM:
        # Python ignores SIGINT itself while it starts.
        ready.wait()
    os.kill(child.pid, number)
    child.join(30)
    code = child.exitcode
    child.kill()
    return code

PROGRAM = "import time; print('up', flush=True); time.sleep(600)"  # not-sync: until a signal ends it

def interrupt_program():
    command = [sys.executable, "-c", PROGRAM]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        try:
            return child.wait(30)
        finally:
            child.kill()

def fork():
    pid = os.fork()
    if pid == 0:
        return None
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def app(scope, receive, send):
    assert scope["type"] == "http"
    name = scope["path"][1:]
    if name == "pid":
        return await answer(send, os.getpid())
    if name == "interrupt-program":
        return await answer(send, interrupt_program())
    if name.startswith("end-"):
        _, method, number = name.split("-")
        return await answer(send, end(method, signal.Signals[number]))
    if name == "in-thread":
        return await answer(send, await asyncio.to_thread(end, "fork", signal.SIGTERM))
    if name == "exit-in-task":
        return await answer(send, await asyncio.create_task(fork_in_task()))
    code = fork()
    if code is not None:
        return await answer(send, code)
    if name == "exit":
        sys.exit(7)
    if name == "raise":
        raise ValueError("in the child")
    if name == "send":
        await answer(send, "not the worker")
    if name == "receive":
        await receive()
    if name == "wait":
        await asyncio.sleep(0)  # not-sync: goes back to the loop

async def fork_in_task():
    return fork() or sys.exit(7)
"""


@pytest.fixture
def parent(start: Callable[..., Server], tmp_path: Path) -> Server:
    (tmp_path / "main.py").write_text(CHILDREN)
    return start("main:app", app_dir=tmp_path).listening()


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/end-fork-SIGTERM", -signal.SIGTERM),
        ("/end-spawn-SIGTERM", -signal.SIGTERM),
        ("/in-thread", -signal.SIGTERM),
        ("/end-fork-SIGINT", 1),
        ("/interrupt-program", -signal.SIGINT),
    ],
)
def test_signals_to_children_are_not_the_workers(parent: Server, target: str, code: int) -> None:
    worker = parent.ask("/pid").text
    assert parent.ask(target).text == str(code)
    assert parent.ask("/pid").text == worker


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("/exit", 7, ""),
        ("/exit-in-task", 7, ""),
        ("/raise", 1, "ValueError: in the child"),
        ("/return", 1, "let it end by os._exit()"),
        ("/send", 1, "let it end by os._exit()"),
        ("/receive", 1, "let it end by os._exit()"),
        ("/wait", 1, "let it end by os._exit()"),
    ],
)
def test_a_child_that_comes_back_ends(parent: Server, target: str, code: int, words: str) -> None:
    worker = parent.ask("/pid").text
    assert parent.ask(target).text == str(code)
    assert parent.ask("/pid").text == worker
    parent.until_said(words)
    assert "Segmentation" not in parent.said
