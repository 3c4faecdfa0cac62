"""Programs of our own that measure themselves: round trips between two processes, the system
calls of one that sleeps, and how late the timeouts of streams come."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import proctree
from load import children_cpu, share_of_machine

BARE = "bare cache line, polling"
IN_PLACE = "bare lines in place, polling"
POLLING = "rings, polling"
SLEEPING = "rings, sleeping"
ICEORYX = "iceoryx2"
COUNTED = 2000  # trips of the shorter of the two runs under strace
FEWEST = 10_000  # trips of who polls; with fewer, others had the core for most of the time
ONE_CORE = 150  # ns; a bare round trip below this did not leave one core


@dataclass
class Trips:
    """What these programs have found. `calls` is per round trip, by the name of the call."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    calls: dict[str, float] | None = None
    lateness: dict[str, Any] | None = None
    absent: dict[str, str] = field(default_factory=dict)
    dropped: int = 0
    foreign: float = 0.0

    def value(self, way: str, size: int, key: str) -> float | None:
        """The median of a figure over the rounds."""
        found = [r[key] for r in self.rows if r["way"] == way and r["bytes"] == size]
        return float(statistics.median(found)) if found else None

    def ways(self) -> list[str]:
        """All ways that were measured, in the order of the first round."""
        return list(dict.fromkeys(r["way"] for r in self.rows))

    def ratios(self, way: str, size: int) -> list[float]:
        """A way over the bare cache line, round by round."""
        bare = {r["round"]: r["p50"] for r in self.rows if r["way"] == BARE}
        ours = {r["round"]: r["p50"] for r in self.rows if r["way"] == way and r["bytes"] == size}
        return [ours[n] / bare[n] for n in sorted(ours.keys() & bare.keys()) if bare[n]]

    def rounds_on_one_core(self) -> int:
        """Rounds in which both processes were on threads of one core, as far as can be told."""
        return sum(r["way"] == BARE and r["p50"] < ONE_CORE for r in self.rows)

    def calls_per_sleep(self) -> float | None:
        """System calls for one sleep, of each of the two sides: who sleeps and who wakes it. A
        sleep is an epoll_wait."""
        if not self.calls or not self.calls.get("epoll_wait"):
            return None
        return sum(self.calls.values()) / self.calls["epoll_wait"] / 2


def gather(folder: Path, rounds: int, millis: int, seconds: int) -> Trips:
    """Runs all of them, one after the other; what cannot be is in `absent`."""
    trips = Trips()
    busy, own, clock = proctree.machine_busy(), children_cpu(), time.monotonic()
    program = folder / "toolb-bench-bus"

    def measure() -> None:
        lines = _run([program, "--rounds", str(rounds), "--millis", str(millis)], 120).splitlines()
        rows = [json.loads(line) for line in lines]
        trips.rows = [r for r in rows if r["trips"] >= FEWEST or not r["way"].endswith("polling")]
        trips.dropped = len(rows) - len(trips.rows)
        for row in rows:
            if row["way"] not in trips.ways():
                trips.absent[row["way"]] = "others had the core in every round"
        if not any(ICEORYX in row["way"] for row in rows):
            trips.absent[ICEORYX] = (
                "toolb-bench-bus was built without it (scripts/bench.sh says why)"
            )

    def count() -> None:
        trips.calls = calls_per_trip(_strace(program, COUNTED), _strace(program, 2 * COUNTED))

    def wait() -> None:
        trips.lateness = json.loads(_run([folder / "lateness", str(seconds)], seconds + 30))

    _try(trips, "bus round trips", measure)
    _try(trips, "system calls of a sleep", count)
    _try(trips, "lateness of stream timeouts", wait)
    busy, own = proctree.machine_busy() - busy, children_cpu() - own
    trips.foreign = share_of_machine(busy - own, time.monotonic() - clock)
    return trips


def parse_strace(text: str) -> dict[str, int]:
    """How often each system call was made, from what `strace -c` writes."""
    counts = {}
    for line in text.splitlines():
        # share, seconds, usecs/call, calls, perhaps errors, name
        found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)\s*$", line)
        if found and found[2] != "total":
            counts[found[2]] = int(found[1])
    return counts


def calls_per_trip(few: dict[str, int], many: dict[str, int]) -> dict[str, float]:
    """What the trips cost that only the longer run made: start and end cancel out."""
    grown = {name: (n - few.get(name, 0)) / COUNTED for name, n in many.items()}
    return {name: n for name, n in grown.items() if n >= 0.01}


def _try(trips: Trips, what: str, work: Callable[[], None]) -> None:
    try:
        work()
    except FileNotFoundError as e:
        trips.absent[what] = f"{Path(str(e.filename)).name} is not there: run scripts/bench.sh"
    except (subprocess.SubprocessError, OSError, ValueError, KeyError) as e:
        trips.absent[what] = str(e)


def _run(words: list[str | Path], patience: float) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=patience)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise ValueError(f"{Path(words[0]).name} ended with {done.returncode}: {said[-1]}")
    return done.stdout


def _strace(program: Path, trips: int) -> dict[str, int]:
    if not shutil.which("strace"):
        raise ValueError("strace is not installed")
    with tempfile.NamedTemporaryFile(mode="r", prefix="bench-") as counts:
        _run(["strace", "-f", "-c", "-o", counts.name, program, "--only", SLEEPING,
              "--bytes", "64", "--rounds", "1", "--trips", str(trips)], 60)  # fmt: skip
        return parse_strace(counts.read())
