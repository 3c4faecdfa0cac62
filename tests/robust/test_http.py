"""Connections as clients use them: pipelining, odd segments, HTTP/1.0, HEAD, 100-continue, timeouts."""

from __future__ import annotations

import json
import select
import socket
import time

import pytest

from .harness import Server, Servers, wait_until
from .http1 import Answer, Connection, Parser, request
from .payload import marked


def own_id(answer: Answer) -> str:
    return (answer.get(b"x-id") or b"").decode()


def quiet(connection: Connection, seconds: float = 0.3) -> bool:
    """Nothing comes, and the connection stays."""
    return not connection.rest and not select.select([connection.socket], [], [], seconds)[0]


# Pipelining.


@pytest.mark.parametrize("count", [2, 16, 17, 200])
def test_pipelined_requests_are_answered_in_order(two: Server, count: int) -> None:
    """Two workers and requests of different length: only an orderly server keeps the order."""
    delays = [(7 * n) % 5 for n in range(count)]
    with two.connect() as connection:
        connection.send(
            b"".join(
                request(f"/sleep?ms={delays[n]}", headers={"X-Id": f"p{n}"}) for n in range(count)
            )
        )
        got = [connection.receive() for _ in range(count)]
        assert [a.status for a in got] == [200] * count
        assert [own_id(a) for a in got] == [f"p{n}" for n in range(count)]
        assert [a.body for a in got] == [f"p{n}".encode() for n in range(count)]
        assert quiet(connection, 0.05)


def test_pipelined_requests_with_bodies(two: Server) -> None:
    sizes = [0, 1, 70_000, 3, 200_000, 0, 16_384]
    with two.connect() as connection:
        data = b"".join(
            request("/whole", "POST", marked(f"b{n}", size), {"X-Id": f"b{n}"}, chunks=n % 3)
            for n, size in enumerate(sizes)
        )
        connection.send(data)
        for n, size in enumerate(sizes):
            answer = connection.receive()
            assert (answer.status, own_id(answer)) == (200, f"b{n}")
            assert answer.body == marked(f"b{n}", size)


def test_nothing_after_a_close_is_answered(one: Server) -> None:
    before = len(one.began())
    with one.connect() as connection:
        last = request("/id", headers={"X-Id": "last", "Connection": "close"})
        connection.send(last + request("/id", headers={"X-Id": "late"}))
        answer = connection.receive()
        assert own_id(answer) == "last"
        assert answer.closes
        assert connection.until_closed() == b""
    with one.connect() as connection:
        connection.ask("/id", headers={"X-Id": "check"})
    assert one.began()[before:] == ["last", "check"]


def test_a_body_that_nobody_reads_is_not_the_next_request(one: Server) -> None:
    """The application ignores its body, which looks like a request."""
    trap = request("/id", headers={"X-Id": "trap"})
    before = len(one.began())
    for chunks in (0, 2):
        with one.connect() as connection:
            connection.send(request("/ignore", "POST", trap, {"X-Id": "first"}, chunks=chunks))
            connection.send(request("/id", headers={"X-Id": "second"}))
            first = connection.receive()
            assert own_id(first) == "first"
            if not first.closes:
                assert own_id(connection.receive()) == "second"
            else:
                assert connection.until_closed() == b""
    assert "trap" not in one.began()[before:]


# Segments.


def test_a_request_may_be_cut_anywhere(one: Server) -> None:
    length = request("/whole?x=1", "POST", b"hello", {"X-Id": "cut"})
    coded = request("/whole?x=1", "POST", b"hello, world", {"X-Id": "cut"}, chunks=3)
    for data in (length, coded):
        with one.connect() as connection:
            for at in range(1, len(data)):
                connection.send(data[:at])
                connection.send_more(data[at:])
                answer = connection.receive()
                assert (answer.status, own_id(answer)) == (200, "cut"), data[:at]
                assert answer.body in (b"hello", b"hello, world")


