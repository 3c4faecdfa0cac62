"""The example, called directly: what it answers whatever server it runs on."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import httpx
import pytest


def _load() -> Any:
    # By path: the name `main` is too common to be looked up on sys.path.
    path = Path(__file__).with_name("main.py")
    spec = importlib.util.spec_from_file_location("fastapi_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


main = _load()


def call(method: str, url: str, **kwargs: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app=main.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://example") as client:
            return await client.request(method, url, **kwargs)

    return asyncio.run(once())


def test_greets() -> None:
    assert call("GET", "/").json() == {"message": "Hello from FastAPI on toolB"}


def test_users_gives_back_the_query() -> None:
    assert call("GET", "/api/users?id=123&role=admin").json() == {"id": 123, "role": "admin"}
    assert call("GET", "/api/users").json() == {"id": None, "role": None}
    assert call("GET", "/api/users?id=x").status_code == 422


@pytest.mark.parametrize("value", [{"message": "hello"}, [1, 2], "text", 7, {"deep": {"er": []}}])
def test_data_gives_back_the_json(value: Any) -> None:
    assert call("POST", "/api/data", json=value).json() == {"received": value}


def test_data_refuses_what_is_no_json() -> None:
    headers = {"content-type": "application/json"}
    assert call("POST", "/api/data", content=b"{", headers=headers).status_code == 422


def test_status_counts_the_requests() -> None:
    first = call("GET", "/api/status").json()
    second = call("GET", "/api/status").json()
    assert first["worker"] == os.getpid()
    assert second["requests"] == first["requests"] + 1
    assert second["uptime_seconds"] >= first["uptime_seconds"] >= 0


def test_order_checks_its_model() -> None:
    item = {"name": "cup", "price": 2.5}
    answer = call("POST", "/api/orders?quantity=3", json=item)
    assert answer.status_code == 201
    assert answer.json() == {"name": "cup", "quantity": 3, "total": 7.5}
    assert call("POST", "/api/orders", json={"name": "", "price": 0}).status_code == 422


@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_upload_reads_the_file(size: int) -> None:
    content = os.urandom(size)
    answer = call(
        "POST", "/api/upload", files={"file": ("a.bin", content)}, data={"note": "grüße"}
    ).json()
    assert answer == {
        "filename": "a.bin",
        "size": size,
        "sha256": hashlib.sha256(content).hexdigest(),
        "note": "grüße",
    }


def test_stream_has_no_length() -> None:
    answer = call("GET", "/api/stream?lines=3")
    assert answer.text == "line 0\nline 1\nline 2\n"
    assert "content-length" not in answer.headers


def test_events_are_server_sent_events() -> None:
    answer = call("GET", "/api/events?count=2&interval=0")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == (
        "id: 0\nevent: tick\ndata: tick 0\n\nid: 1\nevent: tick\ndata: tick 1\n\n"
    )


def test_slow_and_missing() -> None:
    assert call("GET", "/api/slow?seconds=0").json() == {"waited": 0.0}
    assert call("GET", "/api/missing").status_code == 404
