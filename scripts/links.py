#!/usr/bin/env python3
"""Checks that links between the documents lead somewhere: to a file, and to a heading if they name one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from habits import tracked

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(<?([^)\s>]+)>?\)|!\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names under which the headings of a document can be linked to."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", _blank_fences(text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return set(plain)


def _blank_fences(text: str) -> str:
    return _FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)


def problems_in(root: Path, where: str, text: str) -> list[str]:
    """The links of one document that lead nowhere."""
    problems: list[str] = []
    for link in _LINK.finditer(_blank_fences(text)):
        target = link[1] or link[2]
        if re.match(r"[a-z]+:", target):
            continue
        line = text.count("\n", 0, link.start()) + 1
        name, _, anchor = target.partition("#")
        path = (root / where).parent / name if name else root / where
        if not path.exists():
            problems.append(f"{where}:{line}: there is no {target}")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text()):
            problems.append(f"{where}:{line}: {name or where} has no heading #{anchor}")
    return problems


def check(root: Path) -> list[str]:
    """Every broken link below `root`, as lines to print."""
    problems: list[str] = []
    for where in tracked(root):
        if where.endswith(".md") and (root / where).is_file():
            problems += problems_in(root, where, (root / where).read_text())
    return problems


def main() -> int:
    """Prints what is wrong; 1 when something is."""
    problems = check(Path(__file__).resolve().parent.parent)
    print("\n".join(problems) or "links: all lead somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