def test_a_request_may_come_byte_by_byte(one: Server) -> None:
    data = request("/whole", "POST", b"hello, world", {"X-Id": "slow"}, chunks=3)
    with one.connect() as connection:
        for at in range(len(data)):
            connection.send_more(data[at : at + 1])
        answer = connection.receive()
    assert (answer.status, answer.body, own_id(answer)) == (200, b"hello, world", "slow")


def test_half_a_close_gets_a_whole_answer_or_none(one: Server) -> None:
    """A client that ends its side cannot be told from one that has left, so that it may be taken
    for one; but never is the answer half there, and the connection ends."""
    with one.connect() as connection:
        connection.send(request("/sleep?ms=100", headers={"X-Id": "half"}))
        connection.socket.shutdown(socket.SHUT_WR)
        data = connection.until_closed()
    if data:
        parser = Parser()
        assert parser.feed(data)
        assert parser.answer is not None
        assert (parser.answer.status, parser.answer.body) == (200, b"half")


def test_half_a_request_is_no_request(one: Server) -> None:
    before = len(one.began("COMPLETE"))
    data = request("/whole", "POST", b"hello", {"X-Id": "half"})
    for at in (1, 10, len(data) - 10, len(data) - 1):
        with one.connect() as connection:
            connection.send(data[:at])
            connection.socket.shutdown(socket.SHUT_WR)
            sent = connection.until_closed()
            assert not sent.startswith(b"HTTP/1.1 200"), data[:at]
    with one.connect() as connection:
        connection.ask("/whole", "POST", body=b"", headers={"X-Id": "check"})
    assert one.began("COMPLETE")[before:] == ["check"]


# HTTP/1.0.


def test_http_1_0_closes_unless_asked_to_stay(one: Server) -> None:
    with one.connect() as connection:
        answer = connection.ask("/whole", version="1.0")
        assert (answer.status, answer.closes) == (200, True)
        assert connection.until_closed() == b""
    with one.connect() as connection:
        for _ in range(2):
            answer = connection.ask("/whole", version="1.0", headers={"Connection": "keep-alive"})
            assert answer.status == 200
            assert (answer.get(b"connection") or b"").lower() == b"keep-alive"


def test_http_1_0_knows_no_chunks(one: Server) -> None:
    with one.connect() as connection:
        connection.send(request("/stream?size=100000", version="1.0", headers={"X-Id": "old"}))
        answer = connection.receive()
        assert answer.get(b"transfer-encoding") is None
        assert answer.body == marked("old", 100_000)


def test_http_1_0_needs_no_host(one: Server) -> None:
    with one.connect() as connection:
        connection.send(b"GET /id HTTP/1.0\r\nX-Id: old\r\n\r\n")
        assert json.loads(connection.receive().body)["version"] == "1.0"


# HEAD.


@pytest.mark.parametrize("path", ["/whole", "/stream?size=50000", "/stream?size=50000&length=1"])
def test_head_has_the_fields_and_no_body(one: Server, path: str) -> None:
    with one.connect() as connection:
        for _ in range(2):
            answer = connection.ask(path, "HEAD", headers={"X-Id": "head"})
            assert (answer.status, own_id(answer), answer.body) == (200, "head", b"")
            if "length=1" in path:
                assert answer.get(b"content-length") == b"50000"
            assert quiet(connection, 0.05)
        assert own_id(connection.ask("/id", headers={"X-Id": "after"})) == "after"


# Expect.


def test_continue_is_sent_when_the_application_reads(one: Server) -> None:
    head, body = request("/whole", "POST", b"hello", {"Expect": "100-continue"}).split(b"\r\n\r\n")
    with one.connect() as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        assert connection.receive().body == b"hello"
        assert quiet(connection, 0.05)


def test_continue_is_not_sent_when_nobody_reads(one: Server) -> None:
    head = request("/ignore", "POST", b"hello", {"X-Id": "no", "Expect": "100-continue"})
    with one.connect() as connection:
        connection.send(head.removesuffix(b"hello"))
        answer = connection.receive()
        assert (answer.status, answer.interim, own_id(answer)) == (200, [], "no")
        if not answer.closes:
            # The body may come or not; only its sender knows. What follows is taken as the body.
            connection.send(b"hello" + request("/id", headers={"X-Id": "next"}))
            assert own_id(connection.receive()) == "next"


