"""Runs a command, and ends it with all that it started if it takes too long.

    bounded.py MINUTES COMMAND [ARGUMENT ...]

The exit code is the command's, or 124. A test that hangs must not take what waits for it along, and
whoever looks needs to know where it was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def children() -> dict[int, list[int]]:
    """The processes that each process has started and not left behind."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # It has gone.
        parent = int(stat.rpartition(")")[2].split()[1])
        found.setdefault(parent, []).append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """A process and all below it, itself first."""
    tree, found = children(), [pid]
    for each in found:
        found.extend(tree.get(each, []))
    return found


def command_line(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "(gone)"
    return " ".join(part.decode(errors="replace") for part in raw.split(b"\0") if part) or "(ended)"


def end(pid: int) -> None:
    """Kills them all; stopped first, so that none can start another meanwhile."""
    for send in (signal.SIGSTOP, signal.SIGKILL):
        for each in descendants(pid):
            try:
                os.kill(each, send)
            except ProcessLookupError:
                continue


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or not arguments[0].replace(".", "", 1).isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    minutes, command = float(arguments[0]), arguments[1:]
    began = time.monotonic()
    process = subprocess.Popen(command)
    while True:
        try:
            left = minutes * 60 - (time.monotonic() - began)
            code = process.wait(timeout=max(left, 0))
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue  # It got the signal, too, and ends in its own way.
        except subprocess.TimeoutExpired:
            break
    print(
        f"\n{' '.join(command)}: not done after {minutes:g} minutes. Still there:", file=sys.stderr
    )
    for each in descendants(process.pid):
        print(f"  {each}  {command_line(each)}", file=sys.stderr)
    print("The last line above names what it was at.", file=sys.stderr)
    end(process.pid)
    process.wait()
    return 124


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
