"""Workers are killed at random under load, and every client still gets exactly one right outcome.

TOOLB_KILLS sets how many (200).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import native
from .harness import (
    PATIENCE,
    Server,
    Servers,
    alive,
    children,
    descendants,
    descriptors,
    files_held,
    process,
    rss,
    wait_until,
)
from .http1 import AsyncConnection, CutError, request
from .payload import marked, payload

KILLS = int(os.environ.get("TOOLB_KILLS", "200"))
# A worker that was young when it died is replaced after up to 5 s: many keep the pace up.
WORKERS = 16
CLIENTS = 48


@dataclass
class Asked:
    """One request: what it should bring, and what it did."""

    own: str
    data: bytes
    expected: bytes
    has_body: bool = False
    outcome: str = "silence"  # right, 502, reset (in its body), or what should not be


class Load:
    """Clients that ask one thing after the other, and write down how each ended."""

    def __init__(self, server: Server, seed: int, files: bool = False) -> None:
        self.server = server
        self.files = files
        if files:
            (server.directory / "served").write_bytes(payload(900_000))
        self.random = random.Random(seed)
        self.asked: list[Asked] = []
        self.ready: dict[int, float] = {}  # workers that have answered, and when they last did
        self.stopping = False

    def next(self) -> Asked:
        own = f"k{len(self.asked)}"
        kind = self.random.random()
        headers = {"X-Id": own}
        if kind < 0.45:
            path = f"/sleep?ms={self.random.randrange(25)}"
            one = Asked(own, request(path, headers=headers), own.encode())
        elif kind < 0.65:
            # The loop of that worker stands still: what else it was sent has not begun.
            path = f"/block?ms={self.random.randrange(5, 30)}"
            one = Asked(own, request(path, headers=headers), own.encode())
        elif kind < 0.75 and self.files:
            one = Asked(own, request("/file", headers=headers), payload(900_000))
        elif kind < 0.85:
            path = "/stream?size=60000&parts=6&gap=4"
            one = Asked(own, request(path, headers=headers), marked(own, 60_000))
        else:
            body = marked(own, self.random.choice([0, 10, 20_000, 150_000]))
            one = Asked(own, request("/whole", "POST", body, headers), body, bool(body))
        self.asked.append(one)
        return one

    async def client(self) -> None:
        connection: AsyncConnection | None = None
        while not self.stopping:
            one = self.next()
            if connection is None:
                connection = await AsyncConnection.open(self.server.address)
            try:
                answer = await asyncio.wait_for(connection.ask(one.data), 30)
            except CutError as e:
                one.outcome = "reset" if e.began else f"no answer ({e.got!r})"
                connection = None
                continue
            except asyncio.TimeoutError:
                one.outcome = "no answer in 30 s"
                connection.close()
                connection = None
                continue
            if answer.status == 200 and answer.get(b"x-id") == one.own.encode():
                one.outcome = "right" if answer.body == one.expected else "a wrong body"
                self.ready[int(answer.get(b"x-pid") or 0)] = time.monotonic()
            elif answer.status == 502:
                one.outcome = "502"
            else:
                one.outcome = f"{answer.status} {answer.body[:80]!r} {answer.get(b'x-id')!r}"
            if connection.rest:
                one.outcome += " and more than one answer"
            if answer.closes:
                connection.close()
                connection = None
            # not-sync: clients that think between two requests leave the processor to the rest
            await asyncio.sleep(self.random.random() * 0.02)
        if connection:
            connection.close()

    def has_met(self, kills: int) -> bool:
        """Whether so many deaths have cost something: on a busy machine many workers die idle."""
        outcomes = Counter(one.outcome for one in self.asked)
        return outcomes["502"] >= kills // 20 and outcomes["reset"] >= kills // 40

    def living(self) -> list[int]:
        """Workers that serve: they have answered, and they have not ended."""
        children_now = set(self.server.worker_pids())
        return [pid for pid in self.ready if pid in children_now]


async def killer(load: Load, kills: int, deadline: float) -> list[tuple[int, float]]:
    """Kills so many workers, at random, and never the last but one that serves; more of them if
    too few were at work."""
    killed: list[tuple[int, float]] = []
    while len(killed) < kills or not load.has_met(kills):
        assert time.monotonic() < deadline, f"in time {len(killed)} were killed, too few at work"
        serving = load.living()
        if len(serving) > 2:
            anyone = load.server.worker_pids() if load.random.random() < 0.2 else serving
            victim = load.random.choice(anyone)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.append((victim, time.monotonic()))
                load.ready.pop(victim, None)
        # not-sync: deaths are to fall anywhere in the work of the others
        await asyncio.sleep(load.random.random() * 0.25)
    return killed


def judge(server: Server, load: Load, kills: int, whole: bool = False) -> Counter[str]:
    """Holds the outcome of every request against what the application has seen of it. With `whole`
    it sees requests once their bodies are complete, of which its library has taken a part before."""
    begun = Counter(server.began())
    outcomes = Counter(one.outcome for one in load.asked)
    wrong = [
        f"{one.own}: {one.outcome}, began {begun[one.own]} times"
        for one in load.asked
        if one.outcome not in ("right", "502", "reset") or begun[one.own] > 1
    ]
    assert not wrong, f"{len(wrong)} of {len(load.asked)}: {wrong[:10]}\n{outcomes}"
    # What had not begun must not feel the death of a worker. Between the moment that the server
    # takes for the beginning and the application's first line a few instructions pass, in which
    # one request per death can be, at most; in practice it is one in dozens of deaths.
    failed = [o for o in load.asked if o.outcome != "right" and not begun[o.own]]
    untouched = [o.own for o in failed if not (whole and o.has_body)]
    assert len(untouched) <= max(1, kills // 20), (
        f"{len(untouched)} requests that had not begun failed: {untouched[:10]}"
    )
    return outcomes


def start(servers: Servers, language: str, workers: int) -> Server:
    if language == "python":
        return servers.start(workers=workers)
    name = {"c": "consumer", "cpp": "killed"}[language]
    program = native.serving(name, workers=workers, language=language)
    return servers.start(program=program, workers=workers)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("language", ["python", "c", "cpp"])
def test_workers_killed_at_random_under_load(servers: Servers, language: str) -> None:
    shm, tmp = set(os.listdir("/dev/shm")), set(os.listdir("/tmp"))
    started_at = time.time()
    server = start(servers, language, WORKERS)
    load = Load(server, seed=20, files=language == "c")

    async def run(kills: int, seconds: float) -> list[tuple[int, float]]:
        clients = [asyncio.ensure_future(load.client()) for _ in range(CLIENTS)]
        # not-sync: a while of load without a death
        await asyncio.sleep(1.0)
        try:
            return await killer(load, kills, time.monotonic() + seconds)
        finally:
            # not-sync: and after the last
            await asyncio.sleep(0.5)
            load.stopping = True
            await asyncio.gather(*clients)
            load.stopping = False

    asyncio.run(run(0, 10))
    assert {one.outcome for one in load.asked} == {"right"}, "failures before the first death"
    before = baseline(server)
    began = time.monotonic()
    killed = asyncio.run(run(KILLS, 300))
    took = time.monotonic() - began
    held = {name for p in (server.pid, *server.worker_pids()) for name in files_held(p)}
    outcomes = judge(server, load, len(killed), whole=language == "cpp")
    print(f"{len(killed)} deaths in {took:.0f} s, {len(load.asked)} requests: {dict(outcomes)}")
    assert outcomes["right"] > 5 * KILLS

    wait_until("all workers were back", lambda: len(server.worker_pids()) == WORKERS)
    started = wait_until(
        "all of them had started",
        lambda: set(map(str, server.worker_pids())) <= set(server.began("STARTUP")),
    )
    assert started
    wait_until(
        "descriptors were back",
        lambda: len(descriptors(server.pid)) <= len(before.descriptors),
    )
    after = baseline(server)
    # Before, a client's socket may have been about to close.
    assert not Counter(after.descriptors) - Counter(before.descriptors)
    assert after.children == before.children
    # A worker that has answered with a file has a thread in the engine for that, as long as it lives.
    assert after.threads <= before.threads
    assert after.mappings <= before.mappings + 4
    print(f"engine: {before.rss} KiB before, {after.rss} KiB after")
    assert after.rss - before.rss < 8 * 1024, f"{before.rss} KiB -> {after.rss} KiB"
    assert not any((p := process(pid)) and not p.zombie for pid, _ in killed)

    tree = descendants(server.pid)
    assert server.stop() == 0
    assert not alive(tree)
    own = (str(server.directory), native.KEPT.name)
    left = {n for n in held if is_new(Path(n), started_at) and not n.startswith(own)}
    assert not left
    new = (set(os.listdir("/dev/shm")) - shm) | (set(os.listdir("/tmp")) - tmp)
    assert not [name for name in new if name.lower().startswith(("toolb", "memfd"))]
    assert not os.listdir(server.directory / "tmp"), "files are left behind in $TMPDIR"


def is_new(path: Path, since: float) -> bool:
    """There, and not from before: an interpreter may live below /tmp, too."""
    return path.exists() and path.stat().st_ctime >= since


@dataclass
class Baseline:
    descriptors: list[str]
    children: int
    threads: int
    mappings: int
    rss: int


def baseline(server: Server) -> Baseline:
    """What the engine's process holds while no client is connected."""
    wait_until(
        "all connections were closed",
        lambda: descriptors(server.pid).count("socket:") <= WORKERS + 2,
    )
    return Baseline(
        descriptors=descriptors(server.pid),
        children=len(children(server.pid, zombies=True)),
        threads=len(os.listdir(f"/proc/{server.pid}/task")),
        mappings=len(Path(f"/proc/{server.pid}/maps").read_text().splitlines()),
        rss=rss(server.pid),
    )


