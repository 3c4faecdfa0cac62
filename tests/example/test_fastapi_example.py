"""The FastAPI example through a running server, the way its README shows it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from program import PATIENCE, Program, running

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fastapi"


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    # One test leaves while its handler sleeps for a minute; nobody needs to wait for it.
    quickly = ("--timeout-graceful-shutdown", "10s")
    with running(
        "run", "main:app", "--app-dir", EXAMPLE, "--port", "0", "--workers", "2", *quickly
    ) as program:
        yield program


@pytest.fixture
def client(server: Program) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url(), timeout=PATIENCE) as opened:
        yield opened


def test_greets(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"message": "Hello from FastAPI on toolB"}


def test_query_parameters(client: httpx.Client) -> None:
    assert client.get("/api/users?id=123&role=admin").json() == {"id": 123, "role": "admin"}
    assert (
        client.get("/api/users", params={"role": "größer & mehr"}).json()["role"] == "größer & mehr"
    )


@pytest.mark.parametrize("size", [1, 5_000, 100_000, 1_000_000])
def test_json_body(client: httpx.Client, size: int) -> None:
    body = {"message": "x" * size}
    assert client.post("/api/data", json=body).json() == {"received": body}


def test_status_names_workers_of_this_server(client: httpx.Client, server: Program) -> None:
    answer = client.get("/api/status").json()
    assert answer["worker"] not in (0, server.process.pid)
    assert answer["requests"] >= 1
    assert answer["uptime_seconds"] >= 0


def test_model(client: httpx.Client) -> None:
    answer = client.post("/api/orders?quantity=3", json={"name": "cup", "price": 2.5})
    assert answer.status_code == 201
    assert answer.json() == {"name": "cup", "quantity": 3, "total": 7.5}
    assert client.post("/api/orders", json={"name": "", "price": 0}).status_code == 422


@pytest.mark.parametrize("size", [0, 100, 100_000, 3_000_000])
def test_upload(client: httpx.Client, size: int) -> None:
    content = os.urandom(size)
    answer = client.post("/api/upload", files={"file": ("a.bin", content)}, data={"note": "hello"})
    assert answer.json() == {
        "filename": "a.bin",
        "size": size,
        "sha256": hashlib.sha256(content).hexdigest(),
        "note": "hello",
    }


def test_chunked_upload(client: httpx.Client) -> None:
    pieces = [b'{"message": "', b"x" * 70_000, b'"}']
    headers = {"content-type": "application/json"}
    answer = client.post("/api/data", content=iter(pieces), headers=headers)
    assert answer.json() == {"received": {"message": "x" * 70_000}}


@pytest.mark.parametrize("lines", [1, 1000, 100_000])
def test_stream(client: httpx.Client, lines: int) -> None:
    answer = client.get(f"/api/stream?lines={lines}")
    assert "content-length" not in answer.headers
    assert answer.text == "".join(f"line {number}\n" for number in range(lines))


def test_first_event_arrives_before_the_last_is_sent(client: httpx.Client) -> None:
    # The second event comes after a minute; only a response that flows yields the first before.
    with client.stream("GET", "/api/events?count=2&interval=60") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == ["id: 0", "event: tick", "data: tick 0"]


def test_many_at_once(server: Program) -> None:
    with (
        httpx.Client(base_url=server.url(), timeout=PATIENCE) as shared,
        ThreadPoolExecutor(32) as threads,
    ):
        answers = list(threads.map(lambda n: shared.get(f"/api/users?id={n}"), range(500)))
    assert [answer.json()["id"] for answer in answers] == list(range(500))


def test_errors_of_the_application(client: httpx.Client) -> None:
    assert client.get("/api/missing").status_code == 404
    assert client.get("/nowhere").status_code == 404
    assert client.delete("/").status_code == 405


def test_head_has_no_body(client: httpx.Client) -> None:
    answer = client.head("/")
    assert answer.status_code == 405  # FastAPI adds no HEAD to a GET route
    assert answer.content == b""


def test_make_run_says_nothing_of_serving_when_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [ROOT / "scripts" / "run.sh", sys.prefix, port, "1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Port {port} is taken; ")
    assert "make run PORT=" in done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_lines_of_the_readme(server: Program) -> None:
    readme = (EXAMPLE / "README.md").read_text()
    block = re.search(r"Then, in another terminal:\n\n```sh\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    # not-bound: the port that the README shows gives way to the server's
    shown = block[1].replace("http://localhost:8080", server.url())
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shown.replace("curl ", "curl -sS ")],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == ""
    for part in (
        '{"message":"Hello from FastAPI on toolB"}',
        '{"id":123,"role":"admin"}',
        '{"received":{"message":"hello"}}',
        '"total":7.5',
        '"filename":"README.md"',
        "line 4\n",
        "data: tick 4\n",
        '{"waited":1.0}',
    ):
        assert part in done.stdout
