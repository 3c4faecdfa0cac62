"""What the access log says of responses whose application goes on after the last byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import Server

APP = """
async def app(scope, receive, send):
    headers = [(b"content-length", b"5")] if scope["path"] == "/whole" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello", "more_body": True})
    # Until the client has gone: the end of the body is never said.
    while (await receive())["type"] != "http.disconnect":
        pass
"""


def test_who_leaves_with_all_that_was_announced_has_left_nothing(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(APP)
    server = start("main:app", "--access-log", app_dir=tmp_path).listening()
    for path in ("/whole", "/half"):
        with server.connect() as connection:
            connection.request(path)
            connection.until(b"hello")
        server.until_said(f"GET {path} HTTP/1.1")
    ends = [line.split()[-1] for line in server.said.splitlines() if "HTTP/1.1" in line]
    assert ends[0] != "left"
    assert ends[1] == "left"