@pytest.mark.parametrize("language", ["python", "c", "cpp"])
@pytest.mark.parametrize("workers", [1, 2])
def test_only_what_had_begun_fails(servers: Servers, workers: int, language: str) -> None:
    """A worker that stands still is killed: the one request it works on fails, and all those that
    it was sent besides are answered by another."""
    server = start(servers, language, workers)

    async def run() -> tuple[list[int], list[str]]:
        stuck = []
        for n in range(workers):
            connection = await AsyncConnection.open(server.address)
            data = request("/block?ms=600000", headers={"X-Id": f"stuck{n}"})
            stuck.append(asyncio.ensure_future(connection.ask(data)))
            await begun(server, f"stuck{n}")
        others = []
        for n in range(12):
            connection = await AsyncConnection.open(server.address)
            body = marked(f"other{n}", 40_000 if n % 3 == 0 else 10)
            data = request("/whole", "POST", body, {"X-Id": f"other{n}"})
            others.append(asyncio.ensure_future(connection.ask(data)))
        # not-sync: lets the requests arrive; the outcome has to be the same without
        await asyncio.sleep(0.2)
        assert not any(o.done() for o in others), "a worker that stands still has answered"
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        failed = await asyncio.wait_for(asyncio.gather(*stuck), PATIENCE)
        fine = await asyncio.wait_for(asyncio.gather(*others), PATIENCE)
        for n, answer in enumerate(fine):
            assert answer.body == marked(f"other{n}", 40_000 if n % 3 == 0 else 10)
        return [a.status for a in failed], [(a.get(b"x-id") or b"").decode() for a in fine]

    failed, fine = asyncio.run(run())
    assert failed == [502] * workers
    assert fine == [f"other{n}" for n in range(12)]
    counts = Counter(server.began())
    assert set(counts.values()) == {1}, f"something ran twice: {counts}"


