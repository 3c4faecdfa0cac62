#!/usr/bin/env python3
"""Checks where `unsafe` stands and that each use of it is argued.

`unsafe` is at home in few places. Each block, impl and extern block has a `// SAFETY:` comment
right above it, each unsafe function a `# Safety` section; and every other source is covered by
`#![forbid(unsafe_code)]`, in itself or in a module above it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rustlex import code_only, rust_files

FOLDERS = ("core", "ffi", "cli", "bindings", "examples", "tests", "bench", "fuzz")
HOMES = re.compile(
    r"core/src/(sys|bus)/|core/src/(sys|bus)\.rs$|ffi/|bindings/[^/]+/src/raw(/|\.rs$)"
)
# Code that is never shipped may use it anywhere, with a reason all the same.
APART = re.compile(r"(^|/)(tests|benches|fuzz|bench|examples)/")
FORBID = re.compile(r"^\s*#!\[forbid\([^\]]*\bunsafe_code\b[^\]]*\)\]", re.MULTILINE)
USE = re.compile(r"\bunsafe\b(?!_)")


def _argued(lines: list[str], at: int, kind: str) -> bool:
    """Whether a SAFETY comment stands on line `at` or right above the statement it is part of."""
    mark = "# Safety" if kind == "fn" else "SAFETY:"
    if "SAFETY:" in lines[at] or (at + 1 < len(lines) and "SAFETY:" in lines[at + 1]):
        return True
    above, begun = at - 1, False
    while above >= 0:
        text = lines[above].strip()
        if text.startswith("//"):
            begun = True
            if mark in text or "SAFETY:" in text:
                return True
        elif not text or begun:
            return False
        elif not text.startswith("#[") and text.endswith((";", "}")):
            return False  # the end of another statement
        elif not text.startswith("#[") and text.endswith("{") and kind != "fn":
            return False
        above -= 1
    return False


def _kind(rest: str) -> str:
    words = re.match(r"\s*(impl|fn|extern|trait|\{|\()?", rest)
    found = (words[1] if words else None) or ""
    if found == "extern" and re.match(r"\s*extern\s*(\"[^\"]*\")?\s*fn\b", rest):
        return "fn"
    return found


def problems_in(where: str, text: str) -> list[str]:
    """What is wrong with the uses of `unsafe` in one source, without regard to forbid."""
    problems: list[str] = []
    lines, code = text.splitlines(), code_only(text, keep_strings=True).splitlines()
    plain = code_only(text).splitlines()
    for number, line in enumerate(plain):
        for use in USE.finditer(line):
            kind = _kind(code[number][use.end() :])
            if re.match(r"\s*\(", code[number][use.end() :]):
                continue  # an attribute: #[unsafe(no_mangle)]
            if not HOMES.match(where) and not APART.search(where):
                problems.append(
                    f"{where}:{number + 1}: unsafe belongs into sys/, bus/, ffi/ and raw/ of a binding only"
                )
            pointer = kind == "fn" and re.search(
                r"\bunsafe\s+(extern\s+\S+\s+)?fn\s*\(", code[number]
            )
            if kind == "fn" and (pointer or not re.search(r"\bpub\b", line[: use.start()])):
                continue  # a type, or not offered to anyone else
            if not _argued(lines, number, kind):
                wanted = "a `# Safety` section" if kind == "fn" else "a `// SAFETY:` comment"
                problems.append(f"{where}:{number + 1}: this unsafe has no {wanted} above it")
    return problems


def _covered(root: Path, file: Path) -> bool:
    """Whether the file or a module above it forbids unsafe code."""
    above = [file]
    folder = file.parent
    while folder != root and folder.name != "src":
        above += [folder / "mod.rs", folder.with_suffix(".rs")]
        folder = folder.parent
    # A program's main.rs is a crate of its own; the library's root covers all else.
    if file.name != "main.rs":
        above.append(folder / "lib.rs")
    return any(path.is_file() and FORBID.search(path.read_text()) for path in above)


def check(root: Path) -> list[str]:
    """Every breach of the rules below `root`, as lines to print."""
    problems: list[str] = []
    for file in rust_files(root, *FOLDERS):
        where = file.relative_to(root).as_posix()
        problems += problems_in(where, file.read_text())
        if HOMES.match(where) or APART.search(where) or "/src/" not in where:
            continue
        # The root of a crate that has such a home inside cannot forbid it for all.
        root_of_home = file.name == "lib.rs" and any(
            HOMES.match(f"{file.parent.relative_to(root).as_posix()}/{name}/")
            for name in ("sys", "bus", "raw")
            if (file.parent / name).is_dir() or (file.parent / f"{name}.rs").is_file()
        )
        if not root_of_home and not _covered(root, file):
            problems.append(
                f"{where}:1: needs #![forbid(unsafe_code)], here or in the module above"
            )
    return problems


def main() -> int:
    """Prints what is wrong; 1 when something is."""
    problems = check(Path(__file__).resolve().parent.parent)
    print("\n".join(problems) or "unsafe: at home and argued everywhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
