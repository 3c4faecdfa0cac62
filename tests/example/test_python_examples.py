"""The Python examples the way their README shows them: served by `toolb run`, and as consumers."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from program import PATIENCE, running

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "python"
README = (EXAMPLES / "README.md").read_text()
NAMES = ("hello", "json", "primes", "timer", "upload")


def run(name: str, _: Path, stack: ExitStack) -> str:
    server = stack.enter_context(
        running("run", "main:app", "--app-dir", EXAMPLES / name, "--port", "0", *QUICKLY)
    )
    return server.url()


def serve_and_work(name: str, directory: Path, stack: ExitStack) -> str:
    bus = directory / "bus"
    engine = stack.enter_context(running("serve", "--port", "0", "--bus", bus))
    url = engine.url()
    worker = stack.enter_context(
        running("work", "main:app", "--app-dir", EXAMPLES / name, "--bus", bus, *QUICKLY)
    )
    worker.until("attached to the engine")
    return url


# Some tests leave while a handler works for ever; nobody needs to wait for it. Half of it is there to be
# cancelled and to end in: no more is asked of the machine than that.
QUICKLY = ("--timeout-graceful-shutdown", "10s")
Served = Callable[[str], httpx.Client]


@pytest.fixture(params=[run, serve_and_work], ids=["run", "work"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A client for the example of a name."""
    with ExitStack() as stack:

        def serve(name: str) -> httpx.Client:
            url = request.param(name, tmp_path_factory.mktemp("b"), stack)
            return stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE))

        yield serve


ANSWERS = {
    "hello": ["Hello, World!\n"],
    "json": ["", '{"ids": ["a"]}\n', '{"n": 1}\n'],
    "primes": ["1229 below 10002\n", "0\n"],
    "timer": ["tick", "waited\n", " ticks\n"],
    "upload": [hashlib.sha256((EXAMPLES / "README.md").read_bytes()).hexdigest()],
}
"""What is to be found in the answer to each line of the README."""


def test_the_readme_has_all_of_them() -> None:
    assert set(NAMES) == {path.parent.name for path in EXAMPLES.glob("*/main.py")}
    assert re.findall(r"^\*\*\[(\w+)\]\(\1/main\.py\)\*\*", README, re.MULTILINE) == [
        "hello",
        "json",
        "upload",
        "primes",
        "timer",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_of_the_readme(served: Served, name: str) -> None:
    section = re.search(rf"^\*\*\[{name}\].*$", README, re.MULTILINE)
    assert section is not None
    lines = re.findall(r"`(curl [^`]*)`", section[0])
    assert len(lines) == len(ANSWERS[name])
    address = served(name).base_url.netloc.decode()
    for line, answer in zip(lines, ANSWERS[name], strict=True):
        # not-bound: the port that the README shows gives way to the server's
        command = shlex.split(line.replace("localhost:8080", address))
        done = subprocess.run(
            [command[0], "-sS", "--fail", *command[1:]],
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert answer in done.stdout
        assert bool(answer) == bool(done.stdout)


def test_documents(served: Served) -> None:
    client = served("json")
    assert client.get("/documents").json() == {"ids": []}
    assert client.put("/documents/a", json={"n": 1}).status_code == 201
    assert client.put("/documents/b%22%0Ac", json=[]).status_code == 201
    assert client.put("/documents/a", json={"n": 2}).status_code == 204
    answer = client.get("/documents/a")
    assert (answer.json(), answer.headers["content-type"]) == ({"n": 2}, "application/json")
    assert client.get("/documents").json() == {"ids": ["a", 'b"\nc']}
    assert client.put("/documents/c", content=b"{}").status_code == 415
    json = {"content-type": "application/json; charset=utf-8"}
    for wrong in (b"{", b"", b"\xff\xfe", b"[" * 1_000_000):
        assert client.put("/documents/c", content=wrong, headers=json).status_code == 400
    assert client.get("/documents/c").status_code == 404
    assert client.delete("/documents/a").status_code == 204
    assert client.delete("/documents/a").status_code == 404
    answer = client.post("/documents/b")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PUT, DELETE")
    assert client.get("/nowhere").status_code == 404


def test_uploads(served: Served) -> None:
    client = served("upload")

    def ask(content: bytes | Iterator[bytes], data: bytes) -> None:
        expected = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert client.put("/", content=content).json() == expected

    for size in (0, 1, 3_000_000):
        data = os.urandom(size)
        ask(data, data)
        ask(iter([data]), data)

    # A client that takes its time holds up nobody; one that leaves is forgotten.
    go = threading.Event()
    data = os.urandom(1_000_000)

    def slowly() -> Iterator[bytes]:
        yield data
        assert go.wait(PATIENCE)
        yield data

    def leaves() -> Iterator[bytes]:
        yield data
        raise ConnectionAbortedError

    with ThreadPoolExecutor() as threads:
        slow = threads.submit(ask, slowly(), 2 * data)
        with pytest.raises(ConnectionAbortedError):
            client.put("/", content=leaves())
        list(threads.map(lambda _: ask(data, data), range(4)))
        assert not slow.done()
        go.set()
        slow.result()


def test_primes(served: Served) -> None:
    client = served("primes")
    for wrong in ("1x", "", "-1", "1" * 19):
        assert client.get(f"/primes/{wrong}").status_code == 400
    assert client.get("/primes/2").text == "0\n"
    assert client.get("/primes/100").text == "25 below 100\n25\n"
    assert client.get("/running").text == "0\n"
    # One that would take for ever holds up nobody, and ends when its client leaves.
    with client.stream("GET", f"/primes/{10**15}") as answer:
        assert next(answer.iter_lines()) == "1229 below 10002"
        assert client.get("/running").text == "1\n"
    while client.get("/running").text != "0\n":
        pass
    # One that is left at work does not hold up the end.
    with client.stream("GET", f"/primes/{10**15}") as answer:
        assert next(answer.iter_lines()) == "1229 below 10002"


def test_timers(served: Served) -> None:
    client = served("timer")
    assert re.fullmatch(r"\d+ ticks\n", client.get("/").text)
    ticks = [int(line.removeprefix("tick ")) for line in client.get("/ticks/3").text.splitlines()]
    assert ticks == list(range(ticks[0], ticks[0] + 3))
    answer = client.get("/after/50")
    assert answer.text == "waited\n"
    assert answer.elapsed.total_seconds() >= 0.05
    for wrong in (
        "/ticks/0",
        "/ticks/x",
        "/after/soon",
        "/after/-1",
        "/after",
        "/nowhere",
        "/after/1/2",
    ):
        assert client.get(wrong).status_code == 404
    # Many wait at once.
    with ThreadPoolExecutor(16) as threads:
        texts = threads.map(lambda _: client.get("/ticks/2").text.count("tick"), range(32))
        assert list(texts) == [2] * 32
    with client.stream("GET", "/ticks/1000000") as answer:
        assert next(answer.iter_lines()).startswith("tick ")
