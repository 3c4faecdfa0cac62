"""Starting, stopping and mistakes of the person who runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import ExitStack

import pytest

from .harness import PATIENCE, Server, Servers, alive, children, descendants, process, wait_until
from .http1 import Connection, CutError, request
from .payload import marked

LAST_CALL = 2.0  # for so long connections that are kept may still ask once the server is stopping


def ended(server: Server, patience: float = PATIENCE) -> int:
    """The exit code of a server that is expected to end by itself."""
    try:
        return server.process.wait(patience)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it goes on after {patience:.0f} s:\n{server.said()}")
    finally:
        server.kill()


def one_clear_line(server: Server, *words: str) -> None:
    """What is to be read is one line, which names what is wrong, without anybody's insides."""
    said = [line for line in server.lines if line.strip()]
    telling = [line for line in said if all(re.search(w, line, re.IGNORECASE) for w in words)]
    assert len(telling) == 1, f"{len(telling)} lines tell of {words}:\n{server.said()}"
    assert not re.search(r"panicked|RUST_BACKTRACE|src/\w+\.rs", server.said()), server.said()
    assert not any("serving" in line for line in said), server.said()


# Mistakes.


def test_a_port_that_is_taken(servers: Servers) -> None:
    for sharing in (False, True):
        with socket.socket() as other:
            if sharing:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = str(other.getsockname()[1])
            server = servers.start_only(flags=["--port", port])
            assert ended(server) == 3
            one_clear_line(server, port, "in use|taken")
            assert len(server.lines) == 1, server.said()
            assert not server.events(), "the application was started for nothing"


def test_a_second_server_on_the_port_of_the_first(servers: Servers) -> None:
    first = servers.start()
    second = servers.start_only(flags=["--port", str(first.address[1])])
    assert ended(second) == 3
    one_clear_line(second, str(first.address[1]), "in use|taken")
    with first.connect() as connection:
        assert connection.ask("/pid").status == 200


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("application", "words"),
    [
        ("nowhere:app", ["nowhere"]),
        ("app:nothing", ["nothing"]),
        ("app:ROUTES", ["ROUTES"]),
        ("broken:app", ["broken", "on purpose"]),
    ],
)
def test_an_application_that_cannot_be_had(
    servers: Servers, application: str, words: list[str], workers: int
) -> None:
    server = servers.start_only(application, workers=workers)
    assert ended(server) == 3
    # Nothing was tried again: once for each worker is the most.
    assert len([e for e in server.events() if e == ["IMPORT"]]) <= workers
    for word in words:
        assert word in server.said(), server.said()
    final = [line for line in server.lines if line[30:].startswith("toolb")]
    assert len(final) == 1, f"one line of ours:\n{server.said()}"
    assert not re.search(r"panicked|src/\w+\.rs", server.said())


@pytest.mark.parametrize("workers", [1, 4])
def test_an_application_that_refuses_to_start(servers: Servers, workers: int) -> None:
    server = servers.start_only("app:refuses_to_start", workers=workers)
    assert ended(server) == 3
    one_clear_line(server, "no database today")
    assert 1 <= len(server.began("REFUSED")) <= workers


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no-such-flag"], ["--no-such-flag"]),
        (["--workers", "0"], ["workers", "0"]),
        (["--workers", "many"], ["workers", "many"]),
        (["--workers", "-1"], ["workers|-1"]),
        (["--port", "99999"], ["port", "99999"]),  # not-bound: no port at all
        (["--port", "http"], ["port", "http"]),
        (["--loop", "libevent"], ["loop", "libevent"]),
        (["--timeout-keep-alive", "soon"], ["timeout-keep-alive", "soon"]),
        (["--timeout-keep-alive", "-1"], ["timeout-keep-alive|-1"]),
        (["--limit-request-body", "lots"], ["limit-request-body", "lots"]),
        (["--log-level", "loud"], ["log-level", "loud"]),
    ],
    ids=lambda value: " ".join(value) if "--" in value[0] else "",
)
def test_a_flag_that_cannot_be_meant(servers: Servers, flags: list[str], words: list[str]) -> None:
    server = servers.start_only(flags=flags)
    # Wrong usage is 2, as with every other program; what goes wrong later is 3.
    assert ended(server) == 2
    one_clear_line(server, *words)
    assert not server.events()


