"""Heads that an application gives again and again, and what it changes in them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Response, Server

APP = """
TYPE, KIND = (b"content-type", b"text/plain"), (b"x-kind", b"constant")
ONE, OTHER = bytearray(b"one"), [b"x-name", b"first"]
LISTED = [TYPE, KIND]
HEAD = {"type": "http.response.start", "status": 200, "headers": LISTED}
COUNT = 0

class Bytes(bytes):
    pass

def head(path):
    global COUNT
    COUNT += 1
    again = {**HEAD, "headers": list(LISTED)}
    match path:
        case "/same" | "/short":
            return HEAD
        case "/status":
            return {**HEAD, "status": 404}
        case "/more":
            return {**HEAD, "headers": [*LISTED, (b"x-count", b"%d" % COUNT)]}
        case "/less":
            return {**HEAD, "headers": LISTED[:1]}
        case "/turned":
            return {**HEAD, "headers": LISTED[::-1]}
        case "/none":
            return {"type": "http.response.start", "status": 200}
        case "/changed":
            # What does not stay as it is, is looked at each time.
            ONE[:] = b"%d" % COUNT
            OTHER[1] = b"%d" % COUNT
            again["headers"] += [(b"x-one", ONE), OTHER, (b"x-bytes", Bytes(b"%d" % COUNT))]
            return again
        case "/length":
            return {**HEAD, "headers": [TYPE, (b"content-length", b"5")]}
        case "/bad":
            return {**HEAD, "headers": [TYPE, (b"x-bad", b"a\\nb")]}

async def app(scope, receive, send):
    await send(head(scope["path"]))
    await send({"type": "http.response.body", "body": b"a" if scope["path"] == "/short" else b"hello"})
"""


@pytest.fixture
def server(start: Callable[..., Server], tmp_path: Path) -> Server:
    (tmp_path / "heads.py").write_text(APP)
    return start("heads:app", app_dir=tmp_path).listening()


def fields(response: Response) -> list[tuple[str, str]]:
    """Those of the application."""
    return [field for field in response.fields if field[0].startswith(("content-type", "x-"))]


CONSTANT = [("content-type", "text/plain"), ("x-kind", "constant")]


def test_the_same_head_again_and_what_differs_from_it(server: Server) -> None:
    with server.connect() as connection:

        def ask(path: str) -> Response:
            connection.request(path)
            return connection.response()

        for count in range(1, 25, 12):
            for path, status, expected in [
                ("/same", 200, CONSTANT),
                ("/same", 200, CONSTANT),
                ("/status", 404, CONSTANT),
                ("/same", 200, CONSTANT),
                ("/more", 200, [*CONSTANT, ("x-count", str(count + 4))]),
                ("/less", 200, CONSTANT[:1]),
                ("/turned", 200, CONSTANT[::-1]),
                ("/none", 200, []),
                ("/same", 200, CONSTANT),
                ("/bad", 500, [("content-type", "text/plain; charset=utf-8")]),
                ("/same", 200, CONSTANT),
                ("/same", 200, CONSTANT),
            ]:
                response = ask(path)
                assert (response.status, fields(response)) == (status, expected), path
                assert response.text == ("hello" if path != "/bad" else "Internal Server Error\n")


def test_what_may_change_is_not_remembered(server: Server) -> None:
    with server.connect() as connection:
        for count in "12":
            connection.request("/changed")
            told = [("x-one", count), ("x-name", count), ("x-bytes", count)]
            assert fields(connection.response()) == [*CONSTANT, *told]


def test_lengths_belong_to_their_head(server: Server) -> None:
    for path, length in [("/length", "5"), ("/length", "5"), ("/same", "5"), ("/short", "1")]:
        response = server.ask(path)
        assert response.all("content-length") == [length]
        assert response.whole
