#!/usr/bin/env python3
"""Checks that each line of the log that docs/log.md explains is one that the sources write."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from habits import tracked

DOCUMENT = "docs/log.md"
SOURCES = re.compile(r"(core|cli|ffi|bindings/python)/(src|python)/.*\.(rs|py)$")
_ROW = re.compile(r"^\| (`.*?)(?: \((?:critical|error|warning|info)\))? \| ", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
# Where Rust goes on with a text in the next line, and what stands for something else in it.
_GOES_ON = re.compile(r"\\\n\s*")
_PLACEHOLDER = re.compile(r"\{[\w.:?]*\}|%[sd]")
# What changes from line to line, statuses, which are often put in, and where a part may begin that is.
_CHANGES = re.compile(r"[…;,]|\b50\d\b")
# So much of a text can stand anywhere.
_LEAST = 4


def messages(text: str) -> list[tuple[int, str]]:
    """The lines that the first columns of the tables name, each with its place."""
    found: list[tuple[int, str]] = []
    for row in _ROW.finditer(text):
        line = text.count("\n", 0, row.start()) + 1
        found += [(line, span[1]) for span in _SPAN.finditer(row[1])]
    return found


def pieces(message: str) -> list[str]:
    """What of a message is always the same, where it is long enough to be recognised."""
    parts = (part.strip(" ;,:()") for part in _CHANGES.split(message))
    return [part for part in parts if len(part) >= _LEAST]


def problems_in(text: str, sources: list[str]) -> list[str]:
    """The messages of the document that no source writes."""
    written = "\0".join(_PLACEHOLDER.sub("…", _GOES_ON.sub("", source)) for source in sources)
    problems: list[str] = []
    for line, message in messages(text):
        fixed = pieces(message)
        if not fixed:
            problems.append(f"{DOCUMENT}:{line}: nothing of `{message}` can be looked for")
        for piece in fixed:
            if piece not in written:
                problems.append(f"{DOCUMENT}:{line}: no source says `{piece}`")
    return problems


def check(root: Path) -> list[str]:
    """Every message below `root` that nobody writes, as lines to print."""
    sources = [(root / where).read_text() for where in tracked(root) if SOURCES.match(where)]
    text = (root / DOCUMENT).read_text()
    if not messages(text):
        return [f"{DOCUMENT}: it names no message"]
    return problems_in(text, sources)


def main() -> int:
    """Prints what is wrong; 1 when something is."""
    problems = check(Path(__file__).resolve().parent.parent)
    print("\n".join(problems) or "messages: each is written somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
