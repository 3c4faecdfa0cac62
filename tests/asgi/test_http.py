"""HTTP over a running server, one group of tests for each detail that servers got wrong before."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Response, Server


def test_next_request_starts_when_the_response_is_complete(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/after-response")
        assert connection.response().text == "sent"
        # The application of the first request still runs: it waits for the second.
        connection.request("/release?finish")
        assert connection.response().text == "released"
        connection.request("/await-event?finished")
        assert json.loads(connection.response().text) == {"finished": True}


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    with server.connect() as connection:
        requests = ["/slow", "/hello", "/no-length", "/stream", "/hello"]
        lines = [f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n" for target in requests]
        connection.send("".join(lines).encode())
        assert server.ask("/await-event?slow-started").status == 200
        assert server.ask("/release?go").status == 200
        bodies = [connection.response().text for _ in requests]
    assert bodies == [
        "slow",
        "Hello, World!",
        "all at once",
        "data: 1\n\ndata: 2\n\n",
        "Hello, World!",
    ]


def test_connection_close_is_announced(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/hello")
        assert connection.response()["connection"] is None
        connection.request("/hello", "Connection: close")
        assert connection.response()["connection"] == "close"
        assert connection.rest() == b""


def test_stopping_answers_what_was_accepted_and_closes(start: Callable[..., Server]) -> None:
    server = start("scenarios:app").listening()
    with server.connect() as connection:
        connection.request("/slow")
        assert server.ask("/await-event?slow-started").status == 200
        with server.connect() as other:
            other.request("/hello")
            assert other.response().status == 200
            server.signal(signal.SIGTERM)
            server.until_said("SIGTERM")
            # A connection that is kept alive gets one more answer, and hears that it is the last.
            other.request("/release?go")
            last = other.response()
            assert (last.status, last["connection"]) == (200, "close")
        response = connection.response()
        assert (response.text, response["connection"]) == ("slow", "close")
        assert connection.rest() == b""
    assert server.wait() == 0


def test_receive_lets_cancellation_through(server: Server) -> None:
    assert json.loads(server.ask("/cancelled-receive").text) == ["cancelled"] * 3
    assert server.ask("/receive-times-out").text == "timeout"


def test_receive_waits_for_the_disconnect(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/await-disconnect", method="POST", body=b"abc")
        assert server.ask("/await-event?waiting").status == 200
    notes = json.loads(server.ask("/await-event?disconnected").text)
    gone = {"type": "http.disconnect"}
    assert notes == {"done at once": False, "message": gone, "again": gone}


def test_nothing_is_kept_of_a_receive_that_was_cancelled(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/listeners-come-and-go")
        notes = json.loads(server.ask("/await-event?listened").text)
    assert notes["kept"] < 100
    notes = json.loads(server.ask("/await-event?heard").text)
    assert notes["heard"] == ["http.disconnect"] * 3


def test_receive_after_the_response_is_a_disconnect(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/receive-after-response")
        assert connection.response().text == "sent"
        notes = json.loads(server.ask("/await-event?received").text)
    assert notes["pending"] == notes["later"] == {"type": "http.disconnect"}


def test_send_after_disconnect_raises_and_is_not_logged(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/send-after-disconnect")
        assert server.ask("/await-event?streaming").status == 200
    notes = json.loads(server.ask("/await-event?raised").text)
    assert notes["raised"][0] == "ClientDisconnected"
    assert "OSError" in notes["raised"]
    # What is logged is logged in order: nothing but this stands after the last exception.
    server.ask("/raises-before")
    said = server.until_said("before the head")
    assert "ClientDisconnected" not in said


def test_state_is_copied_and_scope_is_fresh(server: Server) -> None:
    with server.connect() as connection:
        found = []
        for _ in range(2):
            connection.request("/state", "X-One: 1")
            found.append(json.loads(connection.response().text))
    first, second = found
    assert first["mine"] == second["mine"] == "no"
    assert first["headers"] == second["headers"]
    # A shallow copy: what the state refers to is shared.
    assert eval(first["state"])["number"] == eval(second["state"])["number"] == 1
    assert "new" not in eval(second["state"])
    assert len(eval(second["state"])["list"]) == len(eval(first["state"])["list"]) + 1


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [("HEAD", 200, "5"), ("GET", 204, None), ("GET", 304, "5"), ("HEAD", 404, "5")],
)
def test_no_body_where_none_belongs(
    server: Server, method: str, status: int, length: str | None
) -> None:
    with server.connect() as connection:
        connection.request(f"/with-status?{status}", method=method)
        response = connection.response(method)
        assert (response.status, response["content-length"]) == (status, length)
        assert response["transfer-encoding"] is None
        connection.request("/hello")
        assert connection.response().text == "Hello, World!"


def test_head_without_length_has_no_body(server: Server) -> None:
    with server.connect() as connection:
        for target in ("/stream", "/no-length", "/hello"):
            connection.request(target, method="HEAD")
            assert connection.response("HEAD").status == 200
        connection.request("/hello")
        assert connection.response().text == "Hello, World!"


def test_head_with_a_declared_body_consumes_it(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/hello", method="HEAD", body=b"GET /never HTTP/1.1\r\n\r\n")
        assert connection.response("HEAD").status == 200
        connection.request("/hello")
        assert connection.response().text == "Hello, World!"


def test_transfer_encoding_of_the_application_is_ignored(server: Server) -> None:
    response = server.ask("/own-transfer-encoding")
    assert response.all("transfer-encoding") == ["chunked"]
    assert (response.text, response.whole) == ("one,two", True)


def test_no_length_is_chunked_or_ends_with_the_connection(server: Server) -> None:
    response = server.ask("/stream")
    assert (response.framing, response.text) == ("chunked", "data: 1\n\ndata: 2\n\n")
    with server.connect() as connection:
        connection.request("/stream", version="1.0")
        response = connection.response()
    assert (response.framing, response["transfer-encoding"]) == ("close", None)
    assert (response.text, response["connection"]) == ("data: 1\n\ndata: 2\n\n", "close")


def test_a_complete_response_gets_its_length(server: Server) -> None:
    response = server.ask("/no-length")
    assert (response.framing, response.text) == ("length", "all at once")


def test_each_part_of_a_stream_goes_out_at_once(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/stream?wait")
        connection.until(b"data: 1\n\n")
        assert server.ask("/release?go").status == 200
        connection.until(b"data: 2\n\n")


def test_no_more_than_the_declared_length_is_sent(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/too-much")
        response = connection.response()
        assert "hello".startswith(response.text)
        assert connection.rest() == b""


def test_less_than_the_declared_length_closes(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/too-little")
        response = connection.response()
        assert not response.whole
        assert "hello".startswith(response.text)


@pytest.mark.parametrize("target", ["/raises-before", "/raises-after-start", "/returns-early"])
def test_failure_before_the_head_is_500(server: Server, target: str) -> None:
    before = server.said.count("Exception in ASGI application")
    with server.connect() as connection:
        connection.request(target)
        response = connection.response()
        assert (response.status, response.text) == (500, "Internal Server Error\n")
        assert response["content-type"] == "text/plain; charset=utf-8"
        assert response["x-never"] is None
        connection.request("/hello")
        assert connection.response().text == "Hello, World!"
    if target == "/returns-early":
        server.until_said("returned without starting a response")
    else:
        server.until_said("Exception in ASGI application", before + 1)
        server.until_said("ValueError: ")


@pytest.mark.parametrize("target", ["/raises-midway", "/returns-early?midway"])
def test_failure_after_the_head_breaks_off(server: Server, target: str) -> None:
    with server.connect() as connection:
        connection.request(target)
        response = connection.response()
        assert (response.status, response.framing, response.whole) == (200, "chunked", False)
        assert connection.rest() == b""
    server.until_said("in the middle" if "raises" in target else "without completing")


def test_failure_after_the_end_changes_nothing(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/raises-at-the-end")
        assert connection.response().text == "complete"
        connection.request("/hello")
        assert connection.response().text == "Hello, World!"
    server.until_said("after the end")


def test_start_without_body_is_500(server: Server) -> None:
    assert server.ask("/returns-early?started").status == 500
    server.until_said("returned without completing its response")


def test_a_cancelled_application_is_500(server: Server) -> None:
    assert server.ask("/cancels-itself").status == 500


def test_continue_comes_with_the_first_receive(server: Server) -> None:
    fields = ("Expect: 100-continue", "Content-Length: 5")
    with server.connect() as connection:
        connection.request("/expects", *fields, method="POST")
        assert server.ask("/await-event?called").status == 200
        assert connection.idle()
        assert server.ask("/release?go").status == 200
        assert connection.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"hello")
        assert connection.response().text == "5 bytes"


def test_no_continue_for_a_body_that_nobody_wants(server: Server) -> None:
    fields = ("Expect: 100-continue", "Content-Length: 5")
    with server.connect() as connection:
        connection.request("/expects?refuse", *fields, method="POST")
        assert server.ask("/release?go").status == 200
        response = connection.response()
        assert (response.status, response.text) == (403, "not wanted")


def scope_of(response: Response) -> dict[str, str]:
    scope: dict[str, str] = json.loads(response.text)
    return scope


def test_scope(server: Server) -> None:
    with server.connect() as connection:
        connection.send(
            b"POST /scope/%C3%A9%2Fx%zz?a=%20b&c HTTP/1.1\r\nHOST: test\r\nX-Twice: 1\r\n"
            b"Cookie: a=b\r\nx-twice:  2 \r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n"
        )
        scope = scope_of(connection.response())
        local = connection.socket.getsockname()
    assert eval(scope["type"]) == "http"
    assert eval(scope["asgi"]) == {"version": "3.0", "spec_version": "2.3"}
    assert eval(scope["http_version"]) == "1.1"
    assert eval(scope["method"]) == "POST"
    assert eval(scope["scheme"]) == "http"
    assert eval(scope["path"]) == "/scope/é/x%zz"
    assert eval(scope["raw_path"]) == b"/scope/%C3%A9%2Fx%zz"
    assert eval(scope["query_string"]) == b"a=%20b&c"
    assert eval(scope["root_path"]) == ""
    assert eval(scope["headers"]) == [
        (b"host", b"test"),
        (b"x-twice", b"1"),
        (b"cookie", b"a=b"),
        (b"x-twice", b"2"),
        (b"x-latin", b"\xe9"),
        (b"content-length", b"0"),
    ]
    assert eval(scope["server"]) == server.address
    assert eval(scope["client"]) == local
    assert set(scope) == {
        "type",
        "asgi",
        "http_version",
        "method",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "headers",
        "server",
        "client",
        "state",
    }


def test_scope_of_other_requests(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/scope%FF%20", method="purge", version="1.0")
        scope = scope_of(connection.response())
    assert eval(scope["path"]) == "/scope\ufffd "
    assert eval(scope["http_version"]) == "1.0"
    assert eval(scope["method"]) == "purge"
    assert eval(scope["query_string"]) == b""
    with server.connect() as connection:
        connection.request("http://example.org/scope?x=1")
        scope = scope_of(connection.response())
    assert (eval(scope["path"]), eval(scope["raw_path"])) == ("/scope", b"/scope")


def test_root_path(start: Callable[..., Server]) -> None:
    server = start("scenarios:show_scope", "--root-path", "/api/").listening()
    scope = scope_of(server.ask("/users%20x"))
    assert eval(scope["root_path"]) == "/api"
    assert eval(scope["path"]) == "/api/users x"
    assert eval(scope["raw_path"]) == b"/api/users%20x"
    assert "state" not in scope


def test_scope_of_a_unix_socket(start: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("scenarios:show_scope", "--uds", str(path)).listening()
    scope = scope_of(server.ask("/"))
    assert eval(scope["server"]) == (str(path), None)
    assert eval(scope["client"]) is None


def test_request_bodies(server: Server) -> None:
    large = bytes(range(256)) * 4096 * 8
    with server.connect() as connection:
        for body in (b"x", large, b"y" * 70_000):
            connection.request("/echo", method="POST", body=body)
            assert connection.response().body == body
        connection.request("/echo", "Transfer-Encoding: chunked", method="POST")
        connection.send(b"5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nTrailer: x\r\n\r\n")
        assert connection.response().text == "hello, world"


def test_reading_pauses_while_the_application_does_not_receive(server: Server) -> None:
    total = 256 * 1024 * 1024
    block = bytes(1024 * 1024)
    with server.connect() as connection:
        head = f"POST /count?wait HTTP/1.1\r\nHost: test\r\nContent-Length: {total}\r\n\r\n"
        connection.send(head.encode())
        assert server.ask("/await-event?called").status == 200
        # Whatever is not read stays in the buffers of the kernel, which are far smaller than this.
        connection.socket.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < total:
                sent += connection.socket.send(block[: total - sent])
        connection.socket.settimeout(60)
        assert sent < total / 2
        assert server.ask("/release?go").status == 200
        while sent < total:
            sent += connection.socket.send(block[: total - sent])
        counted = json.loads(connection.response().text)
    assert counted["total"] == total
    assert counted["largest"] <= 512 * 1024


def test_an_upload_that_breaks_off_is_a_disconnect(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b"POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nsome")
        assert server.ask("/await-event?some").status == 200
    assert json.loads(server.ask("/await-event?left").text)["left"] == 4


def test_bodies_are_copied(server: Server) -> None:
    assert server.ask("/reused-buffer").text == "first secondthird"


HEADERS = "'headers' of 'http.response.start'"
STATUS = "'status' of 'http.response.start'"
BODY = "'body' of 'http.response.body'"
MESSAGE = "TypeError: an ASGI message must be a dict, not {}: it holds 'type' and what goes with it"
PAIR = '(b"content-type", b"text/plain")'
PAIRS = f"TypeError: {HEADERS} must be a list of pairs of bytes, not"
CONTROL = "a line break or another control character"
ENCODE = "encode them, as text.encode('latin-1') does"
REFUSED = [
    # What /bad-messages hears of each message that it tries, in its order.
    "RuntimeError: expected ASGI message 'http.response.start', got 'http.response.body'",
    "RuntimeError: expected ASGI message 'http.response.start', got 'websocket.accept'",
    "RuntimeError: an ASGI message without 'type': it is such as 'http.response.start'",
    "TypeError: 'type' of an ASGI message must be str, not bytes: 'http.response.start' or 'http.response.body'",
    MESSAGE.format("str"),
    MESSAGE.format("NoneType"),
    *[f'RuntimeError: invalid value of header "x" in {HEADERS}: it has {CONTROL}'] * 4,
    f'RuntimeError: invalid header name "x: y" in {HEADERS}',
    f'RuntimeError: invalid header name "" in {HEADERS}',
    f"TypeError: names and values in {HEADERS} must be bytes, not 'text': b'text'; {ENCODE}",
    f"TypeError: names and values in {HEADERS} must be bytes, not b'length': 5; {ENCODE}",
    f"TypeError: each of {HEADERS} must be a pair of bytes, not (b'one',): such as {PAIR}",
    f"TypeError: each of {HEADERS} must be a pair of bytes, not b'x': such as {PAIR}",
    f"TypeError: each of {HEADERS} must be a pair of bytes, not 7: such as {PAIR}",
    f"TypeError: each of {HEADERS} must be a pair of bytes, not (b'one', b'two', b'three'): such as {PAIR}",
    f'RuntimeError: invalid content-length "-1" in {HEADERS}: it is a number',
    f'RuntimeError: two values of "content-length" in {HEADERS}: 1 and 2',
    f"{PAIRS} dict: give it list(headers.items())",
    f"{PAIRS} NoneType: leave it out if there are none",
    f"{PAIRS} str: such as [{PAIR}]",
    f"{PAIRS} int: such as [{PAIR}]",
    f"TypeError: names and values in {HEADERS} must be bytes, not 'name': 'value'; {ENCODE}",
    *[
        f"RuntimeError: {STATUS} must be from 200 to 599, not {status}"
        for status in (100, 103, 600, 2**70)
    ],
    *[
        f"TypeError: {STATUS} must be an int, not {kind}: such as 200"
        for kind in ("str", "float", "NoneType")
    ],
    "RuntimeError: 'http.response.start' without 'status': give it an int from 200 to 599",
    "taken",
    "RuntimeError: expected ASGI message 'http.response.body', got 'http.response.start'",
    f"TypeError: {BODY} must be bytes, not str: encode it, as text.encode() does",
    f"TypeError: {BODY} must be bytes, not NoneType: leave it out if there is none",
    f"TypeError: {BODY} must be bytes, not int: turn it into bytes, or a bytearray or memoryview",
    f"TypeError: {BODY} must be bytes, not list: turn it into bytes, or a bytearray or memoryview",
    "taken",
]


def test_what_must_not_be_sent_is_refused(server: Server) -> None:
    response = server.ask("/bad-messages")
    assert (response.status, response["x-good"]) == (200, "yes")
    assert json.loads(response.text) == REFUSED
    late = json.loads(server.ask("/await-event?late").text)["late"]
    assert "already complete" in late


def test_messages_and_headers_of_other_types(server: Server) -> None:
    response = server.ask("/message-types")
    names = ("x-list", "x-tuple", "x-case", "x-array", "x-iterator")
    assert [response[name] for name in names] == ["1", "2", "3", "4", "5"]
    assert (response.status, response.all("content-length")) == (201, ["8"])
    assert response.body == b"abcdef\0\0"


def test_send_waits_for_a_slow_reader(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/flood")
        notes = json.loads(server.ask("/await-event?waiting").text)
        assert notes["waited after"] != "never"
        response = connection.response()
    assert (len(response.body), response.whole) == (64 * 1024 * 1024, True)


def test_send_stops_waiting_when_the_reader_leaves(server: Server) -> None:
    with server.connect() as connection:
        connection.request("/flood")
        assert server.ask("/await-event?waiting").status == 200
    assert "raised at" in json.loads(server.ask("/await-event?raised").text)


def test_context_variables_stay_in_their_request(server: Server) -> None:
    with server.connect() as connection:
        for value in ("one", "two"):
            connection.request(f"/context?{value}")
            assert json.loads(connection.response().text) == ["unset", value, value]
