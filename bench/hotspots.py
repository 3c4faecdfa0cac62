#!/usr/bin/env python3
"""Where a server's processes spend their time under load: perf's cpu-clock samples as text.

python bench/hotspots.py raw/toolb            writes bench/profiles/raw-toolb.txt
python bench/hotspots.py "native/bare C epoll" --load 512 --seconds 8
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import proctree
from load import HERE, WrkError, title, wrk
from servers import (
    MissingError,
    Server,
    StartError,
    Tools,
    add_tool_options,
    all_servers,
    interrupt_on_terminate,
    start,
    tools_of,
)


def choose(tools: Tools, name: str) -> Server:
    everything = {f"{g}/{s.name}": s for g, ss in all_servers(tools).items() for s in ss}
    if name not in everything:
        sys.exit(f"there is no {name!r}; choose from: {', '.join(everything)}")
    return everything[name]


def role(root: int, stat: proctree.Stat) -> str:
    return "main process" if stat.pid == root else "child process"


Key = TypeVar("Key")


@dataclass(frozen=True)
class Row:
    share: float  # percent of all samples
    task: int
    module: str
    symbol: str


ROW = re.compile(r"\s*([\d.]+)%\s+(\d+):\S.*?\s{2,}(\S+)\s+\[[.k]\] (.*?)[\s-]*$")


HASH = re.compile(r"::h[0-9a-f]{16}$")  # what Rust adds to tell versions of a function apart


def read(data: Path) -> list[Row]:
    """All symbols of all processes. Filters of perf's own lose samples when modules are merged, so
    everything is taken and sorted here. perf names modules without their directories."""
    done = subprocess.run(
        ["perf", "report", "--stdio", "--no-children", "-q", "-i", str(data),
         "--sort", "pid,dso,symbol"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = (ROW.match(line) for line in done.stdout.splitlines())
    return [Row(float(m[1]), int(m[2]), m[3], m[4]) for m in found if m]


def largest(shares: dict[Key, float], top: int) -> list[tuple[Key, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])[:top]


def report(rows: list[Row], top: int) -> list[str]:
    """Modules, then symbols, of one process, in percent of that process."""
    everything = sum(r.share for r in rows)
    if not everything:
        return ["(no samples)"]
    modules: dict[str, float] = defaultdict(float)
    symbols: dict[tuple[str, str], float] = defaultdict(float)
    for r in rows:
        modules[r.module] += r.share
        symbols[r.module, r.symbol] += r.share
    lines = [f"{100 * n / everything:6.2f} %  {m}" for m, n in largest(modules, 8)]
    lines.append("")
    for (module, symbol), n in largest(symbols, top):
        name = HASH.sub("", symbol)
        short = module.split(".cpython-")[0]
        lines.append(f"{100 * n / everything:6.2f} %  {short:20.20}  {name}")
    return lines


def file_name(server: str) -> str:
    """C and C++ have to differ."""
    return re.sub(r"\W+", "-", server.replace("C++", "cpp"))


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("server", help="group/name, such as raw/toolb or native/nginx")
    p.add_argument("--load", default="64", help="as in run.py: 64, 512, '64 x16', '64 close'")
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--top", type=int, default=40, help="symbols per process")
    p.add_argument("--frequency", type=int, default=1999, help="samples per second and core")
    add_tool_options(p)
    p.add_argument("--out", type=Path, default=HERE / "profiles")
    o = p.parse_args()
    for tool in ("perf", "wrk"):
        if not shutil.which(tool):
            print(f"{tool} is not installed", file=sys.stderr)
            return 2
    interrupt_on_terminate()
    server = choose(tools_of(o), o.server)
    try:
        running = start(server)
    except (MissingError, StartError) as e:
        print(e, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        data = Path(directory) / "perf.data"
        try:
            wrk(running.url, o.load, 1)
            members = proctree.tree(running.pid)
            recorder = subprocess.Popen(
                ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(o.frequency),
                 "-p", ",".join(map(str, members)), "-o", str(data)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                before = {pid: s.own for pid, s in members.items()}
                answer = wrk(running.url, o.load, o.seconds)
                after = proctree.tree(running.pid)
                tasks = {
                    pid: {int(t.name) for t in Path(f"/proc/{pid}/task").iterdir()} for pid in after
                }
            finally:
                recorder.send_signal(signal.SIGINT)
                recorder.wait(30)
        except WrkError as e:
            print(f"{e}\n{running.last_words()}", file=sys.stderr)
            return 1
        finally:
            running.stop()
        rows = read(data)
        lines = [
            f"{o.server}: {title(o.load)}, {o.seconds} s, {answer.rate:,.0f} req/s under perf",
            "(cpu-clock samples; shares are of one process; its CPU per request includes perf's)",
        ]
        for pid, stat in sorted(after.items()):
            spent = (stat.own - before.get(pid, 0)) / proctree.TICK
            each = spent * 1e6 / answer.requests
            heading = f"{role(running.pid, stat)} ({stat.comm}): {each:.2f} us CPU per request"
            lines += ["", heading, "-" * len(heading)]
            if spent < 0.02:
                lines.append("(idle)")
                continue
            lines += report([r for r in rows if r.task in tasks[pid]], o.top)
    o.out.mkdir(parents=True, exist_ok=True)
    name = o.server if o.load == "64" else f"{o.server} {o.load}"
    target = o.out / (file_name(name) + ".txt")
    target.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
