"""What is in the logs, and that they hold nobody up if nobody reads them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from .harness import HERE, Server, Servers, toolb, wait_until
from .http1 import Parser, request

LEFT_OUT = b"lines of the log were left out"


def status_of(path: Path, target: str) -> int:
    parser = Parser()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request(target))
        while not parser.feed(client.recv(65536)):
            pass
    assert parser.answer is not None
    return parser.answer.status


@pytest.mark.parametrize("stops", [1, 2])
@pytest.mark.parametrize(("target", "status"), [("/too-long", 200), ("/crash", 500)])
def test_a_log_that_nobody_reads(
    servers: Servers, tmp_path: Path, stops: int, target: str, status: int
) -> None:
    """Each request is in the log, of the engine or of its worker. Its pipe is full from the beginning."""
    path, pipe = tmp_path / "socket", tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        full = os.write(reader, b"." * 4096)
        wrapper = ["bash", "-c", f'exec "$@" 2>"{pipe}"', "bash"]
        server = servers.start_only(flags=["--uds", str(path)], wrapper=wrapper)
        server.await_workers()
        wait_until("it listens", path.exists)
        for _ in range(200):
            assert status_of(path, target) == status
        assert status_of(path, "/pid") == 200
        if stops == 1:
            # Somebody reads again: the next line comes with a word on those that are not there.
            assert len(os.read(reader, full)) == full

            def goes_on() -> bool:
                assert status_of(path, target) == status
                # Of lines like each other only some are written.
                with suppress(BlockingIOError):
                    return LEFT_OUT in os.read(reader, 65536)
                return False

            wait_until("the log goes on", goes_on)
            server.process.send_signal(signal.SIGTERM)
        else:
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) is not None
    finally:
        os.close(reader)


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ")
COMBINED = re.compile(
    r"(?P<peer>\S+) - - \[(?P<time>\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<bytes>\d+) "(?P<referer>[^"]*)" '
    r'"(?P<agent>[^"]*)" (?P<seconds>\d+\.\d{6})'
)


def test_each_line_of_the_log_begins_with_the_time(servers: Servers) -> None:
    server = servers.start(flags=["--log-level", "debug"])
    with server.connect() as connection:
        assert connection.ask("/too-long").status == 200
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_until("the end was told", lambda: "another starts" in server.said())
    server.stop()
    without = [line for line in server.lines if not TIME.match(line)]
    assert server.lines, server.said()
    assert not without, server.said()


def test_what_clients_can_cause_at_will_is_counted(servers: Servers) -> None:
    server = servers.start()
    fault = "toolb error: GET /too-long?n=1: the response is longer than its Content-Length"

    def ask() -> None:
        with server.connect() as connection:
            assert connection.ask("/too-long?n=1").status == 200

    for _ in range(300):
        ask()
    wait_until("it was told", lambda: fault in server.said())
    told = server.said().count(fault)
    assert 1 <= told <= 100, told

    def counted() -> bool:
        ask()
        return " more like it before)" in server.said()

    wait_until("the others were counted", counted)


def test_a_person_at_a_terminal_is_spared_the_time() -> None:
    ours, theirs = pty.openpty()
    command = [toolb(), "run", "app:nothing", "--port", "0"]
    process = subprocess.Popen(command, cwd=HERE, stderr=theirs, start_new_session=True)
    os.close(theirs)
    assert process.wait(30) == 3
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert said.startswith("toolb error: cannot start: "), said


def test_the_access_log_is_in_the_combined_format(servers: Servers) -> None:
    server = servers.start(flags=["--access-log"])
    headers = {"Referer": "http://there/?a=1", "User-Agent": 'a "browser"\\', "X-Id": "one"}
    with server.connect() as connection:
        answer = connection.ask("/sleep?ms=20", headers=headers)
        assert answer.status == 200
        connection.send(request("/sleep?ms=20", method="HEAD", headers={"X-Id": "two"}))
        assert connection.receive("HEAD").status == 200
    with server.connect() as connection:
        connection.send(b"nonsense\r\n\r\n")
        assert connection.receive().status == 400
    with server.connect() as connection:
        connection.send(request("/sleep?ms=600000", headers={"X-Id": "gone"}))
        wait_until("it sleeps", lambda: "gone" in server.began())
    wait_until("all were told", lambda: server.said().count(" - - [") == 4)
    found = [m for line in server.lines if (m := COMBINED.fullmatch(line))]
    assert len(found) == 4, server.said()
    full, head, refused, gone = found
    assert {m["peer"] for m in found} == {"127.0.0.1"}
    assert full["request"] == "GET /sleep?ms=20 HTTP/1.1"
    assert (full["status"], full["bytes"]) == ("200", str(len(b"one")))
    assert full["referer"] == "http://there/?a=1"
    assert full["agent"] == r"a \x22browser\x22\x5C"
    assert float(full["seconds"]) >= 0.02
    assert (head["request"], head["bytes"]) == ("HEAD /sleep?ms=20 HTTP/1.1", "0")
    assert (head["referer"], head["agent"]) == ("-", "-")
    assert (refused["request"], refused["status"]) == ("-", "400")
    assert (gone["request"], gone["status"]) == ("GET /sleep?ms=600000 HTTP/1.1", "499")


def entries(servers: Servers, count: int, *flags: str) -> tuple[Server, Callable[[], list[str]]]:
    """A server, and its access log once it has so many lines."""
    server = servers.start(flags=["--access-log", *flags])

    def lines() -> list[str]:
        wait_until("all were told", lambda: server.said().count(" - - [") >= count)
        return [line for line in server.lines if " - - [" in line]

    return server, lines


def test_lines_that_find_no_room_are_told_of_once_a_second(servers: Servers) -> None:
    wrapper = ["bash", "-c", '"$@" > /dev/full; exit $?', "bash"]
    server = servers.start(flags=["--access-log"], wrapper=wrapper)
    began = time.monotonic()
    for number in range(50):
        with server.connect() as connection:
            assert connection.ask("/pid").status == 200
        if number == 0:
            wait_until("the first is told of", lambda: "1 line of the access" in server.said())
    assert server.stop() == 0
    most = 1 + (time.monotonic() - began)
    told = re.findall(
        r"(\d+) lines? of the access log (?:was|were) dropped, as (?:it|they) could not be written to "
        r"standard output: No space left on device",
        server.said(),
    )
    # And what was not told of before is at the end.
    assert 2 <= len(told) <= most + 1, server.said()
    assert sum(map(int, told)) == 50, server.said()


def test_a_refused_request_keeps_its_line_and_its_time(servers: Servers) -> None:
    flags = ["--limit-request-body", "1KiB", "--timeout-request-header", "3s"]
    server, lines = entries(servers, 4, *flags)
    for head, status in (
        (b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n", 413),
        (b"GET /bad HTTP/1.1\r\nhost: x\r\nbad field: x\r\n\r\n", 400),
        (b"GET /slow HTTP/1.1\r\nhost:", 408),
        (b"GET /two words HTTP/1.1\r\n\r\n", 400),
    ):
        with server.connect() as connection:
            connection.send(head)
            assert connection.receive().status == status
    found = [m for line in lines() if (m := COMBINED.fullmatch(line))]
    told = [(m["request"], m["status"]) for m in found]
    assert told == [
        ("POST /large HTTP/1.1", "413"),
        ("GET /bad HTTP/1.1", "400"),
        ("GET /slow HTTP/1.1", "408"),
        ("-", "400"),
    ]
    assert float(found[2]["seconds"]) >= 3


def test_responses_that_did_not_come_to_their_end_are_marked(servers: Servers) -> None:
    server, lines = entries(servers, 3)
    target = "/stream?size=100000&parts=10&gap=600000"
    with server.connect() as connection:
        assert connection.ask("/pid").status == 200
        connection.send(request(target, headers={"X-Id": "leaves"}))
        connection.await_head()
    wait_until("it was noticed", lambda: server.said().count(" - - [") >= 2)
    with server.connect() as connection:
        connection.send(request(target, headers={"X-Id": "is-cut"}))
        connection.await_head()
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        connection.until_closed()
    ends = []
    for line in lines():
        found = COMBINED.match(line)
        assert found, line
        assert found["status"] == "200"
        ends.append(line[found.end() :])
    assert ends == ["", " left", " cut"]
