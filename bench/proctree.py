"""A server's process tree: CPU time, memory, and an orderly end.

The tree is everything below the process we started, plus whatever stayed in the
session that was made for it, so that a child whose parent died is still counted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True)
class Stat:
    pid: int
    comm: str
    state: str
    ppid: int
    session: int
    own: int  # ticks: user and system time of all threads
    reaped: int  # ticks: the same of children that were waited for, and of theirs
    started: int


def read_stat(pid: int) -> Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    comm, rest = text[text.index("(") + 1 :].rsplit(")", 1)
    f = rest.split()
    return Stat(
        pid=pid,
        comm=comm,
        state=f[0],
        ppid=int(f[1]),
        session=int(f[3]),
        own=int(f[11]) + int(f[12]),
        reaped=int(f[13]) + int(f[14]),
        started=int(f[19]),
    )


def tree(root: int) -> dict[int, Stat]:
    """The process `root`, its descendants, and what is left of its session."""
    everyone = [s for p in PROC.iterdir() if p.name.isdigit() and (s := read_stat(int(p.name)))]
    found = {s.pid: s for s in everyone if s.pid == root or s.session == root}
    grew = True
    while grew:
        new = {s.pid: s for s in everyone if s.ppid in found and s.pid not in found}
        found |= new
        grew = bool(new)
    return found


@dataclass(frozen=True)
class Cpu:
    """CPU time of a tree at one moment."""

    ticks: int
    members: dict[int, int]  # pid -> start time, which tells a pid from its next owner

    def until(self, later: Cpu) -> float:
        """Seconds between two moments."""
        return (later.ticks - self.ticks) / TICK

    def lost(self, later: Cpu) -> list[int]:
        """Processes that ended in between. If their parent waited for them their time is in
        `ticks` all the same; a server that loses one under load is worth a remark anyway."""
        return [p for p, t in self.members.items() if later.members.get(p) != t]


def cpu(root: int) -> Cpu:
    members = tree(root)
    return Cpu(
        ticks=sum(s.own + s.reaped for s in members.values()),
        members={s.pid: s.started for s in members.values() if s.state not in "ZX"},
    )


@dataclass(frozen=True)
class Memory:
    """KiB. RSS counts shared pages once per process, PSS splits them."""

    rss: int
    pss: int
    processes: int


def memory(root: int) -> Memory:
    rss = pss = count = 0
    for pid in tree(root):
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        values = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
        rss += int(values.get("Rss", 0))
        pss += int(values.get("Pss", 0))
        count += 1
    return Memory(rss, pss, count)


def machine_busy() -> float:
    """Seconds of CPU the whole machine has spent so far, on whatever."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(x) for x in (PROC / "stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / TICK


def stop(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """Asks the tree to end, then ends it. Touches only processes this one started."""
    members = {s.pid: s.started for s in tree(process.pid).values()}
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    deadline = time.monotonic() + 1.0
    while left := _alive(members):
        if process.poll() is None or time.monotonic() > deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.02)
    process.wait()


def _alive(members: dict[int, int]) -> list[int]:
    stats = (read_stat(pid) for pid in members)
    return [s.pid for s in stats if s and s.started == members[s.pid] and s.state not in "ZX"]
