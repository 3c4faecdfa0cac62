"""What the bus costs in system calls under load, and that it costs nothing at rest."""

from __future__ import annotations

import bisect
import os
import re
import selectors
import shutil
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .harness import Servers, voluntary_switches
from .http1 import Connection, Parser, request

CLIENTS = 64
HALF = 32  # of the requests that wait on a connection
SLICES = 15
SECONDS = 0.4  # each, or longer
LEAST = 200  # requests in each, however slow the machine is
BUDGET = 0.2  # calls per request, on each side
TRACED = "read,write,epoll_wait,epoll_pwait,epoll_pwait2"
EVENTFD = "anon_inode:[eventfd]"


@dataclass
class Slice:
    """How many requests were answered between two times of the clock."""

    began: float
    ended: float = 0.0
    answered: int = 0


def saturate(address: tuple[str, int], slices: int) -> list[Slice]:
    """Requests on 64 connections, each of which has more of them waiting than it can get answered
    before we come to look: however little of the processor we get, the server is never idle."""
    data = request("/")
    done: list[Slice] = []
    with selectors.DefaultSelector() as selector:
        sockets = [socket.create_connection(address) for _ in range(CLIENTS)]
        length = answer_length(address, data)
        pending = dict.fromkeys(sockets, 0)  # bytes of answers to the current half
        for s in sockets:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.sendall(2 * HALF * data)
            s.setblocking(False)
            selector.register(s, selectors.EVENT_READ, s)
        now = Slice(time.time())
        while len(done) < slices:
            if time.time() >= now.began + SECONDS and now.answered >= LEAST:
                now.ended = time.time()
                done.append(now)
                now = Slice(now.ended)
            for key, _ in selector.select(1):
                s = key.data
                came = len(s.recv(65536)) or pytest.fail("the server closed a connection")
                now.answered += (pending[s] + came) // length - pending[s] // length
                pending[s] += came
                while pending[s] >= HALF * length:
                    pending[s] -= HALF * length
                    s.sendall(HALF * data)
        for s in sockets:
            s.close()
    return done


def answer_length(address: tuple[str, int], data: bytes) -> int:
    with Connection(address) as connection:
        connection.send(data)
        raw, parser = b"", Parser()
        while True:
            part = connection.socket.recv(65536)
            raw += part
            if parser.feed(part):
                assert parser.answer is not None
                assert parser.answer.status == 200
                return len(raw)


@dataclass
class Calls:
    """What one process did while the load ran."""

    eventfd_reads: int = 0
    eventfd_writes: int = 0
    returns: Counter[str] = field(default_factory=Counter)  # of epoll: bus, mixed, other, empty

    @property
    def of_the_bus(self) -> int:
        return self.eventfd_reads + self.eventfd_writes + self.returns["bus"]


CALL = re.compile(r"(\d+\.\d+) (\w+)\((\d+)<([^>]*)>")
DATA = re.compile(r"u64=(\d+)|data=(0x[0-9a-f]+)")


