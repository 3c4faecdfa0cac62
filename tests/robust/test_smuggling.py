"""Requests that can be read in two ways are refused, and nothing of them reaches an application.

Each malformed request is followed, in the same segment, by a well-formed one for /smuggled: a
server that loses count of where a request ends answers that one, too.
"""

from __future__ import annotations

import re

import pytest

from .harness import Server
from .http1 import Connection, MalformedError, Parser, request

H = "Host: test\r\n"
SMUGGLED = b"GET /id/smuggled HTTP/1.1\r\nHost: test\r\nX-Id: smuggled\r\n\r\n"
POST = "POST /id/refused HTTP/1.1\r\n" + H


def get(fields: str = "", line: str = "GET /id/refused HTTP/1.1", host: str = H) -> bytes:
    return f"{line}\r\n{host}{fields}\r\n".encode("latin-1")


def post(fields: str, body: str = "") -> bytes:
    return f"{POST}{fields}\r\n{body}".encode("latin-1")


def chunked(body: str, coding: str = "Transfer-Encoding: chunked\r\n") -> bytes:
    return post(coding, body)


# What is wrong with the head: the application must never hear of it.
HEADS: dict[str, tuple[bytes, set[int]]] = {
    # Length
    "two different lengths": (post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), {400}),
    "the same length twice": (post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), {400}),
    "a list of lengths": (post("Content-Length: 5, 5\r\n", "hello"), {400}),
    "a list of different lengths": (post("Content-Length: 5, 6\r\n", "hello"), {400}),
    "a negative length": (post("Content-Length: -5\r\n", "hello"), {400}),
    "a length with a plus": (post("Content-Length: +5\r\n", "hello"), {400}),
    "a length in hexadecimal": (post("Content-Length: 0x5\r\n", "hello"), {400}),
    "a length with a fraction": (post("Content-Length: 5.0\r\n", "hello"), {400}),
    "a length with an exponent": (post("Content-Length: 5e0\r\n", "hello"), {400}),
    "a length with an underscore": (post("Content-Length: 0_5\r\n", "hello"), {400}),
    "a length with a space in it": (post("Content-Length: 5 5\r\n", "hello"), {400}),
    "an empty length": (post("Content-Length:\r\n", "hello"), {400}),
    "a word for a length": (post("Content-Length: five\r\n", "hello"), {400}),
    "a length beyond 64 bits": (post("Content-Length: 18446744073709551621\r\n", "hello"), {400, 413}),
    "a length that overflows to 5": (post("Content-Length: 4294967301\r\n", "hello"), {400, 413}),
    "a length of a hundred digits": (post(f"Content-Length: {'9' * 100}\r\n", "hello"), {400, 413}),
    "a quoted length": (post('Content-Length: "5"\r\n', "hello"), {400}),
    "a superscript digit": (post("Content-Length: \xb2\r\n", "he"), {400}),
    # Length and coding
    "length, then chunked": (
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        {400},
    ),
    "chunked, then length": (
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        {400},
    ),
    "chunked and a length of 0": (
        post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        {400},
    ),
    "chunked twice": (
        chunked("0\r\n\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        {400, 501},
    ),
    "chunked, chunked": (chunked("0\r\n\r\n", "Transfer-Encoding: chunked, chunked\r\n"), {400, 501}),
    "chunked, identity": (chunked("0\r\n\r\n", "Transfer-Encoding: chunked, identity\r\n"), {400, 501}),
    "chunked, then another field with identity": (
        chunked("0\r\n\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        {400, 501},
    ),
    "gzip, chunked": (chunked("0\r\n\r\n", "Transfer-Encoding: gzip, chunked\r\n"), {400, 501}),
    "gzip alone": (chunked("0\r\n\r\n", "Transfer-Encoding: gzip\r\n"), {400, 501}),
    "identity alone": (chunked("0\r\n\r\n", "Transfer-Encoding: identity\r\n"), {400, 501}),
    "an unknown coding": (chunked("0\r\n\r\n", "Transfer-Encoding: chunky\r\n"), {400, 501}),
    "an x before chunked": (chunked("0\r\n\r\n", "Transfer-Encoding: xchunked\r\n"), {400, 501}),
    "an empty coding": (chunked("0\r\n\r\n", "Transfer-Encoding:\r\n"), {400, 501}),
    "a quoted coding": (chunked("0\r\n\r\n", 'Transfer-Encoding: "chunked"\r\n'), {400, 501}),
    "a coding with a parameter": (chunked("0\r\n\r\n", "Transfer-Encoding: chunked;a=b\r\n"), {400, 501}),
    "a coding after a vertical tab": (chunked("0\r\n\r\n", "Transfer-Encoding: \x0bchunked\r\n"), {400, 501}),
    "a coding with a zero byte": (chunked("0\r\n\r\n", "Transfer-Encoding: chunked\x00\r\n"), {400, 501}),
    "chunked in HTTP/1.0": (
        b"POST /id/refused HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    # Names of fields
    "a space before the colon": (post("Content-Length : 5\r\n", "hello"), {400}),
    "a tab before the colon": (post("Content-Length\t: 5\r\n", "hello"), {400}),
    "a space before the colon of the coding": (chunked("0\r\n\r\n", "Transfer-Encoding : chunked\r\n"), {400}),
    "a space before the name": (get(" X-Field: 1\r\n"), {400}),
    "a space before the first name": (
        b"GET /id/refused HTTP/1.1\r\n Host: test\r\nHost: test\r\n\r\n",
        {400},
    ),
    "a space in the name": (get("X Field: 1\r\n"), {400}),
    "an empty name": (get(": 1\r\n"), {400}),
    "a field without a colon": (get("X-Field\r\n"), {400}),
    "a zero byte in the name": (get("X-Fi\x00eld: 1\r\n"), {400}),
    "a control character in the name": (get("X-Fi\x01eld: 1\r\n"), {400}),
    "DEL in the name": (get("X-Fi\x7feld: 1\r\n"), {400}),
    "a Latin letter in the name": (get("X-Fi\xe9ld: 1\r\n"), {400}),
    "a bracket in the name": (get("X-Fi[eld: 1\r\n"), {400}),
    "a slash in the name": (get("X/Field: 1\r\n"), {400}),
    "a quote in the name": (get('X"Field: 1\r\n'), {400}),
    # Values of fields
    "a folded field": (get("X-Field: 1\r\n 2\r\n"), {400}),
    "a field folded by a tab": (get("X-Field: 1\r\n\t2\r\n"), {400}),
    "a folded length": (post("Content-Length:\r\n 5\r\n", "hello"), {400}),
    "a folded coding": (chunked("0\r\n\r\n", "Transfer-Encoding:\r\n chunked\r\n"), {400}),
    "a zero byte in a value": (get("X-Field: a\x00b\r\n"), {400}),
    "a bell in a value": (get("X-Field: a\x07b\r\n"), {400}),
    "an escape in a value": (get("X-Field: a\x1bb\r\n"), {400}),
    "DEL in a value": (get("X-Field: a\x7fb\r\n"), {400}),
    "a carriage return in a value": (get("X-Field: a\rb\r\n"), {400}),
    "a carriage return that hides a field": (get("X-Field: a\rX-Other: b\r\n"), {400}),
    # Ends of lines
    "the head in bare line feeds": (b"GET /id/refused HTTP/1.1\nHost: test\n\n", {400}),
    "a bare line feed after the request line": (
        b"GET /id/refused HTTP/1.1\nHost: test\r\n\r\n",
        {400},
    ),
    "a bare line feed after a field": (get("X-Field: 1\nX-Other: 2\r\n"), {400}),
    "a bare line feed that hides a length": (
        post("X-Field: 1\nContent-Length: 5\r\n", "hello"),
        {400},
    ),
    "a bare line feed at the end of the head": (
        b"GET /id/refused HTTP/1.1\r\nHost: test\r\n\n",
        {400},
    ),
    "bare carriage returns": (b"GET /id/refused HTTP/1.1\rHost: test\r\r", {400}),
    "two carriage returns": (get("X-Field: 1\r\r\n"), {400}),
    # Host
    "no host": (get(host=""), {400}),
    "no host but a length": (
        b"POST /id/refused HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        {400},
    ),
    "two hosts": (get("Host: other\r\n"), {400}),
    "the same host twice": (get("Host: test\r\n"), {400}),
    "a space in the host": (get(host="Host: te st\r\n"), {400}),
    "a path in the host": (get(host="Host: test/path\r\n"), {400}),
    "a user in the host": (get(host="Host: user@test\r\n"), {400}),
    "a list of hosts": (get(host="Host: test, other\r\n"), {400}),
    "a port that is none": (get(host="Host: test:80x\r\n"), {400}),
    "a zero byte in the host": (get(host="Host: te\x00st\r\n"), {400}),
    # The request line
    "no version": (get(line="GET /id/refused"), {400}),
    "version 0.9": (get(line="GET /id/refused HTTP/0.9"), {400, 505}),
    "version 1.2": (get(line="GET /id/refused HTTP/1.2"), {400, 505}),
    "version 2.0": (get(line="GET /id/refused HTTP/2.0"), {400, 505}),
    "version 11": (get(line="GET /id/refused HTTP/11"), {400, 505}),
    "version 1.10": (get(line="GET /id/refused HTTP/1.10"), {400, 505}),
    "version 1": (get(line="GET /id/refused HTTP/1"), {400, 505}),
    "version in lower case": (get(line="GET /id/refused http/1.1"), {400, 505}),
    "another protocol": (get(line="GET /id/refused ICAP/1.1"), {400, 505}),
    "a space at the end of the line": (get(line="GET /id/refused HTTP/1.1 "), {400}),
    "two spaces before the version": (get(line="GET /id/refused  HTTP/1.1"), {400}),
    "two spaces after the method": (get(line="GET  /id/refused HTTP/1.1"), {400}),
    "a tab after the method": (get(line="GET\t/id/refused HTTP/1.1"), {400}),
    "a space before the method": (get(line=" GET /id/refused HTTP/1.1"), {400}),
    "a space in the target": (get(line="GET /id/ref used HTTP/1.1"), {400}),
    "a zero byte in the target": (get(line="GET /id/ref\x00used HTTP/1.1"), {400}),
    "a control character in the target": (get(line="GET /id/ref\x01used HTTP/1.1"), {400}),
    "DEL in the target": (get(line="GET /id/ref\x7fused HTTP/1.1"), {400}),
    "a fragment in the target": (get(line="GET /id/refused#part HTTP/1.1"), {400}),
    "a target without a slash": (get(line="GET id/refused HTTP/1.1"), {400}),
    "no target": (get(line="GET  HTTP/1.1"), {400}),
    "a star for GET": (get(line="GET * HTTP/1.1"), {400}),
    "a colon in the method": (get(line="GE:T /id/refused HTTP/1.1"), {400}),
    "an at sign in the method": (get(line="GE@T /id/refused HTTP/1.1"), {400}),
    "a Latin letter in the method": (get(line="G\xc9T /id/refused HTTP/1.1"), {400}),
    "no method": (get(line="/id/refused HTTP/1.1"), {400}),
    "a tunnel": (get(line="CONNECT test:80 HTTP/1.1"), {400, 405, 501}),
    "a target of another scheme": (get(line="GET ftp://test/id/refused HTTP/1.1"), {400}),
    "a URL without a host": (get(line="GET http:///id/refused HTTP/1.1"), {400}),
    "a TLS client": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)), {400}),
    "HTTP/2 without being asked": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    # Too much
    "a long request line": (get(line=f"GET /id/{'x' * 9000} HTTP/1.1"), {414}),
    "a long method": (get(line=f"{'G' * 9000} /id/refused HTTP/1.1"), {400, 414, 501}),
    "a large head": (get(f"X-Field: {'x' * 20_000}\r\n"), {431}),
    "a long name": (get(f"{'x' * 20_000}: 1\r\n"), {431}),
    "too many fields": (get("".join(f"X-{n}: 1\r\n" for n in range(101))), {431}),
    "a body over the limit": (post("Content-Length: 104857601\r\n"), {413}),
    "an unknown expectation": (get("Expect: a-miracle\r\n"), {400, 417}),
}  # fmt: skip

