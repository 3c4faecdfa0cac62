"""Whoever asks gets the answer to what they asked, and everybody gets one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter

import pytest

from .harness import Server
from .http1 import Answer, AsyncConnection, request
from .payload import marked

CLIENTS = [1, 15, 16, 17, 64, 512]
SIZES = [0, 1, 15, 16, 17, 4095, 4096, 4097, 16383, 16384, 16385, 65535, 65536, 65537, 131073]
LARGE = [1 << 20, 5_000_001, 20_000_000]


def check(answer: Answer, own: str, sha: str, size: int, path: str, method: str) -> int:
    """The pid of the worker that gave this right answer."""
    assert answer.status == 200, f"{own}: {answer.status} {answer.body[:200]!r}"
    assert answer.get(b"x-id") == own.encode()
    told = json.loads(answer.body)
    assert told["id"] == own
    assert (told["method"], told["path"], told["query"]) == (method, f"/id/{own}", f"for={own}")
    assert [v for k, v in told["headers"] if k == "x-twin"] == [f"{own}-1", f"{own}-2"], path
    assert (told["length"], told["sha256"]) == (size, sha)
    return int(told["pid"])


def bodies(own: str, random_: random.Random) -> tuple[str, bytes | None, int]:
    """A method, a body and the number of its chunks."""
    kind = random_.randrange(4)
    if kind == 0:
        return "GET", None, 0
    body = marked(own, random_.choice(SIZES))
    return "POST", body, random_.randrange(1, 5) if kind == 1 else 0


async def client(server: Server, number: int, rounds: int, pids: Counter[int]) -> list[str]:
    random_ = random.Random(number)
    done: list[str] = []
    connection = await AsyncConnection.open(server.address)
    for turn in range(rounds):
        own = f"c{number}r{turn}"
        method, body, chunks = bodies(own, random_)
        path = f"/id/{own}?for={own}"
        headers = {"X-Id": own, "X-Twin": f"{own}-1\r\nX-Twin: {own}-2"}
        if fresh := random_.random() < 0.1:
            headers["Connection"] = "close"
        answer = await connection.ask(request(path, method, body, headers, chunks=chunks), method)
        sha = hashlib.sha256(body or b"").hexdigest()
        pids[check(answer, own, sha, len(body or b""), path, method)] += 1
        assert not connection.rest, "bytes came that nobody asked for"
        assert answer.closes == fresh
        done.append(own)
        if fresh:
            connection.close()
            connection = await AsyncConnection.open(server.address)
    connection.close()
    return done


@pytest.mark.parametrize("clients", CLIENTS)
def test_every_client_gets_its_own_answers(two: Server, clients: int) -> None:
    rounds = max(6, 2000 // clients)
    pids: Counter[int] = Counter()

    async def everybody() -> list[list[str]]:
        every = (client(two, number, rounds, pids) for number in range(clients))
        return await asyncio.wait_for(asyncio.gather(*every), 100)

    before = len(two.began())
    done = asyncio.run(everybody())
    answered = [own for each in done for own in each]
    assert len(set(answered)) == len(answered) == clients * rounds
    # Each of them has been in the application exactly once, too.
    assert Counter(two.began()[before:]) == Counter(answered)
    if clients > 1:
        assert len(pids) == 2, f"one worker did everything: {pids}"


@pytest.mark.parametrize("chunks", [0, 7], ids=["length", "chunks"])
@pytest.mark.parametrize("way", ["echo", "whole"])
@pytest.mark.parametrize("size", SIZES + LARGE)
def test_bodies_come_back_as_they_went(two: Server, size: int, way: str, chunks: int) -> None:
    async def several() -> None:
        async def one(number: int) -> None:
            own = f"{way}{size}n{number}"
            body = marked(own, size)
            connection = await AsyncConnection.open(two.address)
            for turn in range(2):
                data = request(f"/{way}", "POST", body, {"X-Id": f"{own}t{turn}"}, chunks=chunks)
                answer = await connection.ask(data, "POST")
                assert answer.status == 200
                assert answer.get(b"x-id") == f"{own}t{turn}".encode()
                assert len(answer.body) == size
                assert answer.body == body
                assert not connection.rest
                if size:
                    framed = answer.get(b"content-length") is not None
                    assert framed == (way == "whole" or not chunks)
            connection.close()

        clients = 3 if size > 1 << 20 else 8
        await asyncio.wait_for(asyncio.gather(*map(one, range(clients))), 60)

    asyncio.run(several())


def test_large_and_small_answers_do_not_mix(two: Server) -> None:
    """Downloads of megabytes beside small answers, on the same lanes."""
    size = 5_000_000

    async def large(number: int) -> None:
        own = f"large{number}"
        connection = await AsyncConnection.open(two.address)
        answer = await connection.ask(request(f"/stream?size={size}", headers={"X-Id": own}))
        assert answer.body == marked(own, size)
        connection.close()

    async def everybody() -> None:
        pids: Counter[int] = Counter()
        small = (client(two, 1000 + number, 40, pids) for number in range(32))
        await asyncio.wait_for(asyncio.gather(*map(large, range(16)), *small), 100)

    asyncio.run(everybody())
