"""Broken links must be found, whole ones be left alone."""

from __future__ import annotations

from pathlib import Path

import links
import pytest

OTHER = "# Title\n\n## C, inline\n\n```\n# no heading\n[x](nowhere.md)\n```\n"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/other.md").write_text(OTHER)
    (tmp_path / "LICENSE").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md)",
        "[a](other.md#c-inline)",
        "[a](../LICENSE)",
        "[a](../docs)",
        "[a](https://example.org/x)",
        "# Here\n\n[a](#here)",
        "```\n[a](missing.md)\n```",
    ],
)
def test_whole(house: Path, text: str) -> None:
    assert links.problems_in(house, "docs/index.md", _saved(house, text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "[a](missing.md)",
        "[a](other.md#no-heading)",
        "[a](LICENSE)",
        "![a](missing.svg)",
        "# Here\n\n[a](#there)",
    ],
)
def test_broken(house: Path, text: str) -> None:
    assert len(links.problems_in(house, "docs/index.md", _saved(house, text))) == 1


def _saved(house: Path, text: str) -> str:
    (house / "docs/index.md").write_text(text)
    return text