# What is wrong with the body: the head was right, so an application may have heard of the request;
# it must not take the body for a whole one.
BODIES: dict[str, bytes] = {
    "a chunk size that is none": chunked("g\r\nhello\r\n0\r\n\r\n"),
    "an empty chunk size": chunked("\r\nhello\r\n0\r\n\r\n"),
    "a negative chunk size": chunked("-5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a plus": chunked("+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with 0x": chunked("0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with an underscore": chunked("0_5\r\nhello\r\n0\r\n\r\n"),
    "a space before the chunk size": chunked(" 5\r\nhello\r\n0\r\n\r\n"),
    "a space after the chunk size": chunked("5 \r\nhello\r\n0\r\n\r\n"),
    "a tab after the chunk size": chunked("5\t\r\nhello\r\n0\r\n\r\n"),
    "a chunk size that overflows to 5": chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "a chunk size beyond the limit": chunked("fffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "a chunk size of many zeros": chunked("0" * 10_000 + "5\r\nhello\r\n0\r\n\r\n"),
    "a bare line feed after the chunk size": chunked("5\nhello\r\n0\r\n\r\n"),
    "a bare carriage return after the chunk size": chunked("5\rhello\r\n0\r\n\r\n"),
    "a bare line feed after the chunk": chunked("5\r\nhello\n0\r\n\r\n"),
    "a chunk longer than its size": chunked("5\r\nhello!\r\n0\r\n\r\n"),
    "no line end after the chunk": chunked("5\r\nhello0\r\n\r\n"),
    "other bytes for the line end": chunked("5\r\nhelloXX0\r\n\r\n"),
    "a bare line feed in an extension": chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "a carriage return in an extension": chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "a zero byte in an extension": chunked("5;a\x00b\r\nhello\r\n0\r\n\r\n"),
    "an extension without end": chunked("5;" + "a" * 20_000 + "\r\nhello\r\n0\r\n\r\n"),
    "a bare line feed after the last chunk": chunked("5\r\nhello\r\n0\n\r\n"),
    "a bare line feed at the end": chunked("5\r\nhello\r\n0\r\n\n"),
    "a trailer without a colon": chunked("5\r\nhello\r\n0\r\nX-Trailer\r\n\r\n"),
    "a folded trailer": chunked("5\r\nhello\r\n0\r\nX-Trailer: 1\r\n 2\r\n\r\n"),
    "a space in a trailer's name": chunked("5\r\nhello\r\n0\r\nX-Trailer : 1\r\n\r\n"),
    "a zero byte in a trailer": chunked("5\r\nhello\r\n0\r\nX-Trailer: a\x00\r\n\r\n"),
    "trailers without end": chunked("5\r\nhello\r\n0\r\n" + "X-Trailer: 1\r\n" * 5000 + "\r\n"),
}


def answers_in(data: bytes) -> list[int]:
    """The statuses of all answers in what a server sent before it closed."""
    found = []
    while data:
        parser = Parser("POST")
        answer = parser.answer if parser.feed(data) else parser.eof()
        assert answer is not None
        found.append(answer.status)
        if not answer.closes:
            raise MalformedError(f"{answer.status} does not announce the close: {answer.fields}")
        data = bytes(parser.rest)
    return found


def works(server: Server, own: str) -> None:
    """An ordinary request still gets its answer, and is on record. As there is one worker, all that
    reached an application before it is on record by then."""
    with server.connect() as connection:
        assert connection.ask(f"/id/{own}", headers={"X-Id": own}).status == 200
    assert own in server.began()


def paths_since(server: Server, before: int) -> list[str]:
    return [" ".join(words) for words in server.events()[before:]]


@pytest.mark.parametrize("way", ["at once", "in two segments"])
@pytest.mark.parametrize("case", HEADS)
def test_a_malformed_head_is_refused(one: Server, case: str, way: str) -> None:
    data, statuses = HEADS[case]
    before = len(one.events())
    with one.connect(timeout=10) as connection:
        if way == "at once":
            connection.send(data + SMUGGLED)
        else:
            connection.send(data[: len(data) // 2])
            connection.send_more(data[len(data) // 2 :] + SMUGGLED)
        answers = answers_in(connection.until_closed())
    assert len(answers) == 1, f"{len(answers)} answers: {answers}"
    assert answers[0] in statuses
    works(one, "after")
    reached = paths_since(one, before)
    assert [line.split()[1] for line in reached if line.startswith("BEGIN")] == ["after"], reached


@pytest.mark.parametrize("way", ["at once", "after the head"])
@pytest.mark.parametrize("case", BODIES)
def test_a_malformed_body_is_refused(one: Server, case: str, way: str) -> None:
    data = BODIES[case]
    before = len(one.events())
    with one.connect(timeout=10) as connection:
        if way == "at once":
            connection.send(data + SMUGGLED)
        else:
            end = data.index(b"\r\n\r\n") + 4
            connection.send(data[:end])
            connection.send_more(data[end:] + SMUGGLED)
        answers = answers_in(connection.until_closed())
    assert len(answers) == 1, f"{len(answers)} answers: {answers}"
    assert answers[0] in {400, 413, 431}
    works(one, "after")
    events = one.events()[before:]
    assert "smuggled" not in [words[1] for words in events]
    whole = [words[1] for words in events if words[0] == "COMPLETE"]
    assert whole == ["after"], f"a broken body was taken for a whole one: {events}"


def test_the_table_would_notice(one: Server) -> None:
    """The same checks on a request that is right: it is answered, and so is the one behind it."""
    before = len(one.events())
    fine = post("Content-Length: 5\r\nX-Id: fine\r\n", "hello")
    with one.connect() as connection:
        connection.send(fine + SMUGGLED)
        assert [connection.receive().status for _ in range(2)] == [200, 200]
    began = [words[1] for words in one.events()[before:] if words[0] == "BEGIN"]
    assert began == ["fine", "smuggled"]


ACCEPTED = {
    "a tab before a value": get("X-Id: fine\r\nX-Field:\t1\r\n"),
    "no space before a value": get("X-Id:fine\r\n"),
    "an empty value": get("X-Id: fine\r\nX-Field:\r\n"),
    "Latin letters in a value": get("X-Id: fine\r\nX-Field: caf\xe9\r\n"),
    "an empty line before the request": b"\r\n" + get("X-Id: fine\r\n"),
    "a URL as the target": get("X-Id: fine\r\n", line="GET http://test/id/refused HTTP/1.1"),
    "a chunk extension": chunked(
        "5;name=value\r\nhello\r\n0\r\n\r\n", "X-Id: fine\r\nTransfer-Encoding: chunked\r\n"
    ),
    "a trailer": chunked(
        "5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n", "X-Id: fine\r\nTransfer-Encoding: chunked\r\n"
    ),
    "a chunk size in capitals with zeros": chunked(
        "00A\r\nhellohello\r\n0\r\n\r\n", "X-Id: fine\r\nTransfer-Encoding: Chunked\r\n"
    ),
    "a host with a port": get("X-Id: fine\r\n", host="Host: [::1]:8080\r\n"),
    "an unknown method": get("X-Id: fine\r\n", line="BREW /id/refused HTTP/1.1"),
    "a percent in the target": get("X-Id: fine\r\n", line="GET /id/%00%2f%0d%0a HTTP/1.1"),
    "a length with zeros": post("X-Id: fine\r\nContent-Length: 0005\r\n", "hello"),
    "many fields": get("X-Id: fine\r\n" + "".join(f"X-{n}: 1\r\n" for n in range(90))),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_but_right(one: Server, case: str) -> None:
    before = len(one.began())
    with one.connect() as connection:
        connection.send(ACCEPTED[case] + SMUGGLED)
        assert [connection.receive().status for _ in range(2)] == [200, 200]
        assert not connection.rest
    assert one.began()[before:] == ["fine", "smuggled"]


def test_a_refusal_does_not_overtake_an_answer(one: Server) -> None:
    """Behind a good request that takes its time, the bad one is refused in its turn."""
    with one.connect() as connection:
        connection.send(request("/sleep?ms=200", headers={"X-Id": "slow"}) + get("X Y: 1\r\n"))
        first = connection.receive()
        assert (first.status, first.body) == (200, b"slow")
        assert answers_in(connection.until_closed()) == [400]


def test_garbage_never_reaches_the_application(one: Server) -> None:
    """Bytes without sense: at most one answer, a close, and a server that still works."""
    import random

    random_ = random.Random(7)
    before = len(one.events())
    alphabet = b"\x00\x01\x07\n\r\r\n\r\n \t:;/GETPOSTHTTP/1.1chunked\x7f\x80\xff0123456789"
    for _ in range(300):
        noise = bytes(random_.choice(alphabet) for _ in range(random_.randrange(1, 400)))
        with Connection(one.address, timeout=10) as connection:
            connection.send(noise + b"\r\n\r\n\r\n\r\n")
            data = connection.until_closed()
        assert re.match(rb"HTTP/1\.1 (400|414|431|501|505) ", data), (noise, data)
        assert len(answers_in(data)) == 1
    works(one, "after")
    reached = paths_since(one, before)
    assert [line.split()[1] for line in reached if line.startswith("BEGIN")] == ["after"], reached
