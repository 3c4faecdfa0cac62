"""A worker that is stuck holds up what it works on, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from .harness import PATIENCE, Server, Servers, percentile, wait_until
from .http1 import AsyncConnection, request

RATE = 250  # requests per second: far below what one worker can do
SECONDS = 0.8
CONNECTIONS = 32
ROUNDS = 6  # at least
MOST = 30  # and at most, as long as the machine may be what is slow
FACTOR = 3


@dataclass
class Measured:
    waits: list[float] = field(default_factory=list)  # seconds from when each was due
    pids: Counter[int] = field(default_factory=Counter)
    of_the_stuck: int = 0  # answers of the worker that is stuck meanwhile


Spare = deque[AsyncConnection]


async def steady_load(server: Server, name: str, spare: Spare) -> Measured:
    """Asks at a fixed rate, whether or not answers have come: a server that holds things up cannot
    slow down who measures it. All connections take their turn, for a server that ties them to
    workers is one of those that this is about."""
    measured = Measured()

    async def ask(number: int, due: float) -> None:
        own = f"{name}{number}"
        connection = spare.popleft() if spare else await AsyncConnection.open(server.address)
        answer = await connection.ask(request("/sleep?ms=5", headers={"X-Id": own}))
        measured.waits.append(time.monotonic() - due)
        assert (answer.status, answer.body) == (200, own.encode())
        measured.pids[int(answer.get(b"x-pid") or 0)] += 1
        spare.append(connection)

    began = time.monotonic()
    tasks = []
    for number in range(int(RATE * SECONDS)):
        due = began + number / RATE
        # not-sync: requests are due at fixed times
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.ensure_future(ask(number, due)))
    # Whatever is held up by the stuck worker is held up for ever: the gate opens only afterwards.
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert len(measured.waits) == int(RATE * SECONDS)
    return measured


async def one_round(server: Server, way: str, number: int, spare: Spare) -> list[Measured]:
    """The same load without and with a stuck worker beside."""
    without = await steady_load(server, f"{way}{number}a", spare)
    own = f"{way}{number}"
    connection = await AsyncConnection.open(server.address)
    data = request(f"/{way}?gate={own}", headers={"X-Id": own})
    stuck = asyncio.ensure_future(connection.ask(data))
    while own not in server.began():
        # not-sync: the pause between two looks
        await asyncio.sleep(0.005)
    beside = await steady_load(server, f"{way}{number}b", spare)
    server.open_gate(own)
    answer = await asyncio.wait_for(stuck, PATIENCE)
    assert (answer.status, answer.body) == (200, own.encode())
    pid = int(answer.get(b"x-pid") or 0)
    connection.close()
    beside.of_the_stuck = beside.pids[pid]
    return [without, beside]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("way", ["block", "sleep"])
def test_one_stuck_worker_of_two(servers: Servers, way: str, loop: str) -> None:
    """`block` stops its whole event loop, `sleep` only awaits: for the fast requests beside it
    there must be no difference. Rounds without and with it take turns, so that a busy machine
    slows down both; and of what differs from round to round the median is taken, so that a request
    which is late in one of them is the machine's fault, and one in most of them the server's. If most
    of a few were bad ones there are more: the machine's bad luck does not last, the server's fault does.
    """
    server = servers.start(workers=2, loop=loop)

    async def rounds() -> list[list[Measured]]:
        spare = deque([await AsyncConnection.open(server.address) for _ in range(CONNECTIONS)])
        measured: list[list[Measured]] = []
        while len(measured) < ROUNDS or (len(measured) < MOST and worse(measured)):
            measured.append(await one_round(server, way, len(measured), spare))
        for connection in spare:
            connection.close()
        return measured

    measured = asyncio.run(rounds())
    workers = sum((without.pids for without, _ in measured), Counter[int]())
    assert len(workers) == 2, f"one worker did everything: {workers}"
    shares = [beside.of_the_stuck for _, beside in measured]
    print(f"{way} {loop}: answers of the stuck worker in each round: {shares}")
    if way == "block":
        # Its event loop was dead for that long: the test would mean nothing otherwise.
        assert not any(shares), "the stuck worker has answered"
    else:
        # A worker that only waits goes on with its share.
        assert sum(shares) > sum(len(beside.waits) for _, beside in measured) // 20, shares
    print(f"{way} {loop}: {len(measured)} rounds")
    assert not worse(measured), worse(measured)


def worse(measured: list[list[Measured]]) -> list[str]:
    """What was worse beside a stuck worker than without one, by more than the factor."""
    found = []
    for name, p in (("p50", 50), ("p99", 99), ("worst", 100)):
        without, beside = (
            statistics.median(percentile(one.waits, p) for one in side)
            for side in zip(*measured, strict=True)
        )
        if beside > FACTOR * without:
            found.append(f"{name} without {without * 1e3:.1f} ms, with {beside * 1e3:.1f} ms")
    return found


# Workers that never come back.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_that_stands_still_is_replaced_whatever_the_deadlines(
    servers: Servers, loop: str
) -> None:
    flags = ["--timeout-response", "0", "--timeout-worker-healthcheck", "1s"]
    server = servers.start(loop=loop, flags=flags)
    (victim,) = server.worker_pids()
    with server.connect() as begun, server.connect() as waits:
        begun.send(request("/block?ms=600000", headers={"X-Id": "stuck"}))
        wait_until("it blocks", lambda: "stuck" in server.began())
        # In front of a worker that does not look: it has not begun.
        waits.send(request("/pid"))
        assert begun.receive().status == 502
        answer = waits.receive()
        assert (answer.status, int(answer.body) != victim) == (200, True)
    wait_until("the end was told", lambda: "was ended, as it stood still" in server.said())
    said = server.said()
    told = f"worker 1 (pid {victim}) has stood still for 1 s with work to do and is ended"
    assert told in said
    # Where it hung is told after that, and before the next one starts.
    hung = said.index("Fatal Python error: Aborted")
    assert said.index(told) < hung < said.index("was ended, as it stood still")
    assert 'app.py", line' in said[hung:], said


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_works_or_sleeps_for_long_does_not_stand_still(servers: Servers, loop: str) -> None:
    server = servers.start(loop=loop, flags=["--timeout-worker-healthcheck", "4s"])
    pids = server.worker_pids()
    with server.connect() as sleeps, server.connect() as blocks, server.connect() as stopped:
        # Longer than the time that is given, and nothing else comes meanwhile.
        sleeps.send(request("/sleep?ms=6000", headers={"X-Id": "sleeps"}))
        assert sleeps.receive().status == 200
        blocks.send(request("/block?ms=1000", headers={"X-Id": "blocks"}))
        assert blocks.receive().status == 200
        # As long as the machine may stop it.
        stopped.send(request("/sleep?ms=500", headers={"X-Id": "stopped"}))
        wait_until("it sleeps", lambda: "stopped" in server.began())
        os.kill(pids[0], signal.SIGSTOP)
        # not-sync: stopped for so long on purpose
        time.sleep(1)
        os.kill(pids[0], signal.SIGCONT)
        assert stopped.receive().status == 200
    assert server.worker_pids() == pids, server.said()


def test_nobody_looks_without_a_time(servers: Servers) -> None:
    flags = ["--timeout-worker-healthcheck", "0", "--timeout-response", "1s"]
    server = servers.start(flags=flags)
    pids = server.worker_pids()
    with server.connect() as blocks, server.connect() as other:
        # One that nobody has begun in time is not what this is about.
        while "blocks" not in server.began():
            blocks.send(request("/block?ms=4000", headers={"X-Id": "blocks"}))
            assert blocks.receive().status in (503, 504)
        other.send(request("/pid"))
        assert other.receive().status in (200, 503, 504)
        wait_until("it goes on", lambda: "blocks" in server.began("END"))
    assert server.worker_pids() == pids, server.said()


def test_a_stopped_process_is_killed_though_it_cannot_say_anything(servers: Servers) -> None:
    # Longer than the machine lets the next one wait for its turn.
    server = servers.start(flags=["--timeout-worker-healthcheck", "2s"])
    (victim,) = server.worker_pids()
    os.kill(victim, signal.SIGSTOP)
    with server.connect(timeout=PATIENCE) as connection:
        connection.send(request("/pid"))
        answer = connection.receive()
    assert (answer.status, int(answer.body) != victim) == (200, True), server.said()
    wait_until("its end was told", lambda: "was ended, as it stood still" in server.said())
    # It is not given the 5 s in which others say where they hang.
    ended, known = (
        when(server, f"worker 1 (pid {victim}) {what}")
        for what in ("was ended, as it stood still", "has been stopped")
    )
    assert ended - known < timedelta(seconds=5), server.said()


def when(server: Server, text: str) -> datetime:
    """The time of the line that says so."""
    (line,) = (line for line in server.lines if text in line)
    return datetime.fromisoformat(line.split()[0])
