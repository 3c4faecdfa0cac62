"""`toolb serve` and `toolb work`: an engine and its workers as programs of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import pytest

from .harness import HERE, alive, children, descriptors, wait_until
from .http1 import CutError, request
from .stage import Stage


def test_workers_come_go_and_are_replaced(stage: Stage) -> None:
    serve = stage.serve()
    first, second = stage.work(), stage.work("-w", "2")
    serve.says("requests go to 3 consumers now")
    workers = {p.pid for w in (first, second) for p in children(w.process.pid)}
    assert len(workers) == 3
    for _ in range(20):
        assert stage.pid() in workers
    (victim,) = (p.pid for p in children(first.process.pid))
    os.kill(victim, signal.SIGKILL)
    serve.says(f"(pid {victim}) is gone")
    first.says("another starts in 100 ms")
    serve.says("requests go to 3 consumers now", times=2)
    # One `toolb work` ends, the other one serves on.
    first.stop()
    rest = {p.pid for p in children(second.process.pid)}
    for _ in range(20):
        assert stage.pid() in rest
    second.stop()
    serve.stop()
    assert stage.left() == []


def test_a_dead_workers_requests_are_settled(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work()
    victim = stage.kill_at_work(work)
    assert stage.pid() != victim
    work.stop()
    serve.stop()


@pytest.mark.parametrize("engine", ["there", "gone"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_that_stands_still_is_replaced(stage: Stage, loop: str, engine: str) -> None:
    """By those who have started it: the engine can do no more than give it up."""
    serve = stage.serve("--timeout-response", "0")
    work = stage.work("--loop", loop, "--timeout-worker-healthcheck", "1s")
    victim = stage.pid()
    with stage.connect() as begun:
        begun.send(request("/block?ms=600000", headers={"X-Id": "stuck"}))
        stage.awaits("BEGIN stuck")
        if engine == "gone":
            serve.kill()
        work.says(f"worker 1 (pid {victim}) has stood still for 1 s with work to do and is ended")
        work.says("was ended, as it stood still; another starts in 100 ms")
        if engine == "there":
            assert begun.receive().status == 502
    said = work.said()
    hung = said.index("Fatal Python error: Aborted")
    assert said.index("has stood still") < hung < said.index("was ended, as it stood still")
    assert 'app.py", line' in said[hung:], said
    if engine == "gone":
        serve = stage.serve()
    assert stage.pid() != victim
    work.stop()
    serve.stop()


def test_workers_that_wait_answer_those_who_ask(stage: Stage) -> None:
    """Asleep, without an engine, and with a request that takes its time."""
    # Longer than the machine lets a worker wait for its turn.
    work = stage.work("--timeout-worker-healthcheck", "3s")
    # not-sync: longer than a worker may stand still
    time.sleep(3.5)
    serve = stage.serve()
    first = stage.pid()
    with stage.connect() as connection:
        connection.send(request("/sleep?ms=4000", headers={"X-Id": "sleeps"}))
        assert connection.receive().status == 200
    assert stage.pid() == first, work.said()
    work.stop()
    serve.stop()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_workers_outlive_the_engine(stage: Stage, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    work = stage.work("-w", "2", "--loop", loop)
    work.says("2 workers ready for an engine at")
    work.says(f"no engine at {stage.bus}: 2 workers looking for one (there is no bus at")
    work.says("is `toolb serve` running?")
    workers = {p.pid for p in children(work.process.pid)}
    held: dict[int, int] = {}
    for turn in range(3):
        serve = stage.serve()
        serve.says("requests go to 2 consumers now")
        work.says(f"2 workers attached to the engine at {stage.bus}", times=turn + 1)
        for _ in range(8):
            assert stage.pid() in workers

        def open_files() -> dict[int, int]:
            return {pid: len(descriptors(pid)) for pid in workers}

        # Nothing of the engines before is kept.
        if turn == 2:
            wait_until(
                f"no more are open than {held}",
                lambda held=held: all(count <= held[pid] for pid, count in open_files().items()),
            )
        held = open_files()
        with stage.connect() as connection:
            connection.send(request("/sse", headers={"X-Id": f"sse{turn}"}))
            while b"hello" not in connection.socket.recv(1000):
                pass
            serve.kill()
            with pytest.raises((CutError, ConnectionError, AssertionError)):
                connection.receive()
        # The application is told that its client has gone with the engine.
        stage.awaits(f"GONE sse{turn}")
        work.says("2 workers looking for one (", times=turn + 2)
        assert stage.left() == ["b", "b.lock"]
    serve = stage.serve()
    serve.says("requests go to 2 consumers now")
    assert {p.pid for p in children(work.process.pid)} == workers, work.said()
    # Their application was loaded once, and is shut down once.
    serve.stop()
    work.stop()
    events = stage.events().split()
    assert (events.count("STARTUP"), events.count("SHUTDOWN")) == (2, 2)


def test_work_for_a_path_without_a_folder_says_so_and_waits(stage: Stage) -> None:
    stage.bus = stage.directory / "later" / "b"
    work = stage.work()
    line = work.says("1 worker looking for one")
    assert f"(there is no bus at {stage.bus}, nor a folder {stage.bus.parent}, and" in line
    stage.bus.parent.mkdir()
    serve = stage.serve()
    work.says("1 worker attached to the engine")
    work.stop()
    serve.stop()


@pytest.mark.parametrize("engine", ["there", "gone"])
def test_a_worker_that_is_told_to_end_finishes_and_is_replaced(stage: Stage, engine: str) -> None:
    """By an operator, who is told that this is what has become of it."""
    serve = stage.serve()
    work = stage.work("--timeout-graceful-shutdown", "120")
    worker = stage.pid()
    if engine == "gone":
        serve.stop()
        work.says("1 worker looking for one")
        os.kill(worker, signal.SIGTERM)
    else:
        with stage.connect() as connection:
            connection.send(request("/sleep?ms=500", headers={"X-Id": "last"}))
            stage.awaits("BEGIN last")
            os.kill(worker, signal.SIGTERM)
            assert connection.receive().status == 200
    line = work.says(f"worker 1 (pid {worker}) has left; another starts in 100 ms")
    assert "toolb info: " in line
    if engine == "gone":
        serve = stage.serve()
    assert stage.pid() != worker
    assert "warning" not in work.said(), work.said()
    work.stop()
    serve.stop()


def test_a_worker_that_is_told_to_end_has_the_time_of_a_drain(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work("--timeout-graceful-shutdown", "1")
    worker = stage.pid()
    with stage.connect() as connection:
        connection.send(request("/sleep?ms=600000", headers={"X-Id": "long"}))
        stage.awaits("BEGIN long")
        os.kill(worker, signal.SIGTERM)
        work.says("requests that had not ended in time were cancelled: 1")
        answer = connection.receive()
        assert (answer.status, answer.body) == (503, b"the server is about to end\n")
    work.says(f"worker 1 (pid {worker}) has left")
    work.stop()
    serve.stop()


def test_handlers_that_do_not_end_with_the_engine_end_the_worker(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work()
    before = stage.pid()
    with stage.connect() as connection:
        connection.send(request("/block?ms=2000", headers={"X-Id": "stubborn"}))
        stage.awaits("BEGIN stubborn")
        serve.kill()
    again = stage.serve()
    # When it has ended, it is the same worker; else it is another one. Both serve.
    assert stage.pid() > 0
    assert before > 0
    work.stop()
    again.stop()


def test_requests_wait_for_workers_and_are_then_refused(stage: Stage) -> None:
    serve = stage.serve("--queue-timeout", "300ms")
    with stage.connect() as connection:
        answer = connection.ask("/pid")
        assert (answer.status, answer.get(b"retry-after") is not None) == (503, True)
    serve.stop()
    serve = stage.serve()
    with stage.connect() as connection:
        connection.send(request("/pid"))
        work = stage.work()
        assert connection.receive().status == 200
    work.stop()
    serve.stop()


def test_an_engine_that_nobody_serves_says_so(stage: Stage) -> None:
    serve = stage.serve()
    with stage.connect() as connection:
        connection.send(request("/pid"))
        line = serve.says("toolb warning: no consumer is attached")
        assert "1 request waits" in line
        assert f"toolb work MODULE:ATTR --bus {stage.bus}" in line
        work = stage.work()
        assert connection.receive().status == 200
    work.stop()
    serve.stop()


def test_a_bus_socket_that_is_removed_comes_back(stage: Stage) -> None:
    """Whoever is attached goes on; whoever comes then finds the engine."""
    serve = stage.serve()
    first = stage.work()
    before = stage.pid()
    stage.bus.unlink()
    line = serve.says("toolb warning: somebody removed or replaced the bus socket")
    assert line.endswith("and it is bound again; --bus can put it where nobody clears up")
    second = stage.work()
    serve.says("requests go to 2 consumers now")
    first.stop()
    assert stage.pid() != before
    # What is no socket is left where it is, and told of.
    mine = stage.directory / "mine"
    mine.write_text("mine")
    mine.replace(stage.bus)
    line = serve.says("nobody new can attach until it can be bound again")
    assert "something else than a socket; remove it, or choose another path" in line
    second.stop()
    serve.stop()
    assert stage.bus.read_text() == "mine"


def test_the_engine_tells_what_a_consumer_took_along(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work()
    victim = stage.kill_at_work(work)
    line = serve.says(f"python-{victim} (pid {victim}) is gone")
    assert "1 request was answered 502; requests wait for another consumer" in line
    work.stop()
    serve.stop()


def test_streams_beyond_the_limit_are_told_of(stage: Stage) -> None:
    # A stop waits for those that nobody serves, as they may read on.
    queue = ("--queue-timeout", "10s")
    serve = stage.serve("--stream-port", "0", "--limit-streams", "1", *queue)
    found = re.search(r"tcp://\S+:(\d+)", serve.says("serving on"))
    assert found
    address = (stage.address[0], int(found[1]))
    knock = partial(socket.create_connection, address, timeout=20.0)
    with knock():
        # Which may be before it knows that it is connected.
        with suppress(ConnectionResetError), knock() as other:
            assert other.recv(1) == b""
        line = serve.says("toolb warning: a stream was refused, as 1 is open")
        assert "limit-streams" in line
    serve.stop()


def test_a_stop_does_not_wait_for_consumers_that_cannot_come_any_more(stage: Stage) -> None:
    """Of two clients one has left, which looks like the end of what it sends, and one waits."""
    serve = stage.serve("--stream-port", "0", "--queue-timeout", "100s")
    found = re.search(r"tcp://\S+:(\d+)", serve.says("serving on"))
    assert found
    with socket.create_connection((stage.address[0], int(found[1])), timeout=20.0) as stream:
        stream.send(b"hello")
    with stage.connect() as connection:
        connection.send(request("/pid"))
        serve.says("toolb warning: no consumer is attached")
        serve.process.terminate()
        assert connection.receive().status == 503
    assert serve.ends() == 0, serve.said()


def test_work_that_stops_finishes_what_it_has_begun(stage: Stage) -> None:
    serve = stage.serve()
    work, other = stage.work(), stage.work()
    serve.says("requests go to 2 consumers now")
    with stage.connect() as a, stage.connect() as b:
        for n, connection in enumerate((a, b)):
            connection.send(request("/sleep?ms=1000", headers={"X-Id": f"s{n}"}))
        stage.awaits("BEGIN s", times=2)
        work.process.terminate()
        # Meanwhile the other one answers everybody.
        serve.says("requests go to 1 consumer now", times=2)
        rest = {p.pid for p in children(other.process.pid)}
        for _ in range(10):
            assert stage.pid() in rest
        assert {a.receive().status, b.receive().status} == {200}
    assert work.ends() == 0, work.said()
    other.stop()
    serve.stop()


def test_work_that_stops_ends_when_its_last_answer_is_taken(stage: Stage) -> None:
    """The application is done with it before: what waits is the rest of a large body."""
    serve = stage.serve()
    work = stage.work("--timeout-graceful-shutdown", "120")
    serve.says("requests go to 1 consumer now")
    body = bytes(16 << 20)
    with stage.connect() as connection:
        connection.send(request("/whole", "POST", body))
        assert connection.socket.recv(1, socket.MSG_PEEK) == b"H"
        work.process.terminate()
        answer = connection.receive("POST")
        assert (answer.status, answer.body) == (200, body)
    assert work.ends() == 0, work.said()
    serve.stop()


def test_a_stop_of_the_engine_loses_nothing(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work("-w", "2")
    serve.says("requests go to 2 consumers now")
    with stage.connect() as connection:
        connection.send(request("/sleep?ms=700", headers={"X-Id": "last"}))
        stage.awaits("BEGIN last")
        serve.process.terminate()
        serve.says("SIGTERM: finishing")
        answer = connection.receive()
        assert (answer.status, answer.body) == (200, b"last")
    assert serve.ends() == 0, serve.said()
    assert stage.left() == []
    again = stage.serve()
    again.says("requests go to 2 consumers now")
    assert stage.pid() > 0
    work.stop()
    again.stop()


def test_what_an_engine_cuts_off_is_answered(stage: Stage) -> None:
    """One that a consumer has begun, and one that has reached nobody."""
    serve = stage.serve("--timeout-graceful-shutdown", "1")
    with stage.connect() as begun, stage.connect() as waits:
        work = stage.work()
        serve.says("requests go to 1 consumer now")
        begun.send(request("/block?ms=20000", headers={"X-Id": "long"}))
        stage.awaits("BEGIN long")
        waits.send(request("/pid"))
        serve.process.terminate()
        for connection in (begun, waits):
            answer = connection.receive()
            assert (answer.status, answer.closes) == (503, True)
    assert serve.ends() == 1, serve.said()
    work.kill()


def test_a_connection_that_is_merely_kept_is_not_cut_off(stage: Stage) -> None:
    """Even if the end comes before the last call is over."""
    serve = stage.serve("--timeout-graceful-shutdown", "1")
    work = stage.work()
    with stage.connect() as connection:
        assert connection.ask("/pid").status == 200
        # A consumer that does not leave in time would be cut off.
        work.stop()
        serve.says("requests wait for another consumer")
        serve.process.terminate()
        assert serve.ends() == 0, serve.said()
    assert "cut off" not in serve.said(), serve.said()


def test_workers_of_an_engine_elsewhere_cancel_and_shut_down_in_time(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work("--timeout-graceful-shutdown", "8")
    with stage.connect() as connection:
        connection.send(request("/sleep?ms=600000", headers={"X-Id": "long"}))
        stage.awaits("BEGIN long")
        work.process.terminate()
        answer = connection.receive()
        assert (answer.status, answer.body) == (503, b"the server is about to end\n")
    assert work.ends() == 0, work.said()
    assert "requests that had not ended in time were cancelled: 1" in work.said()
    assert "SHUTDOWN" in stage.events()
    serve.stop()


def test_work_that_is_cut_off_is_told_by_the_exit_code(stage: Stage) -> None:
    serve = stage.serve("--timeout-graceful-shutdown", "1")
    work = stage.work("--timeout-graceful-shutdown", "1")
    with stage.connect() as connection:
        connection.send(request("/block?ms=20000", headers={"X-Id": "long"}))
        stage.awaits("BEGIN long")
        serve.process.terminate()
        assert serve.ends() == 1, serve.said()
        told = "connections with 1 request and 1 consumer did not finish within 1 s and are cut off"
        assert told in serve.said(), serve.said()
        work.process.terminate()
        assert work.ends() == 1, work.said()
        assert "1 worker did not finish within 1 s and is killed" in work.said()


@pytest.mark.parametrize(
    ("application", "words"), [("nowhere:app", "nowhere"), ("app:refuses_to_start", "database")]
)
def test_an_application_that_cannot_start(stage: Stage, application: str, words: str) -> None:
    work = stage.work("-w", "2", application=application)
    assert work.ends() == 3
    (line,) = [line for line in work.lines if line[30:].startswith("toolb")]
    assert words in line


def test_workers_finish_without_their_supervisor(stage: Stage) -> None:
    serve = stage.serve()
    work = stage.work()
    known = children(work.process.pid)
    with stage.connect() as connection:
        connection.send(request("/sleep?ms=500", headers={"X-Id": "orphan"}))
        stage.awaits("BEGIN orphan")
        work.kill()
        assert connection.receive().status == 200
    wait_until("the worker had gone", lambda: not alive(known))
    serve.stop()


def test_a_worker_by_hand(stage: Stage) -> None:
    """As a person would run it under a debugger."""
    serve = stage.serve()
    worker = run_by_hand(stage, ["app:app"])
    try:
        assert stage.pid() == worker.pid
        worker.send_signal(signal.SIGINT)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
    serve.says("has left; requests wait for another consumer")
    serve.stop()


def run_by_hand(stage: Stage, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    own = {"TOOLB_BUS": f"unix:{stage.bus}", "ROBUST_DIR": str(stage.directory)}
    return subprocess.Popen(
        [sys.executable, "-m", "toolb.worker", *arguments],
        cwd=HERE,
        env={**os.environ, **own},
        stdin=subprocess.DEVNULL,
    )
