#!/usr/bin/env python3
"""Compares the C ABI with what was promised: ffi/symbols.txt, ffi/statuses.txt and ffi/layout.txt.

- Every function of include/toolb.h is listed, and every listed function is there.
- Every number of toolb_status is listed with its name for ever. One that is not used any more stays
  in the list, marked `retired`, so that no other gets its number.
- Signatures, constants, types, and sizes and offsets of fields are what ffi/layout.txt says: see
  abi_layout.py for what may be added.
- With --library PATH: the shared library exports what is listed and nothing else, and has a text for
  each status.

With --write what is new is added to the lists. What is gone or renumbered breaks programs that are
linked already: it is refused, and the lists have to be edited by hand.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import subprocess
import sys
from pathlib import Path

import abi_layout

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "include/toolb.h"
SYMBOLS = ROOT / "ffi/symbols.txt"
STATUSES = ROOT / "ffi/statuses.txt"
LAYOUT = ROOT / "ffi/layout.txt"

UNKNOWN_STATUS = -1


def functions_of(header: str) -> set[str]:
    """The names of the functions that a header declares."""
    text = _without_comments(header)
    # Types of functions have their name in parentheses; only a declaration has `name(`.
    return set(re.findall(r"\b(toolb_\w+)\s*\((?!\*)", text)) - set(
        re.findall(r"\btypedef\b[^;{]*?\b(toolb_\w+)\s*\(", text)
    )


def statuses_of(header: str) -> dict[str, int]:
    """The names and numbers of the statuses that a header declares."""
    enum = re.search(r"typedef enum[^{]*\{([^}]*)\}\s*toolb_status;", _without_comments(header))
    if enum is None:
        return {}
    return {name: int(number) for name, number in re.findall(r"(\w+)\s*=\s*(\d+)", enum.group(1))}


def read_statuses(text: str) -> list[tuple[int, str, bool]]:
    """Lines `NUMBER NAME [retired]` as numbers, names and whether they are retired."""
    found = []
    for line in text.splitlines():
        number, name, *rest = line.split()
        found.append((int(number), name, rest == ["retired"]))
    return found


def symbol_problems(listed: list[str], there: set[str], where: str) -> list[str]:
    """What is not in the list, and what is only in the list."""
    problems = [f"{name} is in {where}, but not in {SYMBOLS.name}" for name in there - set(listed)]
    problems += [f"{name} is gone from {where}" for name in set(listed) - there]
    if listed != sorted(set(listed)):
        problems.append(f"{SYMBOLS.name} is not sorted, or names something twice")
    return sorted(problems)


def status_problems(listed: list[tuple[int, str, bool]], there: dict[str, int]) -> list[str]:
    """Statuses that are not listed, gone, renumbered or use a number a second time."""
    problems = []
    numbers = [number for number, _, _ in listed]
    problems += [
        f"{n} is listed twice" for n in sorted({n for n in numbers if numbers.count(n) > 1})
    ]
    by_name = {name: (number, retired) for number, name, retired in listed}
    for name, number in there.items():
        if name not in by_name:
            owner = next((old for listed_number, old, _ in listed if listed_number == number), None)
            problems.append(
                f"{name} = {number} is not listed"
                if owner is None
                else f"{name} = {number}, but {number} belongs to {owner} for ever"
            )
        elif by_name[name] != (number, False):
            problems.append(f"{name} = {number}, but it is listed as {by_name[name][0]} or retired")
    problems += [
        f"{name} = {number} is gone; mark it `retired`"
        for number, name, retired in listed
        if not retired and name not in there
    ]
    return problems


def exported_by(library: Path) -> set[str]:
    """The names that a shared library exports."""
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", str(library)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {line.split()[0] for line in listing.splitlines()}


def without_text(library: Path, numbers: list[int]) -> list[int]:
    """The statuses that the library cannot explain."""
    text = ctypes.CDLL(str(library)).toolb_status_text
    text.restype = ctypes.c_char_p
    return [number for number in numbers if text(number) == text(UNKNOWN_STATUS)]


def write(header: str) -> None:
    """Adds to the lists what is new."""
    symbols = set(SYMBOLS.read_text().split()) | functions_of(header)
    SYMBOLS.write_text("".join(f"{name}\n" for name in sorted(symbols)))
    listed = read_statuses(STATUSES.read_text())
    taken = {number for number, _, _ in listed} | {name for _, name, _ in listed}
    for name, number in statuses_of(header).items():
        if name not in taken and number not in taken:
            listed.append((number, name, False))
    lines = [f"{n} {name}{' retired' if old else ''}\n" for n, name, old in sorted(listed)]
    STATUSES.write_text("".join(lines))
    promised = abi_layout.Layout.of_dump(LAYOUT.read_text())
    there = abi_layout.Layout.of_header(header)
    LAYOUT.write_text(abi_layout.added(promised, there).dump())


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares the C ABI with what was promised.")
    parser.add_argument("--library", type=Path, help="the shared library to look into")
    parser.add_argument("--write", action="store_true", help="add to the lists what is new")
    args = parser.parse_args()
    header = HEADER.read_text()
    if args.write:
        write(header)

    symbols = SYMBOLS.read_text().split()
    statuses = read_statuses(STATUSES.read_text())
    problems = symbol_problems(symbols, functions_of(header), HEADER.name)
    problems += status_problems(statuses, statuses_of(header))
    promised = abi_layout.Layout.of_dump(LAYOUT.read_text())
    there = abi_layout.Layout.of_header(header)
    problems += abi_layout.problems(promised, there, HEADER.name)
    if args.library:
        problems += symbol_problems(symbols, exported_by(args.library), args.library.name)
        numbers = [number for number, _, retired in statuses if not retired]
        problems += [f"status {n} has no text" for n in without_text(args.library, numbers)]
    for problem in problems:
        print(f"abi: {problem}")
    if problems:
        print("abi: scripts/abi.py --write adds what is new; what is gone breaks programs")
        return 1
    fields = sum(len(struct.fields) for struct in promised.structs.values())
    print(
        f"abi: {len(symbols)} functions, {len(statuses)} statuses, {len(promised.structs)} structs "
        f"with {fields} fields, as promised"
    )
    return 0


def _without_comments(header: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", header, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
