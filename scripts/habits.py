#!/usr/bin/env python3
"""Checks the habits of the tests, and that nothing in the tree belongs to one machine.

- A test that waits by sleeping is slow on a good day and wrong on a bad one: it waits for what it
  needs instead. A sleep that is not there to wait carries a marker: `# not-sync: <why>`.
- A test that binds or calls a fixed port cannot run beside another: it asks for port 0. A port
  that is never opened carries `# not-bound: <why>`.
- No file names a folder of one machine, such as a home folder; `# not-a-path: <why>` where a text
  only looks like one.

A marker stands on the line itself or on the line above; `//` does as well as `#`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SLEEP = re.compile(
    r"\b(time\.sleep|thread::sleep|asyncio\.sleep|anyio\.sleep|gevent\.sleep|sleep_for|sleep_until|usleep|nanosleep)\s*\("
    r"|(?<![\w.:])(?<!def )(?<!fn )sleep\s*\("
)
SHELL_SLEEP = re.compile(r"(^|[;&|]|\bdo\b|\bthen\b)\s*sleep\s+[\d$]")
_OPENS = (
    r"(?:\bbind|\bconnect|\bconnect_ex|\bcreate_connection|\bconnect_timeout|\bopen_connection"
    r"|\bcreate_server|\bstart_server|\bHTTPConnection|\bHTTPServer)\s*\("
)
PORT = re.compile(
    _OPENS + r"""[^\n]*?(?:["'](?:[\w.\-\[\]:]*):[1-9]\d{1,4}["']|,\s*[1-9]\d{1,4}\s*[,)])"""
    r"""|["'](?:--port|-p)["']\s*,\s*["']?[1-9]\d{1,4}\b"""
    r"""|--port[= ][1-9]\d{1,4}\b"""
    r"""|["']?https?://(?:127\.0\.0\.1|localhost|\[::1\]):[1-9]\d{1,4}"""
    r"""|\bhtons\s*\(\s*[1-9]\d*"""
)
RUST_PORT = re.compile(
    _OPENS + r"""[^\n]*?(?:"(?:[\w.\-\[\]:]*):[1-9]\d{1,4}"|,\s*[1-9]\d{1,4}\s*\))"""
)
MACHINE = re.compile(r"(?<![\w.~}\-])/(?:work|root|home|Users)/[\w.\-]")

SOURCES = {".py", ".rs", ".c", ".cc", ".cpp", ".h", ".hpp", ".sh", ".js", ".ts"}
NOT_TEXT = {".png", ".gz", ".bin", ".pem", ".lock", ".svg"}


@dataclass(frozen=True)
class Habit:
    """One thing that is flagged, the marker that lets it pass, and what to do about it."""

    marker: str
    advice: str

    def excused(self, lines: list[str], at: int) -> bool:
        """Whether the marker, with a reason, stands on this line or the one above."""
        marked = re.compile(rf"(#|//|/\*|<!--)\s*{self.marker}:\s*\w")
        return bool(marked.search(lines[at]) or (at > 0 and marked.search(lines[at - 1])))


SYNC = Habit("not-sync", "waits by sleeping; wait for what is needed, or say `not-sync: <why>`")
BOUND = Habit("not-bound", "names a fixed port; use port 0, or say `not-bound: <why>`")
PATH = Habit("not-a-path", "names a folder of one machine, or say `not-a-path: <why>`")


def is_test(where: str) -> bool:
    """Whether a file holds tests, going by its place and name."""
    path = PurePosixPath(where)
    if where.startswith("scripts/") or path.suffix not in SOURCES:
        return False  # the self-tests of the checks are full of bad samples
    in_tests = "tests" in path.parts[:-1] or path.stem == "tests"
    return in_tests or path.name.startswith("test_") or path.name == "conftest.py"


def _test_lines(where: str, lines: list[str]) -> range:
    """The lines of a file that are tests: in Rust sources what follows `#[cfg(test)]`."""
    if is_test(where):
        return range(len(lines))
    if where.endswith(".rs") and not where.startswith(("fuzz/", "bench/")):
        for number, line in enumerate(lines):
            if line.strip() == "mod tests {" and number and "cfg(" in lines[number - 1]:
                return range(number, len(lines))
    return range(0)


def problems_in(where: str, text: str) -> list[str]:
    """What is wrong with one file."""
    found: list[tuple[int, str]] = []
    lines = text.splitlines()

    def flag(at: int, habit: Habit) -> None:
        if not habit.excused(lines, at):
            found.append((at + 1, habit.advice))

    suffix = PurePosixPath(where).suffix
    sleep = SHELL_SLEEP if suffix == ".sh" else SLEEP
    port = RUST_PORT if suffix == ".rs" else PORT
    for at in _test_lines(where, lines):
        stripped = lines[at].lstrip()
        if stripped.startswith(("//", "#", "*")) and not stripped.startswith("#["):
            continue
        if sleep.search(lines[at]):
            flag(at, SYNC)
        if port.search(lines[at]):
            flag(at, BOUND)
    if not where.startswith("scripts/tests/"):
        for at, line in enumerate(lines):
            if MACHINE.search(line):
                flag(at, PATH)
    return [f"{where}:{number}: {advice}" for number, advice in sorted(found)]


def tracked(root: Path) -> list[str]:
    """The files that are, or are about to be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    return sorted(name for name in listed.stdout.decode().split("\0") if name)


def check(root: Path) -> list[str]:
    """Every bad habit below `root`, as lines to print."""
    problems: list[str] = []
    for where in tracked(root):
        path = root / where
        if path.suffix in NOT_TEXT or path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        problems += problems_in(where, text)
    return problems


def main() -> int:
    """Prints what is wrong; 1 when something is."""
    problems = check(Path(__file__).resolve().parent.parent)
    print("\n".join(problems) or "habits: no sleeping, fixed ports or machine paths")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
