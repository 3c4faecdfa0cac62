"""Consumers in C: bodies both ways, windows, handlers, and how they come and go."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from . import native
from .harness import Server, Servers, descriptors, peak_rss, reset_peak, wait_until
from .http1 import Connection, CutError, request
from .payload import BLOCK, marked, payload

MIB = 1 << 20


@pytest.fixture(scope="module")
def events(shared_servers: Servers) -> Server:
    """One consumer with a loop of its own, on an engine of two loops."""
    return shared_servers.start(program=native.serving("consumer", loops=2))


@pytest.fixture(scope="module")
def handler(shared_servers: Servers) -> Server:
    """One consumer that serves by toolb_consumer_run."""
    return shared_servers.start(program=native.serving("consumer", "run", loops=2))


@pytest.mark.parametrize("server", ["events", "handler"])
def test_bodies_come_back_as_they_went(server: str, request: pytest.FixtureRequest) -> None:
    served: Server = request.getfixturevalue(server)
    with served.connect() as connection:
        for chunks in (0, 3):
            for size in (0, 1, 60_000, 3 * MIB):
                for path in ("/whole", "/echo"):
                    body = marked(f"{path}{chunks}", size)
                    sender = threading.Thread(
                        target=connection.send, args=(post(path, body, chunks),)
                    )
                    sender.start()
                    answer = connection.receive("POST")
                    sender.join()
                    assert answer.status == 200
                    assert answer.body == body


def post(path: str, body: bytes, chunks: int) -> bytes:
    return request(path, "POST", body, chunks=chunks)


@pytest.mark.parametrize("server", ["events", "handler"])
def test_status_fields_and_pipelines(server: str, request: pytest.FixtureRequest) -> None:
    served: Server = request.getfixturevalue(server)
    with served.connect() as connection:
        ask_many(connection)
        assert connection.ask("/forbidden").status == 403
        head = connection.ask("/x", "HEAD", headers={"X-Id": "h1"})
        assert (head.get(b"content-length"), head.body) == (b"2", b"")


def ask_many(connection: Connection) -> None:
    asked = [f"p{n}" for n in range(100)]
    connection.send(b"".join(request("/x", headers={"X-Id": own}) for own in asked))
    for own in asked:
        answer = connection.receive()
        assert (answer.get(b"x-id"), answer.body) == (own.encode(), own.encode())


def test_a_handler_closes_and_an_aborted_exchange_is_a_500(events: Server, handler: Server) -> None:
    with handler.connect() as connection:
        assert connection.ask("/close").closes
        assert connection.until_closed() == b""
    with handler.connect() as connection:
        assert connection.ask("/later").status == 500
        assert connection.ask("/x").status == 200
    with events.connect() as connection:
        assert connection.ask("/abort").status == 500


def test_a_slow_reader_costs_no_memory(events: Server) -> None:
    """The consumer is told to wait when the window is used up, and goes on when there is room."""
    worker = events.worker_pids()[0]
    reset_peak(worker)
    before = peak_rss(worker)
    with events.connect() as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.send(request("/stream?size=67108864&parts=1000", headers={"X-Id": "s"}))
        answer = connection.receive()
    assert answer.body == marked("s", BLOCK) + payload(BLOCK) * 1023
    assert peak_rss(worker) - before < 4 * 1024


def test_an_echo_that_nobody_reads_stops_its_sender(events: Server) -> None:
    """What comes back finds no room, so no more of the body is asked for: it piles up nowhere."""
    worker = events.worker_pids()[0]
    reset_peak(worker)
    before = peak_rss(worker)
    total = 32 * MIB
    with events.connect() as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head = f"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {total}\r\n\r\n"
        connection.send(head.encode())
        connection.socket.settimeout(1.0)
        sent = 0
        block = marked("e", BLOCK)
        with suppress(TimeoutError):
            while sent < total:
                sent += connection.socket.send(block[sent % BLOCK :])
        assert sent < total, "the whole body was taken though none of it was read"
        assert peak_rss(worker) - before < 4 * 1024
        connection.socket.settimeout(20)
        rest = threading.Thread(target=send_rest, args=(connection, block, sent, total))
        rest.start()
        answer = connection.receive("POST")
        rest.join()
        assert len(answer.body) == total
        assert answer.body == block * (total // BLOCK)
    assert peak_rss(worker) - before < 4 * 1024


def send_rest(connection: Connection, block: bytes, sent: int, total: int) -> None:
    while sent < total:
        sent += connection.socket.send(block[sent % BLOCK :])


def test_files_are_sent_as_a_whole_and_in_parts(events: Server) -> None:
    content = payload(5 * MIB)
    (events.directory / "served").write_bytes(content)
    kept = len(descriptors(events.pid)), len(descriptors(events.worker_pids()[0]))
    with events.connect() as connection:
        for query, expected in (
            ("", content),
            ("?offset=5000000", content[5_000_000:]),
            ("?offset=100&length=300000", content[100:300_100]),
            ("?length=0", b""),
        ):
            connection.send(request(f"/file{query}"))
            answer = connection.receive()
            assert answer.status == 200
            assert answer.body == expected
        connection.send(request("/file") * 20)
        for _ in range(20):
            assert connection.receive().body == content
        head = connection.ask("/file", "HEAD")
        assert head.get(b"content-length") == b"%d" % len(content)
    wait_until(
        "all files were closed",
        lambda: (
            len(descriptors(events.pid)) <= kept[0]
            and len(descriptors(events.worker_pids()[0])) <= kept[1]
        ),
    )


def test_a_slow_reader_of_a_file_costs_no_memory(events: Server) -> None:
    size = 64 * MIB
    with (events.directory / "served").open("wb") as file:
        file.truncate(size)
    reset_peak(events.pid)
    before = peak_rss(events.pid)
    with events.connect() as connection, events.connect() as other:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.send(request("/file"))
        first = connection.socket.recv(1)
        for _ in range(100):
            assert other.ask("/x").status == 200
        connection.rest = first
        assert len(connection.receive().body) == size
    assert peak_rss(events.pid) - before < 4 * 1024


def test_a_client_that_leaves_is_told_of(events: Server) -> None:
    for path in ("/sleep?ms=60000", "/stream?size=100000000&parts=10000"):
        with events.connect() as connection:
            own = f"gone{len(path)}"
            connection.send(request(path, headers={"X-Id": own}))
            wait_until("it had begun", lambda own=own: own in events.began())
        wait_until("it was told", lambda own=own: own in events.began("DISCONNECT"))
    with events.connect() as connection:
        assert connection.ask("/x").status == 200


def test_a_body_that_ends_early_ends_its_exchange(events: Server, handler: Server) -> None:
    for server in (events, handler):
        for n in range(3):
            with server.connect() as connection:
                own = f"early{n}"
                head = (
                    f"POST /whole HTTP/1.1\r\nHost: t\r\nX-Id: {own}\r\nContent-Length: 99\r\n\r\nx"
                )
                connection.send(head.encode())
                if server is events:
                    wait_until("it had begun", lambda own=own: own in events.began())
        with server.connect() as connection:
            assert connection.ask("/x").status == 200


@pytest.mark.parametrize("arguments", [(), ("run",)], ids=["events", "run"])
def test_a_drain_ends_consumers_well(servers: Servers, arguments: tuple[str, ...]) -> None:
    server = servers.start(program=native.serving("consumer", *arguments, workers=2), workers=2)
    with server.connect() as connection:
        connection.send(request("/sleep?ms=300", headers={"X-Id": "last"}))
        wait_until("it had begun", lambda: "last" in server.began())
        os.kill(server.pid, signal.SIGTERM)
        assert connection.receive().body == b"last"
    assert server.process.wait(20) == 0
    assert "exit" not in server.said().lower(), server.said()


@pytest.mark.parametrize(
    ("path", "arguments"), [("/stop", ("run",)), ("/leave", ())], ids=["stop", "leave"]
)
def test_a_consumer_may_leave(servers: Servers, path: str, arguments: tuple[str, ...]) -> None:
    """What it has not begun goes to the next one, which is started in its place."""
    server = servers.start(program=native.serving("consumer", *arguments))
    first = server.worker_pids()
    with server.connect() as connection:
        asked = ["a", "b", "c"]
        connection.send(request(path, headers={"X-Id": "left"}))
        assert connection.receive().body == b"left"
        for own in asked:
            connection.send(request("/x", headers={"X-Id": own}))
        assert [connection.receive().body.decode() for _ in asked] == asked
    # Until the engine has heard of it, it may have been given them all the same.
    wait_until("another took its place", lambda: server.worker_pids() not in ([], first))


def test_death_in_the_middle_of_an_upload(servers: Servers) -> None:
    server = servers.start(program=native.serving("consumer"))
    kept = len(descriptors(server.pid))
    with server.connect() as connection:
        head = "POST /upload HTTP/1.1\r\nHost: t\r\nX-Id: u\r\nContent-Length: 9999999\r\n\r\n"
        connection.send(head.encode() + b"x" * 200_000)
        wait_until("it had begun", lambda: "u" in server.began())
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        with suppress(CutError):
            assert connection.receive("POST").status == 502
    with server.connect() as connection:
        assert connection.ask("/x").status == 200
    wait_until("descriptors were back", lambda: len(descriptors(server.pid)) <= kept)


def test_every_misuse_is_answered_by_a_status(tmp_path: Path) -> None:
    """The program is consumer and client in one, and ends with 0 if all was as it expected."""
    socket_path, done = tmp_path / "socket", tmp_path / "done"
    command = native.serving("consumer_misuse", str(socket_path), str(done), uds=socket_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as engine:
        assert engine.stdout is not None
        said = []
        for line in engine.stdout:
            said.append(line.decode())
            if "another starts" in said[-1] or "cannot start" in said[-1]:
                break
        engine.terminate()
    assert "has left" in said[-1], "".join(said)
    assert done.exists()


def test_threads_with_a_consumer_each(servers: Servers, tmp_path: Path) -> None:
    """The program is there before its engine, serves on all threads at once, and ends well."""
    bus = tmp_path / "bus"
    program = native.command("consumer_threads", str(bus), "3")
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            engine = [str(native.built() / "toolb"), "serve", "--bus", str(bus), "--port", "0"]
            server = servers.start(program=engine, events=False)
            clients = [server.connect() for _ in range(3)]
            for client in clients:
                client.send(request("/meet"))
            assert sorted(client.receive().body for client in clients) == [b"0", b"1", b"2"]
            for _ in range(50):
                assert clients[0].ask("/").status == 200
            process.terminate()
            assert process.wait(20) == 0, process.stdout and process.stdout.read()
        finally:
            process.kill()
