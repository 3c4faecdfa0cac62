"""The Python programs in the documentation do what it says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from program import PATIENCE, running

ROOT = Path(__file__).resolve().parents[2]


def programs(page: str) -> dict[str, str]:
    """The blocks of a page that begin with the name of their file."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    named = [(re.match(r"# (\w+\.py)\n", block), block) for block in blocks]
    return {name[1]: block for name, block in named if name}


@contextmanager
def served(folder: Path, app: str = "main:app") -> Iterator[httpx.Client]:
    with (
        running("run", app, "--app-dir", folder, "--port", "0") as server,
        httpx.Client(base_url=server.url(), timeout=PATIENCE) as client,
    ):
        yield client


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_first_application(page: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(programs(page)["main.py"])
    with served(tmp_path) as client:
        assert client.get("/hello/Anna").json() == {"message": "Hello, Anna"}


def test_a_proxy_is_believed_and_nobody_else(tmp_path: Path) -> None:
    for name, source in programs("docs/deployment.md").items():
        (tmp_path / name).write_text(source)
    with (tmp_path / "main.py").open("a") as main:
        main.write(
            "from fastapi import Request\n"
            "@api.get('/')\n"
            "async def who(request: Request):\n"
            "    return [request.client and request.client.host, str(request.url_for('who'))]\n"
            "stranger = Proxied(api, address='192.0.2.1')\n"
        )
    told = {"x-forwarded-for": "203.0.113.9, 198.51.100.7", "x-forwarded-proto": "https"}
    odd = {"x-forwarded-for": "", "x-forwarded-proto": "javascript"}
    for app in ("app", "stranger"):
        with served(tmp_path, f"main:{app}") as client:
            url = str(client.base_url.join("/"))
            plain = ["127.0.0.1", url]
            proxied = ["198.51.100.7", url.replace("http:", "https:")]
            assert client.get("/", headers=odd).json() == plain
            expected = proxied if app == "app" else plain
            assert client.get("/", headers=told).json() == expected