@pytest.mark.parametrize(
    ("host", "words"),
    [("203.0.113.7", ["203.0.113.7"]), ("no-such-host.invalid", ["no-such-host.invalid"])],
)
def test_an_address_that_is_not_here(servers: Servers, host: str, words: list[str]) -> None:
    server = servers.start_only(flags=["--host", host])
    assert ended(server) == 3
    one_clear_line(server, *words)


# The end.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_lets_what_was_accepted_finish(servers: Servers, number: signal.Signals) -> None:
    server = servers.start(workers=2)
    tree = descendants(server.pid)
    connections = [server.connect() for _ in range(7)]
    slow, (streaming, idle, silent) = connections[:4], connections[4:]
    assert idle.ask("/id").status == 200
    assert silent.ask("/id").status == 200
    for n, connection in enumerate(slow):
        connection.send(request("/sleep?gate=go", headers={"X-Id": f"slow{n}"}))
    streaming.send(request("/stream?size=100000&parts=10&gap=100", headers={"X-Id": "stream"}))
    wait_until("all of them began", lambda: len(server.began()) >= 7)
    began = time.monotonic()
    server.process.send_signal(number)
    # The door is closed while the others are served.
    wait_until("nobody is accepted", lambda: refused(server.address))
    # A request that was on its way meanwhile is the last on its connection.
    try:
        last = idle.ask("/id", headers={"X-Id": "last"})
        assert (last.status, last.closes) == (200, True)
    except (CutError, ConnectionError):
        assert time.monotonic() - began > LAST_CALL, "it was closed before"
    assert idle.until_closed() == b""
    # Who says nothing is sent away meanwhile, and does not hold up the end.
    assert silent.until_closed() == b""
    server.open_gate("go")
    for n, connection in enumerate(slow):
        answer = connection.receive()
        assert (answer.status, answer.body) == (200, f"slow{n}".encode())
    assert streaming.receive().body == marked("stream", 100_000)
    assert server.process.wait(PATIENCE) == 0, server.said()
    assert not alive(tree)
    assert len(server.began("SHUTDOWN")) == 2, "a lifespan was not shut down"
    for connection in connections:
        connection.socket.close()


def refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it knocked while the door was being closed
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("way", ["sleep", "block"])
def test_a_second_signal_forces(servers: Servers, number: signal.Signals, way: str) -> None:
    server = servers.start(workers=2, flags=["--timeout-graceful-shutdown", "600"])
    tree = descendants(server.pid)
    with server.connect() as connection:
        connection.send(request(f"/{way}?ms=600000", headers={"X-Id": "long"}))
        wait_until("it began", lambda: "long" in server.began())
        server.process.send_signal(number)
        wait_until("nobody is accepted", lambda: refused(server.address))
        time.sleep(0.2)  # not-sync: two signals within 100 ms are one
        assert server.process.poll() is None, "it did not wait for the request"
        server.process.send_signal(number)
        assert server.process.wait(PATIENCE) == 128 + number, server.said()
        assert not connection.until_closed().startswith(b"HTTP/1.1 200")
    wait_until("the workers were gone", lambda: not alive(tree))


def test_the_grace_time_has_an_end(servers: Servers) -> None:
    server = servers.start(workers=2, flags=["--timeout-graceful-shutdown", "1"])
    tree = descendants(server.pid)
    with server.connect() as connection:
        connection.send(request("/sleep?ms=600000", headers={"X-Id": "long"}))
        wait_until("it began", lambda: "long" in server.began())
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 1, server.said()
        # Half of it is there to be cancelled and to end in.
        assert time.monotonic() - began >= 0.5
    wait_until("the workers were gone", lambda: not alive(tree))
    wait_until(
        "it was told", lambda: "1 request was cut off, as the 1 s to finish" in server.said()
    )


