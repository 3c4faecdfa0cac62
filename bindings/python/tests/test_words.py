"""Texts of applications, made fit for a log."""

from __future__ import annotations

import traceback

import pytest

from toolb._words import LINE, MOST, bounded, headline


def raised(error: BaseException, cause: BaseException | None = None) -> str:
    try:
        raise error from cause
    except BaseException:
        return traceback.format_exc()


GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "main.py", line 17, in app
  |     raise ExceptionGroup("two things", errors)
  | ExceptionGroup: two things (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "main.py", line 7, in one
    |     raise ValueError("a")
    | ValueError: a
    +---------------- 2 ----------------
    | ValueError: b
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("  no database \n", "no database"),
        ("no database\n  host: db\n  start it first", "no database"),
        (raised(ValueError("no database\nhost: db\n")), "ValueError: no database"),
        (raised(ValueError()), "ValueError"),
        (raised(ValueError("late"), OSError("early")), "ValueError: late"),
        (raised(SyntaxError("so", ("main.py", 1, 2, "a = (\n"))), "SyntaxError: so"),
        (GROUP, "ExceptionGroup: two things (2 sub-exceptions)"),
        (GROUP.strip(), "ExceptionGroup: two things (2 sub-exceptions)"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("Traceback (most recent call last):\n  only frames", "only frames"),
        ("x" * LINE, "x" * LINE),
        ("x" * (LINE + 1), "x" * LINE + "..."),
    ],
)
def test_a_line_says_most(text: str, line: str) -> None:
    assert headline(text) == line


def test_what_is_long_loses_its_middle() -> None:
    assert bounded("x" * MOST) == "x" * MOST
    text = bounded("a" * MOST + "b" * MOST)
    assert text.startswith("aaa")
    assert text.endswith("bbb")
    assert f"... {MOST} characters are left out ..." in text