async def begun(server: Server, own: str) -> None:
    async def look() -> None:
        while own not in server.began():
            # not-sync: the pause between two looks
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), PATIENCE)


def test_a_stream_is_reset_and_not_ended(servers: Servers) -> None:
    """The client must be able to tell that what it has is not all."""
    server = servers.start(workers=2)
    for length in (0, 1):
        own = f"s{length}"
        with server.connect() as connection:
            path = f"/stream?size=100000&parts=10&gap=600000&length={length}"
            connection.send(request(path, headers={"X-Id": own}))
            got = connection.await_head()
            pid = int(got.lower().split(b"x-pid: ")[1].split(b"\r\n")[0])
            os.kill(pid, signal.SIGKILL)
            with pytest.raises((CutError, ConnectionResetError)):
                connection.receive()
    with server.connect() as connection:
        assert connection.ask("/id").status == 200


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGSEGV], ids=lambda n: n.name)
def test_other_ways_to_fall_silent(servers: Servers, number: signal.Signals) -> None:
    """A worker that is stopped, or crashes, does not take the others with it."""
    server = servers.start(workers=2)
    victim = min(server.worker_pids())
    os.kill(victim, number)
    sha = hashlib.sha256(b"hello").hexdigest().encode()
    with server.connect() as connection:
        for n in range(30):
            data = request("/id", "POST", b"hello", {"X-Id": f"n{n}"})
            connection.send(data)
            answer = connection.receive()
            if number == signal.SIGSEGV and answer.status == 502:
                continue
            assert answer.status == 200
            assert answer.get(b"x-id") == f"n{n}".encode()
            assert sha in answer.body
    if number == signal.SIGSTOP:
        os.kill(victim, signal.SIGCONT)
