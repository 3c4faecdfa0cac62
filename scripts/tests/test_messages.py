"""Messages that nobody writes must be found, those that somebody does be left alone."""

from __future__ import annotations

import messages
import pytest

RUST = r"""
    "worker {worker} (pid {pid}) is late; \
     it follows"
"""
PYTHON = 'logger.warning("requests were cancelled: %d", len(tasks))'


def document(*rows: str) -> str:
    head = "# The log\n\n| Line | What to do |\n|---|---|\n"
    return head + "".join(f"| {row} | See `--help`. |\n" for row in rows)


@pytest.mark.parametrize(
    "row",
    [
        "`worker … (pid …) is late; it follows` (warning)",
        "`… is late; …` (error)",
        "`requests were cancelled: …`",
        "`… it follows`, `requests were …` (warning)",
    ],
)
def test_written(row: str) -> None:
    assert messages.problems_in(document(row), [RUST, PYTHON]) == []


@pytest.mark.parametrize(
    "row",
    [
        "`worker … was late` (warning)",
        "`… it follows`, `requests are …` (warning)",
        "`…: …` (warning)",
    ],
)
def test_not_written(row: str) -> None:
    assert len(messages.problems_in(document(row), [RUST, PYTHON])) == 1


def test_a_document_without_messages_is_none() -> None:
    assert messages.messages("# The log\n\n`worker` | no table\n") == []
