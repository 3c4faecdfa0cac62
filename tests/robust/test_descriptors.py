"""Descriptors: what stands on the standard ones, and what happens when there are no more."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from .harness import Servers, descriptors, voluntary_switches, wait_until
from .http1 import Connection, Parser, request

WARNING = "out of open files"
WARNING_PAUSE = 1.0
FEW_FILES = ["bash", "-c", 'ulimit -n 200 && "$@"; exit $?', "bash"]


def standard(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]


def ask_by_path(path: Path, own: str) -> bytes:
    """The body of an answer that came to a Unix socket."""
    parser = Parser()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request("/id", headers={"X-Id": own}))
        while not parser.feed(client.recv(65536)):
            pass
    assert parser.answer is not None
    assert parser.answer.status == 200
    return parser.answer.body


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 2], [0, 1, 2]], ids=str)
def test_standard_descriptors_that_are_not_there(
    servers: Servers, tmp_path: Path, closed: list[int]
) -> None:
    """What is opened first would take their place, and be written to by the first `print`."""
    path = tmp_path / "socket"
    closing = " ".join(f"{number}>&-" for number in closed)
    wrapper = ["bash", "-c", f'"$@" {closing}; exit $?', "bash"]
    server = servers.start_only(workers=2, flags=["--uds", str(path)], wrapper=wrapper)
    server.await_workers()
    wait_until("it listens", path.exists)
    workers = server.worker_pids()
    assert len(workers) == 2
    given = standard(server.process.pid)
    for pid in (server.pid, *workers):
        expected = ["/dev/null" if n in closed or n == 0 else given[n] for n in range(3)]
        assert standard(pid) == expected
        held = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
        assert "anon_inode:[eventfd]" in held, "it has no doorbells?"
    for number in range(20):
        assert b"c%d" % number in ask_by_path(path, f"c{number}")


@pytest.mark.timeout(120)
def test_accepting_rests_without_descriptors_and_goes_on(servers: Servers) -> None:
    server = servers.start(workers=1, flags=["--timeout-keep-alive", "100"])
    began = time.monotonic()
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    limit = len(descriptors(server.pid)) + 20
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, hard))
    # The kernel takes them all; the server takes some.
    clients = [server.connect(60) for _ in range(60)]
    for number, client in enumerate(clients):
        client.send(request("/id", headers={"X-Id": f"e{number}"}))
    wait_until("it says so", lambda: WARNING in server.said())
    before, since = voluntary_switches(server.pid), time.monotonic()
    time.sleep(1)  # not-sync: the time that is looked at
    # It looks again by a timer, ten times a second, and does not spin meanwhile.
    switches = voluntary_switches(server.pid) - before
    assert switches < 50 * (time.monotonic() - since)
    assert len(descriptors(server.pid)) <= limit
    # Those who are in leave, one after the other, and let the others in.
    for number, client in enumerate(clients):
        answer = client.receive()
        assert answer.status == 200
        assert b"e%d" % number in answer.body
        client.socket.close()
    with Connection(server.address) as connection:
        assert connection.ask("/id").status == 200
    wait_until("it goes on", lambda: "accepting goes on" in server.said())
    lines = [line for line in server.lines if WARNING in line]
    most = 1 + (time.monotonic() - began) // WARNING_PAUSE
    assert 1 <= len(lines) <= most, server.said()
    assert "ulimit -n" in lines[0]


@pytest.mark.parametrize("workers", [1, 6])
def test_workers_are_replaced_though_clients_hold_all_descriptors(
    servers: Servers, workers: int
) -> None:
    """Some are kept from clients, none of whom has to leave: enough for all workers at once."""
    server = servers.start(
        workers=workers,
        flags=["--timeout-keep-alive", "100", "--timeout-request-header", "100"],
        wrapper=FEW_FILES,
    )
    clients = [server.connect(60) for _ in range(250)]
    clients[0].send(request("/pid"))
    assert clients[0].receive().status == 200
    wait_until("it says so", lambda: WARNING in server.said())
    held = len(descriptors(server.pid))
    for deaths in (workers, 2 * workers):
        victims = server.worker_pids()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        wait_until("it is known", lambda n=deaths: server.said().count("was ended by SIGKILL") >= n)
        clients[0].send(request("/pid"))
        answer = clients[0].receive()
        assert answer.status == 200, server.said()
        assert int(answer.body) not in victims
        wait_until(
            "all have been replaced",
            lambda: (
                {*map(str, server.worker_pids())} <= {*server.began("STARTUP")}
                and len(server.worker_pids()) == workers
            ),
        )
    assert "Too many open files" not in server.said(), server.said()
    assert len(descriptors(server.pid)) >= held, "clients were sent away for it"
    for client in clients:
        client.socket.close()


@pytest.mark.parametrize(
    ("files", "flags", "told"),
    [
        (
            200,
            [],
            r"room for about \d+ clients at once, and others have to wait: .* of 200 open files",
        ),
        (1000, ["--limit-concurrency", "950"], "fewer than the 950 that limit-concurrency lets in"),
        (1000, [], None),
    ],
)
def test_a_limit_that_lets_few_in_is_told_of_at_the_start(
    servers: Servers, files: int, flags: list[str], told: str | None
) -> None:
    """With one that would do: there nothing is told."""
    wrapper = ["bash", "-c", f'ulimit -n {files} && "$@"; exit $?', "bash"]
    server = servers.start(workers=4, flags=flags, wrapper=wrapper)
    if told is None:
        assert "warning" not in server.said(), server.said()
        return
    assert re.search(f"toolb warning: .*{told}", server.said()), server.said()
    found = re.search(r"raise the limit \(ulimit -n\) to (\d+)$", server.said(), re.MULTILINE)
    assert found, server.said()
    wrapper[2] = wrapper[2].replace(str(files), found[1])
    assert "warning" not in servers.start(workers=4, flags=flags, wrapper=wrapper).said()


def test_what_is_kept_from_clients_is_not_used_up_by_and_by(servers: Servers) -> None:
    """However often one leaves, and lets in another."""
    server = servers.start(
        workers=1,
        flags=["--timeout-keep-alive", "100"],
        wrapper=FEW_FILES,
    )
    alone = len(descriptors(server.pid))
    clients = [server.connect(60) for _ in range(250)]
    for client in clients:
        client.send(request("/id"))
    wait_until("it says so", lambda: WARNING in server.said())
    most = len(descriptors(server.pid)) - alone

    def answered() -> int:
        return len(select.select([client.socket for client in clients], [], [], 0)[0])

    wait_until("all that are in are answered", lambda: answered() >= most)
    for _ in range(15):
        clients.pop(0).socket.close()
        wait_until("another is in", lambda: answered() >= most)
    assert answered() <= most + 1
    numbers = [int(entry.name) for entry in Path(f"/proc/{server.pid}/fd").iterdir()]
    assert sum(number >= 177 for number in numbers) <= 2
    for client in clients:
        client.socket.close()


def test_the_last_descriptor_of_a_client_goes_to_the_next_when_he_leaves(servers: Servers) -> None:
    """Even if all others stay, and so nothing else gets free."""
    server = servers.start(
        workers=1,
        flags=["--io-threads", "1", "--timeout-keep-alive", "100"],
        wrapper=FEW_FILES,
    )
    alone = len(descriptors(server.pid))
    clients = [server.connect(60) for _ in range(250)]
    for number, client in enumerate(clients):
        client.send(request("/id", headers={"X-Id": f"g{number}"}))
    wait_until("it says so", lambda: WARNING in server.said())
    # They come in one after the other: whoever came last has it, and all behind him wait.
    last = len(descriptors(server.pid)) - alone - 1
    for number in range(last, last + 10):
        assert b"g%d" % number in clients[number].receive().body
        clients[number].socket.close()


def test_who_waits_while_accepting_rests_is_answered_before_the_end(servers: Servers) -> None:
    """Whoever has connected was accepted, as far as a client can tell."""
    server = servers.start(workers=1)
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (len(descriptors(server.pid)), hard))
    clients = [server.connect(60) for _ in range(30)]
    for number, client in enumerate(clients):
        client.send(request("/id", headers={"X-Id": f"w{number}"}))
    wait_until("it says so", lambda: WARNING in server.said())
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    server.stop()
    for number, client in enumerate(clients):
        answer = client.receive()
        assert answer.status == 200
        assert b"w%d" % number in answer.body


def test_who_is_accepted_at_the_end_does_not_take_the_room_of_a_replacement(
    servers: Servers,
) -> None:
    """Nobody is there to answer when the stop begins, and clients wait for room."""
    server = servers.start(
        workers=1,
        flags=["--queue-timeout", "60", "--timeout-graceful-shutdown", "100"],
        wrapper=FEW_FILES,
    )
    clients = [server.connect(60) for _ in range(250)]
    wait_until("it says so", lambda: WARNING in server.said())
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_until("it is known", lambda: "was ended by SIGKILL" in server.said())
    for number, client in enumerate(clients):
        client.send(request("/id", headers={"X-Id": f"r{number}"}))
    server.stop(patience=90)
    for number, client in enumerate(clients):
        answer = client.receive()
        assert answer.status == 200, server.said()
        assert b"r%d" % number in answer.body
    assert "Too many open files" not in server.said(), server.said()