# Of the last half, or of 5 s, a busy machine may take some before the worker has its turn.
@pytest.mark.parametrize("seconds", [8, 14])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_requests_that_are_cancelled_at_the_end_are_told_of(
    servers: Servers, seconds: int, loop: str
) -> None:
    """The worker ends in time and in order, but not what it has begun."""
    flags = ["--timeout-graceful-shutdown", str(seconds)]
    server = servers.start(loop=loop, flags=flags)
    with ExitStack() as stack:
        quick, first, second, begun = (stack.enter_context(server.connect()) for _ in range(4))
        assert quick.ask("/pid").status == 200
        first.send(request("/sleep?ms=600000", headers={"X-Id": "first"}))
        second.send(request("/cleans-up", headers={"X-Id": "second"}))
        begun.send(request("/stream?size=100000&parts=10&gap=600000", headers={"X-Id": "begun"}))
        wait_until("they began", lambda: {"first", "second", "begun"} <= {*server.began()})
        server.process.send_signal(signal.SIGTERM)
        for connection in (first, second):
            answer = connection.receive()
            assert (answer.status, answer.closes) == (503, True)
            assert answer.get(b"retry-after") is not None
        with pytest.raises((CutError, ConnectionResetError)):
            begun.receive()
        assert server.process.wait(seconds + 20) == 1, server.said()
    wait_until(
        "it was told", lambda: f"2 requests were cut off, as the {seconds} s" in server.said()
    )
    assert "killed" not in server.said()
    assert len(server.began("SHUTDOWN")) == 1, server.said()
    # What was cancelled could not complete its response: that is no fault of the application.
    assert "returned without" not in server.said(), server.said()


def test_a_download_that_is_cut_off_at_the_end_is_told_of(servers: Servers) -> None:
    """Its end was promised by a length, other than that of a stream."""
    server = servers.start(flags=["--timeout-graceful-shutdown", "1"])
    with server.connect() as connection:
        connection.send(request("/whole", method="POST", body=bytes(20_000_000)))
        assert connection.socket.recv(1000)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 1, server.said()
    wait_until("it was told", lambda: "1 request was cut off, as the 1 s" in server.said())


# Longer than it takes to connect so many and to ask.
@pytest.mark.parametrize(("count", "seconds"), [(5, 2), (300, 8)])
def test_who_spoke_in_time_while_the_server_stood_still_is_answered(
    servers: Servers, count: int, seconds: int
) -> None:
    times = ["keep-alive", "request-header", "request-body"]
    flags = [flag for name in times for flag in (f"--timeout-{name}", str(seconds))]
    server = servers.start(flags=flags)
    body = request("/whole", method="POST", body=b"hello")
    with ExitStack() as stack:
        idle: list[Connection] = []
        heads: list[Connection] = []
        bodies: list[Connection] = []

        def stops_in_time() -> bool:
            """Whether nobody's time was over when it stood still. Else the machine was too slow."""
            began = time.monotonic()
            for connections in (idle, heads, bodies):
                connections[:] = [stack.enter_context(server.connect()) for _ in range(count)]
            try:
                for connection in idle:
                    assert connection.ask("/pid").status == 200
                for connection in heads:
                    connection.send(request("/pid")[:-2])
                for connection in bodies:
                    connection.send(body[:-2])
            except (CutError, ConnectionError):
                assert time.monotonic() - began > seconds, "it was closed before its time"
            os.kill(server.pid, signal.SIGSTOP)
            wait_until("it stands still", stands_still)
            if time.monotonic() - began < seconds:
                return True
            os.kill(server.pid, signal.SIGCONT)
            stack.close()
            return False

        def stands_still() -> bool:
            found = process(server.pid)
            return found is not None and found.state == "T"

        wait_until("all have begun to speak in time", stops_in_time, patience=100)
        for connection in idle:
            connection.send(request("/pid"))
        for connection in heads:
            connection.send(b"\r\n")
        for connection in bodies:
            connection.send(body[-2:])
        time.sleep(seconds + 0.5)  # not-sync: the time that is looked at
        os.kill(server.pid, signal.SIGCONT)
        for name, spoken in ("idle", idle), ("head", heads), ("body", bodies):
            statuses = [connection.receive().status for connection in spoken]
            assert statuses == [200] * count, name


