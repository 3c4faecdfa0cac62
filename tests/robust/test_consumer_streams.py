"""Raw connections served by consumers in C, behind `toolb serve`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from . import native
from .harness import Server, Servers, descriptors, peak_rss, reset_peak, wait_until
from .payload import payload

MIB = 1 << 20
RAW = re.compile(r"tcp://([\d.]+):(\d+)")


class Scene:
    """An engine with a port for streams, and consumers that were started by hand."""

    def __init__(self, servers: Servers, directory: Path, *options: str) -> None:
        self.bus = directory / "bus"
        self.consumers: list[subprocess.Popen[bytes]] = []
        command = [str(native.built() / "toolb"), "serve", "--bus", str(self.bus), "--port", "0"]
        command += ["--io-threads", "2", "--stream-port", "0", "--no-access-log", *options]
        self.server: Server = servers.start(program=command, events=False)
        found = RAW.search(self.server.said())
        assert found, self.server.said()
        self.address = (found[1], int(found[2]))

    def consume(self, streams: int) -> int:
        """Starts a consumer that takes so many streams; its process."""
        command = native.command("consumer_streams", str(self.bus), str(streams))
        self.consumers.append(subprocess.Popen(command))
        count = sum(consumer.poll() is None for consumer in self.consumers)
        wait_until("it had attached", lambda: f"to {count} consumer" in self.server.said())
        return self.consumers[-1].pid

    def dial(self) -> socket.socket:
        connection = socket.create_connection(self.address, timeout=20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.kill()
            consumer.wait()


@pytest.fixture
def scene(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(servers, tmp_path_factory.mktemp("b"))
    yield scene
    scene.close()


@pytest.fixture
def impatient(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One that tells of clients that say nothing for a tenth of a second."""
    scene = Scene(servers, tmp_path_factory.mktemp("b"), "--timeout-stream-idle", "100ms")
    yield scene
    scene.close()


def receive(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)


def ping(connection: socket.socket, text: bytes = b"ping") -> None:
    connection.sendall(text)
    assert receive(connection, len(text)) == text


def pid_of(connection: socket.socket) -> int:
    """Which consumer serves it."""
    connection.sendall(b"pid")
    return int(connection.recv(32))


def is_open(address: tuple[str, int]) -> bool:
    with socket.socket() as late:
        return late.connect_ex(address) == 0


def was_reset(connection: socket.socket) -> bool:
    try:
        connection.recv(1)
    except ConnectionResetError:
        return True
    return False


def test_every_misuse_is_answered_by_a_status() -> None:
    command = native.command("consumer_streams", "misuse")
    subprocess.run(command, check=True, timeout=60)


def test_many_connections_are_echoed(scene: Scene) -> None:
    pids = {scene.consume(150), scene.consume(150)}
    connections = [scene.dial() for _ in range(200)]
    for turn in range(3):
        for n, connection in enumerate(connections):
            connection.sendall(b"%d of %d\n" % (turn, n))
        for n, connection in enumerate(connections):
            expected = b"%d of %d\n" % (turn, n)
            assert receive(connection, len(expected)) == expected
    assert {pid_of(connection) for connection in connections} == pids
    with scene.server.connect() as web:
        assert int(web.ask("/").body) in pids
    # The consumer ends one, resets another; of the rest, each client ends its own side first.
    connections[0].sendall(b"close")
    assert receive(connections[0], 9) == b"bye"
    connections[1].sendall(b"abort")
    assert was_reset(connections[1])
    for connection in connections[2:]:
        connection.sendall(b"last")
        connection.shutdown(socket.SHUT_WR)
        assert receive(connection, 9) == b"last"
    for connection in connections:
        connection.close()


def test_streams_go_to_those_who_take_them(scene: Scene) -> None:
    plain = scene.consume(0)
    waiting = scene.dial()
    waiting.sendall(b"pid")
    with scene.server.connect() as web:
        assert int(web.ask("/").body) == plain
    taker = scene.consume(2)
    assert int(waiting.recv(32)) == taker
    second = scene.dial()
    assert pid_of(second) == taker
    # No more than it said, until one has ended; requests do not mind.
    third = scene.dial()
    third.sendall(b"pid")
    with scene.server.connect() as web:
        for _ in range(20):
            assert int(web.ask("/").body) in (plain, taker)
    third.setblocking(False)
    with pytest.raises(BlockingIOError):
        third.recv(1)
    third.settimeout(20)
    waiting.close()
    assert int(third.recv(32)) == taker
    second.close()
    third.close()


