"""What the person who runs it is told: of overload, of workers that end, of what mends it."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from .harness import Server, Servers, wait_until
from .http1 import Connection, CutError, request

WINDOW = 16  # requests that are sent to a worker before it begins them


def tell(server: Server, *words: str) -> str:
    """The line that has all of these words, once it is there."""

    def found() -> list[str]:
        return [line for line in server.lines if all(word in line for word in words)]

    return wait_until(f"{words} were said", found)[-1]


def begin(server: Server, stack: ExitStack, target: str, own: str) -> Connection:
    """A request that has begun."""
    connection = stack.enter_context(server.connect())
    connection.send(request(target, headers={"X-Id": own}))
    wait_until(f"{own} began", lambda: own in server.began())
    return connection


# Overload.


def test_a_full_queue_and_a_long_wait_name_their_flags(servers: Servers) -> None:
    flags = ["--queue-size", "1", "--queue-timeout", "300ms"]
    server = servers.start(flags=[*flags, "--timeout-worker-healthcheck", "0"])
    with ExitStack() as stack:
        held = begin(server, stack, "/block?gate=go", "held")
        inside = [stack.enter_context(server.connect()) for _ in range(WINDOW)]
        for connection in inside:
            connection.send(request("/pid"))
        all_read(server)
        # Those in front of the worker are sent at once; the next one waits, those after it are refused.
        waits = [stack.enter_context(server.connect()) for _ in range(8)]
        for connection in waits:
            connection.send(request("/pid?waits=1"))
        statuses = [connection.receive().status for connection in waits]
        assert statuses.count(503) >= 7, statuses
        line = tell(server, "toolb warning: GET /pid?waits=1: 503, as 1 request waits")
        assert "queue-size" in line
        assert "more workers" in line
        line = tell(
            server, "toolb warning: GET /pid?waits=1: 503, as no worker took it within 0.3 s"
        )
        assert "queue-timeout" in line
        assert "more workers" in line
        server.open_gate("go")
        assert held.receive().status == 200
        assert {connection.receive().status for connection in inside} == {200}


def test_the_limit_of_concurrency_names_its_flag(servers: Servers) -> None:
    server = servers.start(flags=["--limit-concurrency", "1"])
    with ExitStack() as stack, server.connect() as other:
        held = begin(server, stack, "/sleep?gate=go", "held")
        for _ in range(50):
            assert other.ask("/pid").status == 503
        line = tell(server, "toolb warning: GET /pid: 503, as 1 request is in flight or waits")
        assert "limit-concurrency" in line

        def counted() -> bool:
            assert other.ask("/pid").status == 503
            return "more like it before)" in server.said()

        wait_until("the others were counted", counted)
        assert server.said().count("limit-concurrency") <= 20
        server.open_gate("go")
        assert held.receive().status == 200


def test_a_late_response_names_its_flag(servers: Servers) -> None:
    server = servers.start(flags=["--timeout-response", "300ms"])
    with server.connect() as connection:
        # 503 if even the worker was not there in time.
        while connection.ask("/sleep?ms=600000").status == 503:
            pass
    line = tell(server, "toolb warning: GET /sleep?ms=600000: 504, as the application took longer")
    assert "0.3 s" in line
    assert "timeout-response" in line


# Workers that end.


def test_the_end_of_a_worker_tells_what_it_took_along(servers: Servers) -> None:
    server = servers.start(flags=["--timeout-worker-healthcheck", "0"])
    (victim,) = server.worker_pids()
    with ExitStack() as stack:
        streams = begin(server, stack, "/stream?size=100000&parts=10&gap=600000", "streams")
        streams.await_head()
        sleeps = begin(server, stack, "/sleep?ms=600000", "sleeps")
        blocks = begin(server, stack, "/block?ms=600000", "blocks")
        # They have not begun, and go to the next one.
        waits = [stack.enter_context(server.connect()) for _ in range(3)]
        for connection in waits:
            connection.send(request("/pid"))
        all_read(server)
        os.kill(victim, signal.SIGKILL)
        assert [c.receive().status for c in (sleeps, blocks)] == [502, 502]
        assert {c.receive().status for c in waits} == {200}
        with pytest.raises((CutError, ConnectionResetError)):
            streams.receive()
    line = tell(server, f"worker 1 (pid {victim}) was ended by SIGKILL")
    assert "2 requests were answered 502, 1 was cut off, 3 were handed to others" in line
    assert "another starts in 100 ms" in line
    # Those who wait for it are told that it is there.
    tell(server, "toolb info: worker 1 (pid ", "is ready after")


def all_read(server: Server) -> None:
    """Returns when the server has accepted everybody and read what they have sent."""
    port = f":{server.address[1]:04X}"

    def is_read() -> bool:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        # Bytes of those who are connected, and those who wait at the door.
        return not any(int(w[4].split(":")[1], 16) for w in lines if w[1].endswith(port))

    wait_until("all was read", is_read)


def test_one_that_is_idle_takes_nothing_along(servers: Servers) -> None:
    server = servers.start()
    (victim,) = server.worker_pids()
    assert " is ready after" not in server.said()
    os.kill(victim, signal.SIGKILL)
    line = tell(server, f"worker 1 (pid {victim}) was ended by SIGKILL")
    assert line.endswith("was ended by SIGKILL; another starts in 100 ms")


def test_one_that_is_stopped_is_told_apart(servers: Servers) -> None:
    # Longer than the machine lets the next one wait for its turn.
    server = servers.start(flags=["--timeout-worker-healthcheck", "2s"])
    (victim,) = server.worker_pids()
    os.kill(victim, signal.SIGSTOP)
    with server.connect() as connection:
        connection.send(request("/pid"))
        assert connection.receive().status == 200
    line = tell(server, f"worker 1 (pid {victim}) has been stopped", "SIGSTOP")
    assert "cannot be told" in line
    assert "follows" not in server.said()


def test_where_workers_hang_is_told_with_their_pids(servers: Servers) -> None:
    flags = ["--timeout-worker-healthcheck", "500ms"]
    server = servers.start(workers=2, flags=flags)
    with ExitStack() as stack:
        for own in ("one", "two"):
            begin(server, stack, "/block?ms=600000", own)
        pids = {words[1]: words[2] for words in server.events() if words[0] == "BEGIN"}
        for pid in pids.values():
            tell(server, f"[{pid}] CRITICAL SIGABRT")
            tell(server, f"(pid {pid}) was ended, as it stood still")
    hung = re.findall(r"Fatal Python error: Aborted", server.said())
    assert len(hung) == 2


# Faults of applications.


def test_faults_of_applications_name_the_request(servers: Servers) -> None:
    server = servers.start()
    with server.connect() as connection:
        assert connection.ask("/crash/%0Aworse?a=1").status == 500
        assert connection.ask("/silent", method="POST").status == 500
    tell(server, "ERROR Exception in ASGI application: GET /crash/%0Aworse")
    tell(server, "ERROR The ASGI application returned without starting a response: POST /silent")
