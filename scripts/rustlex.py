"""Just enough of Rust's lexical structure for the checks: what is code, what is not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LEX = re.compile(
    r"""
      (?P<line>//[^\n]*)
    | (?P<block>/\*)
    | (?P<raw>\b(?:br|cr|r)(?P<hashes>\#*)")
    | (?P<string>\b[bc]?"|")
    | (?P<char>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}|.)|[^\\'\n])')
    """,
    re.VERBOSE,
)
_TOKEN = re.compile(r"[A-Za-z_]\w*|::|\n|[^\s\w]")


@dataclass(frozen=True)
class Token:
    """One word or mark of code, and the line (from 1) it stands on."""

    text: str
    line: int


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _block_end(text: str, start: int) -> int:
    """Where the block comment that starts at `start` ends; they nest."""
    depth, at = 0, start
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        depth += 1 if mark.group() == "/*" else -1
        at = start + mark.end()
        if depth == 0:
            return at
    return len(text)


def _string_end(text: str, start: int) -> int:
    at = start
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == '"':
            return at + 1
        else:
            at += 1
    return len(text)


def code_only(text: str, keep_strings: bool = False) -> str:
    """`text` with comments, and unless told otherwise strings, turned into spaces.

    Lines and columns stay where they were.
    """
    out: list[str] = []
    at = 0
    while found := _LEX.search(text, at):
        start, end = found.span()
        if found["block"]:
            end = _block_end(text, start)
        elif found["raw"]:
            close = text.find('"' + found["hashes"], end)
            end = len(text) if close < 0 else close + 1 + len(found["hashes"])
        elif found["string"]:
            end = _string_end(text, end)
        literal = found["line"] is None and found["block"] is None
        out.append(text[at:start])
        piece = text[start:end]
        out.append(piece if literal and keep_strings else _blank(piece))
        at = end
    out.append(text[at:])
    return "".join(out)


def tokens(text: str) -> list[Token]:
    """The words and marks of `text` without comments and literals."""
    found: list[Token] = []
    line = 1
    for match in _TOKEN.finditer(code_only(text)):
        if match.group() == "\n":
            line += 1
        else:
            found.append(Token(match.group(), line))
    return found


def rust_files(root: Path, *folders: str) -> list[Path]:
    """Every Rust source below the given folders of `root`, in a stable order."""
    files: list[Path] = []
    for folder in folders:
        files.extend(
            path
            for path in (root / folder).rglob("*.rs")
            if "target" not in path.relative_to(root).parts
        )
    return sorted(files)