def test_a_slow_peer_costs_no_memory(scene: Scene) -> None:
    """It sends and does not read: the echo waits, and so does its sender; others go on."""
    consumer = scene.consume(100)
    total = 48 * MIB
    block = payload(MIB)
    with scene.dial() as other, scene.dial() as slow:
        ping(other)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        for pid in (consumer, scene.server.pid):
            reset_peak(pid)
        before = peak_rss(consumer), peak_rss(scene.server.pid)
        sent = 0
        slow.settimeout(1.0)
        with suppress(TimeoutError):
            while sent < total:
                sent += slow.send(block[sent % MIB :])
        assert sent < total, "all was taken though none of it was read"
        for _ in range(100):
            ping(other)
        slow.settimeout(20)

        def send_rest(sent: int = sent) -> None:
            while sent < total:
                sent += slow.send(block[sent % MIB :])
            slow.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_rest)
        sender.start()
        for _ in range(total // MIB):
            assert receive(slow, MIB) == block
        assert slow.recv(1) == b""
        sender.join()
        assert peak_rss(consumer) - before[0] < 4 * 1024
        assert peak_rss(scene.server.pid) - before[1] < 4 * 1024


def test_a_dead_consumer_takes_only_its_own_connections_along(scene: Scene) -> None:
    first = scene.consume(100)
    kept = len(descriptors(scene.server.pid))
    its = [scene.dial() for _ in range(20)]
    assert {pid_of(connection) for connection in its} == {first}
    second = scene.consume(100)
    others: list[socket.socket] = []
    while len(others) < 5:
        connection = scene.dial()
        (others if pid_of(connection) == second else its).append(connection)
    stop = threading.Event()
    failures: list[BaseException] = []

    def keep_busy(connection: socket.socket) -> None:
        try:
            while not stop.is_set():
                ping(connection, payload(5000))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=keep_busy, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    os.kill(first, signal.SIGKILL)
    assert all(was_reset(connection) for connection in its)
    with scene.dial() as late:
        assert pid_of(late) == second
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    for connection in its + others:
        connection.close()
    # One consumer is there again, as at the beginning, and no connection.
    wait_until(
        "descriptors were back", lambda: len(descriptors(scene.server.pid)) <= kept, patience=20
    )


def test_a_consumer_that_sleeps_is_told_when_nothing_comes(scene: Scene) -> None:
    scene.consume(100)
    with scene.dial() as busy, scene.dial() as idle:
        for connection in (busy, idle):
            ping(connection)
        for _ in range(3):
            idle.sendall(b"soon")
            assert receive(idle, 4) == b"late"
        # Nobody else has waited for too long, and it is over for nobody.
        ping(busy)
        ping(idle)


def test_a_client_that_says_nothing_is_told_of_by_default(impatient: Scene) -> None:
    impatient.consume(100)
    with impatient.dial() as idle, impatient.dial() as other:
        for _ in range(3):
            assert receive(idle, 4) == b"late"
        other.sendall(b"later")
        assert receive(idle, 8) == b"latelate"


def test_a_client_that_has_ended_its_side_still_reads(scene: Scene) -> None:
    scene.consume(100)
    with scene.dial() as connection:
        connection.sendall(b"wait")
        connection.shutdown(socket.SHUT_WR)
        assert receive(connection, 5) == b"late"


def test_a_dead_consumer_takes_its_times_along(scene: Scene) -> None:
    first = scene.consume(100)
    its = [scene.dial() for _ in range(40)]
    for n, connection in enumerate(its):
        ping(connection)
        connection.sendall(b"later" if n % 2 else b"soon")
    assert receive(its[0], 4) == b"late"
    for connection in its[::2]:
        connection.sendall(b"soon")
    os.kill(first, signal.SIGKILL)
    for connection in its:
        with suppress(ConnectionResetError):
            # Of some the time was up before.
            while connection.recv(100):
                pass
            pytest.fail("it ended as if all was well")
        connection.close()
    scene.consumers[0].wait()
    scene.consume(100)
    with scene.dial() as late:
        ping(late)
        late.sendall(b"soon")
        assert receive(late, 4) == b"late"


def test_a_drain_lets_streams_end(scene: Scene) -> None:
    scene.consume(100)
    connections = [scene.dial() for _ in range(10)]
    for connection in connections:
        ping(connection)
    os.kill(scene.server.pid, signal.SIGTERM)
    wait_until("it was stopping", lambda: "SIGTERM" in scene.server.said())
    wait_until("nobody was let in", lambda: not is_open(scene.address))
    for connection in connections:
        ping(connection, b"still here")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        connection.close()
    assert scene.server.process.wait(20) == 0, scene.server.said()
    assert scene.consumers[0].wait(20) == 0