class Watcher(threading.Thread):
    """Notes, as long as it runs, which data of an epoll belong to which kind of descriptor."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.pids = pids
        self.kinds: dict[tuple[int, int, int], str] = {}  # (pid, epoll, data) -> what it is
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.3):
            self.look()

    def look(self) -> None:
        for pid in self.pids:
            for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
                with suppress(OSError):
                    for line in entry.read_text().splitlines():
                        found = re.match(r"tfd:\s*(\d+) events:\s*\w+ data:\s*([0-9a-f]+)", line)
                        if found:
                            what = os.readlink(f"/proc/{pid}/fd/{found[1]}")
                            self.kinds[pid, int(entry.name), int(found[2], 16)] = what


def calls_of(
    pid: int, threads: list[int], prefix: Path, slices: list[Slice], watcher: Watcher
) -> list[Calls]:
    """Reads strace's files of one process' threads; what it did in each slice of time."""
    all_calls = [Calls() for _ in slices]
    begins = [one.began for one in slices]
    for line in lines_of(threads, prefix):
        found = CALL.match(line)
        if not found or not begins[0] <= float(found[1]) < slices[-1].ended:
            continue
        calls = all_calls[bisect.bisect_right(begins, float(found[1])) - 1]
        name, fd, what = found[2], int(found[3]), found[4]
        if name == "read" and what == EVENTFD:
            calls.eventfd_reads += 1
        elif name == "write" and what == EVENTFD:
            calls.eventfd_writes += 1
        elif name.startswith("epoll") and (result := re.search(r"= (-?\d+)", line)):
            data = [int(a or b, 0) for a, b in DATA.findall(line)]
            if int(result[1]) <= 0:
                calls.returns["empty"] += 1
                continue
            kinds = [watcher.kinds.get((pid, fd, d), "unknown") for d in data[: int(result[1])]]
            assert kinds, f"an epoll return without data: {line}"
            bus = [kind == EVENTFD for kind in kinds]
            calls.returns["bus" if all(bus) else "mixed" if any(bus) else "other"] += 1
            calls.returns["unknown"] += kinds.count("unknown")
    return all_calls


def lines_of(threads: list[int], prefix: Path) -> Iterator[str]:
    for thread in threads:
        path = prefix.with_name(f"{prefix.name}.{thread}")
        if path.exists():
            yield from path.read_text(errors="replace").splitlines()


def threads_of(pid: int) -> list[int]:
    return [int(t.name) for t in Path(f"/proc/{pid}/task").iterdir()]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_system_calls_of_the_bus_under_load(servers: Servers, tmp_path: Path, loop: str) -> None:
    """The handler does next to nothing: this is about the bus. With handlers that take tens of
    microseconds each answer is worth a wake-up, and gets one."""
    for side, calls, slices in trace(servers, tmp_path / "trace", loop):
        each = [one.of_the_bus / s.answered for one, s in zip(calls, slices, strict=True)]
        # A moment in which the machine keeps everybody from working in batches says nothing.
        usual = statistics.median(each)
        print(f"{loop}: {side} {usual:.3f} per request, {min(each):.3f} to {max(each):.3f}")
        assert usual < BUDGET, f"{side}: {usual:.3f} calls per request: {each}, {sum_of(calls)}"


def trace(servers: Servers, prefix: Path, loop: str) -> list[tuple[str, list[Calls], list[Slice]]]:
    """The calls of engine and worker while so many requests were answered."""
    strace = shutil.which("strace")
    assert strace, "strace is needed for this test: apt install strace"
    # Seccomp stops only the calls that are looked at: the rest run at their usual speed.
    wrapper = [strace, "-ff", "--seccomp-bpf", "-qq", "-ttt", "-y", "-s", "0", "-v"]
    wrapper += ["-e", f"trace={TRACED}", "-e", "signal=none", "-o", str(prefix)]
    server = servers.start("app:plain", workers=1, loop=loop, wrapper=wrapper, events=False)
    pids = [server.pid, *server.worker_pids()]
    assert len(pids) == 2
    saturate(server.address, 2)  # warms up
    watcher = Watcher(pids)
    watcher.start()
    threads = [threads_of(pid) for pid in pids]
    slices = saturate(server.address, SLICES)
    watcher.done.set()
    watcher.join()
    assert server.stop() == 0, server.said()
    engine, worker = (
        calls_of(pid, own, prefix, slices, watcher) for pid, own in zip(pids, threads, strict=True)
    )
    # The trace has seen what it is about: epoll on both sides, and its events were recognised.
    returns = sum_of(engine).returns
    assert returns["other"] + returns["mixed"] > 100
    for calls in (sum_of(engine), sum_of(worker)):
        assert calls.returns.total() > 0
        assert calls.returns["unknown"] < 0.01 * calls.returns.total() + 5, calls
        assert calls.of_the_bus > 0, "not one wake-up was traced"
    return [("engine", engine, slices), ("worker", worker, slices)]


def sum_of(calls: list[Calls]) -> Calls:
    total = Calls()
    for one in calls:
        total.eventfd_reads += one.eventfd_reads
        total.eventfd_writes += one.eventfd_writes
        total.returns += one.returns
    return total


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_nobody_wakes_up_at_rest(servers: Servers, loop: str) -> None:
    """200 connections that wait for their next request, one stream that waits for news."""
    server = servers.start(workers=1, loop=loop, flags=["--timeout-keep-alive", "60"])
    idle = [server.connect() for _ in range(200)]
    for connection in idle:
        assert connection.ask("/id").status == 200
    sse = server.connect()
    sse.send(request("/sse"))
    seen = b""
    while b"data: hello\n\n" not in seen:
        seen += sse.socket.recv(1000)
    pids = [server.pid, *server.worker_pids()]
    assert len(pids) == 2
    settled(pids)
    before = switches(pids)
    time.sleep(10)  # not-sync: the time that is measured
    after = switches(pids)
    told = {pid: after[pid] - before[pid] for pid in pids}
    print(f"{loop}: {told[pids[0]]} wake-ups of the engine, {told[pids[1]]} of the worker in 10 s")
    # All is still there, and the counters do count.
    for connection in idle:
        assert connection.ask("/id").status == 200
    assert idle[0].ask("/news").status == 200
    assert b"data: news\n\n" in sse.socket.recv(1000)
    assert sum(switches(pids).values()) > sum(after.values()) + 50
    for connection in (*idle, sse):
        connection.socket.close()
    assert sum(told.values()) <= 10, told


def switches(pids: list[int]) -> dict[int, int]:
    return {pid: voluntary_switches(pid) for pid in pids}


def settled(pids: list[int]) -> None:
    """What follows from the last request is over: nobody has woken up for half a second."""
    for _ in range(10):
        before = switches(pids)
        time.sleep(0.5)  # not-sync: the time that is measured
        if switches(pids) == before:
            return