def test_who_is_killed_at_the_end_leaves_answers_behind(servers: Servers) -> None:
    """Nothing that was accepted is left without an answer, whether it had begun or not."""
    server = servers.start(flags=["--timeout-graceful-shutdown", "2"])
    with server.connect() as begun, server.connect() as waits:
        begun.send(request("/block?ms=600000", headers={"X-Id": "begun"}))
        wait_until("it began", lambda: "begun" in server.began())
        waits.send(request("/pid"))
        server.process.send_signal(signal.SIGTERM)
        for connection in (begun, waits):
            answer = connection.receive()
            assert (answer.status, answer.closes) == (503, True)
        assert server.process.wait(20) == 1, server.said()
    wait_until("it was told", lambda: "2 requests were cut off, as the 2 s" in server.said())


def test_an_endless_stream_does_not_hold_up_the_end(servers: Servers) -> None:
    server = servers.start(flags=["--timeout-graceful-shutdown", "10"])
    with server.connect() as connection:
        connection.send(request("/sse", headers={"X-Id": "sse"}))
        while b"hello" not in connection.socket.recv(1000):
            pass
        server.process.send_signal(signal.SIGTERM)
        # It was told to end, and has ended: nothing was cut off.
        assert server.process.wait(PATIENCE) == 0, server.said()


def test_workers_end_with_a_server_that_was_killed(servers: Servers) -> None:
    server = servers.start(workers=3)
    tree = children(server.pid)
    assert len(tree) == 3
    os.kill(server.pid, signal.SIGKILL)
    wait_until("the workers had gone, too", lambda: not alive(tree))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_that_blocks_does_not_outlive_a_killed_server(servers: Servers, loop: str) -> None:
    server = servers.start(workers=2, loop=loop)
    tree = children(server.pid)
    with server.connect() as a, server.connect() as b:
        a.send(request("/block?ms=600000", headers={"X-Id": "stuck"}))
        wait_until("the first blocks", lambda: "stuck" in server.began())
        b.send(request("/block?gate=soon", headers={"X-Id": "soon"}))
        wait_until("the second blocks", lambda: "soon" in server.began())
        os.kill(server.pid, signal.SIGKILL)
        server.open_gate("soon")
        wait_until("the workers had gone, too", lambda: not alive(tree))
    pids = {words[1]: words[2] for words in server.events() if words[0] == "BEGIN"}
    assert pids["stuck"] != pids["soon"]
    # Who can end does so by itself, and in order.
    wait_until("all was read", lambda: not server.reads())
    assert server.began("SHUTDOWN") == [pids["soon"]], server.said()
    told = [line for line in server.lines if "still busy" in line]
    assert len(told) == 1, server.said()
    assert f"process {pids['stuck']} " in told[0]


# Workers.


def test_a_killed_worker_is_replaced(servers: Servers) -> None:
    server = servers.start(workers=2)
    before = set(server.worker_pids())
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)

    def replaced() -> set[int]:
        now = set(server.worker_pids())
        return now - before if len(now) == 2 and victim not in now else set()

    (fresh,) = wait_until("another took its place", replaced)
    wait_until("it had started", lambda: str(fresh) in server.began("STARTUP"))

    def serves() -> bool:
        # Two at once, so that both workers have something to do.
        with server.connect() as a, server.connect() as b:
            for c in (a, b):
                c.send(request("/sleep?ms=100"))
            return str(fresh).encode() in {c.receive().get(b"x-pid") for c in (a, b)}

    wait_until("it serves", serves)
    assert str(victim) in server.said(), "nobody was told"


def test_a_worker_that_cannot_be_replaced_at_once_is_waited_for(servers: Servers) -> None:
    """The only worker dies: requests wait for the next instead of failing."""
    server = servers.start(workers=1)
    (victim,) = server.worker_pids()
    os.kill(victim, signal.SIGKILL)
    with server.connect() as connection:
        answer = connection.ask("/pid")
        assert answer.status == 200
        assert int(answer.body) != victim


def test_a_stop_waits_for_the_replacement_of_the_only_worker(servers: Servers) -> None:
    """What was accepted is not lost because the server was told to stop at a bad moment."""
    server = servers.start(workers=1)
    (victim,) = server.worker_pids()
    os.kill(victim, signal.SIGKILL)
    wait_until("it is known", lambda: "was ended by SIGKILL" in server.said())
    with server.connect() as connection:
        connection.send(request("/pid"))
        server.process.terminate()
        answer = connection.receive()
    assert answer.status == 200, server.said()
    assert int(answer.body) != victim
    assert server.process.wait(20) == 0, server.said()