def test_a_body_that_is_there_needs_no_continue(one: Server) -> None:
    with one.connect() as connection:
        data = request("/whole", "POST", b"hello", {"Expect": "100-continue"})
        connection.send(data)
        answer = connection.receive()
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer.interim in ([], [100])


# Answers.


def test_a_failing_application_is_a_500_and_no_more(one: Server) -> None:
    with one.connect() as connection:
        answer = connection.ask("/crash")
        assert answer.status == 500
        assert b"Traceback" not in answer.body
        assert b"always fails" not in answer.body
    with one.connect() as connection:
        assert connection.ask("/id").status == 200


def test_a_client_that_leaves_is_noticed(one: Server) -> None:
    before = len(one.began("GONE"))
    with one.connect() as connection:
        connection.send(request("/sse?name=leaver", headers={"X-Id": "leaver"}))
        seen = b""
        while b"data: hello\n\n" not in seen:
            seen += connection.socket.recv(1000)
    wait_until("the application heard of it", lambda: "leaver" in one.began("GONE")[before:])


# Time.


def test_an_idle_connection_is_closed(servers: Servers) -> None:
    server = servers.start(flags=["--timeout-keep-alive", "4"])
    with server.connect() as connection:
        for _ in range(2):
            began = time.monotonic()
            assert connection.ask("/id").status == 200
            assert quiet(connection, 0.5)
        assert connection.until_closed() == b""
        assert time.monotonic() - began > 3.5


def test_a_busy_connection_is_not_idle(servers: Servers) -> None:
    """Neither the time of the application nor that of a slow answer counts."""
    server = servers.start(flags=["--timeout-keep-alive", "3"])
    with server.connect() as connection:
        assert connection.ask("/sleep?ms=3500", headers={"X-Id": "a"}).body == b"a"
        answer = connection.ask("/stream?size=1000&parts=6&gap=700", headers={"X-Id": "b"})
        assert answer.body == marked("b", 1000)


def test_a_head_that_never_ends_is_given_up(servers: Servers) -> None:
    server = servers.start(flags=["--timeout-request-header", "1"])
    began = time.monotonic()
    with server.connect() as connection:
        connection.send(b"GET /id HTTP/1.1\r\nHost: test\r\nX-Drip: ")
        while (
            time.monotonic() - began < 20 and not select.select([connection.socket], [], [], 0.2)[0]
        ):
            connection.send(b"x")  # one byte after the other does not help
        sent = connection.until_closed()
        assert time.monotonic() - began > 0.5
        assert sent == b"" or sent.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_never_comes_is_given_up(servers: Servers) -> None:
    server = servers.start(flags=["--timeout-request-body", "1"])
    began = time.monotonic()
    with server.connect() as connection:
        connection.send(request("/whole", "POST", b"hello").removesuffix(b"ello"))
        answer = connection.receive()
        assert time.monotonic() - began > 0.5
        assert (answer.status, answer.closes) == (408, True)


def test_an_application_that_takes_too_long(servers: Servers) -> None:
    server = servers.start(flags=["--timeout-response", "3"])
    with server.connect() as connection:
        # One that nobody has begun in time is not what this is about.
        while "late" not in server.began():
            began = time.monotonic()
            answer = connection.ask("/sleep?gate=go", headers={"X-Id": "late"})
            assert time.monotonic() - began > 2.5
            assert answer.status == 504
    server.open_gate("go")
    with server.connect() as connection:
        # The late answer, when it comes, goes to nobody.
        asked = 0
        while asked < 20 or "late" not in server.began("END"):
            own = f"n{asked}"
            assert own_id(connection.ask("/sleep?ms=20", headers={"X-Id": own})) == own
            asked += 1
