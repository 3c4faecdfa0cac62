#!/usr/bin/env python3
"""Compares servers in one run and holds toolb to its promises. See README.md beside this file.

python bench/run.py              everything, about 12 minutes
python bench/run.py --quick      64 connections only, under 2 minutes
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import proctree
from servers import (
    HERE,
    MissingError,
    Server,
    StartError,
    Tools,
    all_servers,
    interrupt_on_terminate,
    start,
)

TITLES = {"raw": "raw ASGI", "fastapi": "FastAPI", "c": "inline C"}
PIPELINED = "64 x16"  # 64 connections, sixteen requests in each write


@dataclass(frozen=True)
class Floor:
    """One promise: toolb against a peer. Times and CPU have to be small, rates large."""

    group: str
    load: str
    metric: str  # "cpu" or "rate"
    peer: str
    floor: float | None
    aim: float

    @property
    def small(self) -> bool:
        return self.metric == "cpu"

    def holds(self, ratio: float, bound: float) -> bool:
        return ratio <= bound if self.small else ratio >= bound

    def label(self) -> str:
        what = "CPU per request" if self.small else "req/s"
        return f"{TITLES[self.group]}, {self.load}: {what} / {self.peer}"


FLOORS = [
    Floor("raw", "64", "cpu", "granian", 0.55, 0.45),
    Floor("raw", "64", "cpu", "uvicorn", 0.35, 0.30),
    Floor("raw", "64", "rate", "granian", 1.8, 2.5),
    Floor("raw", "64", "rate", "uvicorn", 3.2, 4.5),
    Floor("fastapi", "64", "rate", "uvicorn", 1.15, 1.25),
    Floor("c", "64", "cpu", "bare C epoll", 1.3, 1.15),
    Floor("c", PIPELINED, "rate", "nginx", None, 5.0),
]


@dataclass
class Sample:
    """One load on one server."""

    round: int
    requests: int
    rate: float  # requests per second
    p50: float | None  # ms
    p99: float | None  # ms
    cpu: float  # microseconds of the whole tree per request
    rss: int  # KiB, after the load
    pss: int
    processes: int
    foreign: float  # share of the machine that neither server nor wrk used
    remarks: list[str] = field(default_factory=list)


class WrkError(Exception):
    pass


UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0, "h": 3.6e6}


def wrk(
    url: str, load: str, seconds: int
) -> tuple[int, float, float | None, float | None, list[str]]:
    """Requests, requests per second, p50 and p99 in ms, and what went wrong."""
    connections = load.split()[0]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if load == PIPELINED:
        command += ["-s", str(HERE / "peers" / "pipeline.lua")]
    process = subprocess.Popen(
        [*command, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        out, _ = process.communicate(timeout=seconds + 15)
    except subprocess.TimeoutExpired:
        raise WrkError(f"wrk did not end {seconds + 15} s after its start") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    total = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if process.returncode or not total or not rate or int(total[1]) == 0:
        raise WrkError(f"wrk -c{connections} ended with {process.returncode}: {out.strip()}")
    remarks = re.findall(r"^\s*((?:Socket errors|Non-2xx).*)$", out, re.MULTILINE)

    def percentile(p: int) -> float | None:
        found = re.search(rf"^\s+{p}%\s+([\d.]+)([a-z]+)\s*$", out, re.MULTILINE)
        value = float(found[1]) * UNITS[found[2]] if found else 0.0
        return value or None  # wrk knows no latency of pipelined requests beyond the median

    if load == PIPELINED:
        return int(total[1]), float(rate[1]), None, None, remarks
    return int(total[1]), float(rate[1]), percentile(50), percentile(99), remarks


def measure(running_pid: int, url: str, load: str, seconds: int, number: int) -> Sample:
    wrk_before = children_cpu()
    busy_before = proctree.machine_busy()
    before = proctree.cpu(running_pid)
    clock = time.monotonic()
    requests, rate, p50, p99, remarks = wrk(url, load, seconds)
    clock = time.monotonic() - clock
    after = proctree.cpu(running_pid)
    own = before.until(after)
    foreign = proctree.machine_busy() - busy_before - own - (children_cpu() - wrk_before)
    memory = proctree.memory(running_pid)
    if lost := before.lost(after):
        remarks.append(f"{len(lost)} of the server's processes ended under load")
    return Sample(
        round=number,
        requests=requests,
        rate=rate,
        p50=p50,
        p99=p99,
        cpu=own * 1e6 / requests,
        rss=memory.rss,
        pss=memory.pss,
        processes=memory.processes,
        foreign=max(0.0, foreign / clock / (os.cpu_count() or 1)),
        remarks=remarks,
    )


def children_cpu() -> float:
    """CPU time of the programs we waited for: wrk, and servers that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class Run:
    """What a whole comparison has found."""

    samples: dict[tuple[str, str, str], list[Sample]] = field(default_factory=dict)
    absent: dict[tuple[str, str], str] = field(default_factory=dict)  # (group, server) -> why
    idle: dict[tuple[str, str], list[proctree.Memory]] = field(default_factory=dict)
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    rounds: int = 0

    def ratios(self, group: str, load: str, peer: str, metric: str) -> list[float]:
        """toolb over the peer, round by round, so that drift of the machine cancels out."""
        first = toolb_name(group)
        ours = {s.round: getattr(s, metric) for s in self.samples.get((group, first, load), [])}
        theirs = {s.round: getattr(s, metric) for s in self.samples.get((group, peer, load), [])}
        both = sorted(ours.keys() & theirs.keys())
        return [ours[r] / theirs[r] for r in both if ours[r] and theirs[r]]


def toolb_name(group: str) -> str:
    return "toolb inline C" if group == "c" else "toolb"


def compare(options: argparse.Namespace, groups: dict[str, list[Server]]) -> Run:
    """Rounds of all servers, each started anew, in an order that turns."""
    run = Run()
    began = time.monotonic()
    longest = 0.0
    for number in range(options.rounds):
        spent = time.monotonic() - began
        if number and spent + longest > options.budget:
            say(f"stopping after {number} rounds: {spent:.0f} of {options.budget} s are spent")
            break
        for group, servers in groups.items():
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                if (group, server.name) not in run.absent:
                    one_server(run, options, group, server, number)
        longest = max(longest, time.monotonic() - began - spent)
        run.rounds = number + 1
    return run


def one_server(
    run: Run, options: argparse.Namespace, group: str, server: Server, number: int
) -> None:
    key = (group, server.name)
    try:
        running = start(server)
    except (MissingError, StartError, OSError, subprocess.CalledProcessError) as e:
        run.absent[key] = str(e)
        say(f"{TITLES[group]}: {server.name} is LEFT OUT: {e}")
        return
    try:
        if key not in run.versions:
            run.versions[key] = server.version()
        run.idle.setdefault(key, []).append(proctree.memory(running.pid))
        wrk(running.url, "8", 1)
        for load in loads_of(options, group):
            sample = measure(running.pid, running.url, load, options.seconds, number)
            run.samples.setdefault((group, server.name, load), []).append(sample)
            say(
                f"round {number + 1}  {TITLES[group]:9} {server.name:15} c{load:7}"
                f" {sample.rate:10,.0f} req/s {sample.cpu:8.2f} us CPU/req"
                + (
                    f"   others use {sample.foreign:.0%} of the machine"
                    if sample.foreign > 0.05
                    else ""
                )
                + "".join(f"   {r}" for r in sample.remarks)
            )
    except WrkError as e:
        # Its answers so far are in doubt too: what fails under load has no place in a table.
        run.absent[key] = f"failed under load: {e}"
        for load in options.loads:
            run.samples.pop((group, server.name, load), None)
        say(f"{TITLES[group]}: {server.name} is LEFT OUT: {e}\n{running.last_words()}")
    finally:
        running.stop()


def loads_of(options: argparse.Namespace, group: str) -> list[str]:
    return [x for x in options.loads if x != PIPELINED or group == "c"]


# What is printed and written.


def median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(run: Run, options: argparse.Namespace, groups: dict[str, list[Server]]) -> str:
    """Markdown that also reads well in a terminal."""
    parts = []
    for group, servers in groups.items():
        for load in loads_of(options, group):
            head = ["server", "req/s", "p50 ms", "p99 ms", "CPU us/req", "RSS MiB", "PSS MiB",
                    "processes", "toolb's req/s is", "toolb's CPU is"]  # fmt: skip
            rows = []
            for server in servers:
                samples = run.samples.get((group, server.name, load), [])
                if not samples:
                    rows.append([server.name, "missing", *["-"] * 8])
                    continue
                is_peer = server.name != toolb_name(group)
                rate = median(run.ratios(group, load, server.name, "rate")) if is_peer else None
                cpu = median(run.ratios(group, load, server.name, "cpu")) if is_peer else None
                rows.append(
                    [
                        server.name,
                        cell(median(s.rate for s in samples), ",.0f"),
                        cell(median(s.p50 for s in samples), ".2f"),
                        cell(median(s.p99 for s in samples), ".2f"),
                        cell(median(s.cpu for s in samples), ".2f"),
                        cell(max(s.rss for s in samples) / 1024, ".1f"),
                        cell(max(s.pss for s in samples) / 1024, ".1f"),
                        str(samples[-1].processes),
                        f"{rate:.2f} x" if rate else "-",
                        f"{cpu:.2f} x" if cpu else "-",
                    ]
                )
            suffix = ", sixteen requests a write" if load == PIPELINED else ""
            plural = "" if load == "1" else "s"
            parts.append(f"### {TITLES[group]}, {load.split()[0]} connection{plural}{suffix}\n")
            parts.append(columns(head, rows) + "\n")
    return "\n".join(parts)


def columns(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([line(head), "| " + " | ".join(rule) + " |", *map(line, rows)])


@dataclass
class Verdict:
    what: str
    ratio: float | None
    low: float | None
    high: float | None
    floor: float | None
    aim: float
    ceiling: float | None  # the ratio that the bare C epoll server reaches: wrk shares the cores
    verdict: str  # "aim", "floor", "BELOW" or "not measured"


def judge(run: Run, options: argparse.Namespace, groups: Iterable[str]) -> list[Verdict]:
    verdicts = []
    for f in FLOORS:
        if f.group not in groups or f.load not in options.loads:
            continue
        ratios = run.ratios(f.group, f.load, f.peer, f.metric)
        ratio = median(ratios)
        if ratio is None:
            word = "not measured"
        elif f.holds(ratio, f.aim):
            word = "aim"
        elif f.floor is None:
            word = "short of aim"
        else:
            word = "floor" if f.holds(ratio, f.floor) else "BELOW"
        low, high = (min(ratios), max(ratios)) if ratios else (None, None)
        ceiling = None
        if f.metric == "rate":
            limit = median(x.rate for x in run.samples.get(("c", "bare C epoll", f.load), []))
            peer = median(x.rate for x in run.samples.get((f.group, f.peer, f.load), []))
            ceiling = limit / peer if limit and peer else None
        verdicts.append(Verdict(f.label(), ratio, low, high, f.floor, f.aim, ceiling, word))
    return verdicts


def floors_table(verdicts: list[Verdict]) -> str:
    rows = []
    for v in verdicts:
        spread = f"{v.low:.2f} - {v.high:.2f}" if v.low is not None else "-"
        sign = "<=" if "CPU" in v.what else ">="
        rows.append(
            [
                v.what,
                cell(v.ratio, ".2f"),
                spread,
                f"{sign} {v.floor:.2f}" if v.floor else "-",
                f"{sign} {v.aim:.2f}",
                cell(v.ceiling, ".2f"),
                v.verdict,
            ]
        )
    return columns(["promise", "ratio", "rounds", "floor", "aim", "ceiling", "reached"], rows)


def machine() -> dict[str, str | int]:
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


def document(run: Run, options: argparse.Namespace, groups: dict[str, list[Server]]) -> str:
    verdicts = judge(run, options, groups)
    m = machine()
    lines = [
        f"## {options.name}: {run.rounds} interleaved rounds of {options.seconds} s, medians\n",
        f"{m['cores']} cores ({m['cpu']}), Linux {m['kernel']}, Python {m['python']}; the load "
        "generator (wrk -t1) shares them. " + ", ".join(named_versions(run)) + ".\n",
    ]
    for (group, name), why in run.absent.items():
        lines.append(f"**{TITLES[group]}: {name} is missing**: {why.splitlines()[0]}\n")
    noisy = [s.foreign for samples in run.samples.values() for s in samples]
    if noisy and max(noisy) > 0.05:
        lines.append(
            f"**Noise**: other programs used up to {max(noisy):.0%} of the machine "
            f"({statistics.median(noisy):.0%} in the median load).\n"
        )
    remarks = sorted(
        {
            f"{g} {n} c{load}: {r}"
            for (g, n, load), ss in run.samples.items()
            for s in ss
            for r in s.remarks
        }
    )
    lines += [f"**Remark**: {r}\n" for r in remarks]
    lines += [table(run, options, groups), "### Promises\n", floors_table(verdicts), ""]
    return "\n".join(lines)


def named_versions(run: Run) -> list[str]:
    return sorted({f"{name} {v}" for (_, name), v in run.versions.items() if v})


def as_json(run: Run, options: argparse.Namespace, groups: dict[str, list[Server]]) -> str:
    return json.dumps(
        {
            "name": options.name,
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "machine": machine(),
            "versions": {n: v for (_, n), v in sorted(run.versions.items()) if v},
            "seconds": options.seconds,
            "rounds": run.rounds,
            "missing": {f"{g}/{n}": why.splitlines()[0] for (g, n), why in run.absent.items()},
            "promises": [asdict(v) for v in judge(run, options, groups)],
            "idle memory KiB": {
                f"{g}/{n}": [asdict(m) for m in ms] for (g, n), ms in run.idle.items()
            },
            "samples": [
                {"group": g, "server": n, "load": load, **asdict(s)}
                for (g, n, load), samples in run.samples.items()
                for s in samples
            ],
        },
        indent=1,
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="bench/run.py", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    p.add_argument(
        "--quick", action="store_true", help="64 connections only, 3 short rounds, under 2 minutes"
    )
    p.add_argument("--rounds", type=int, help="rounds (5; quick: 3)")
    p.add_argument("--seconds", type=int, help="seconds of each load (4; quick: 2)")
    p.add_argument("--loads", help=f"connections, by commas (1,64,512,{PIPELINED}; quick: 64)")
    p.add_argument("--only", default="raw,fastapi,c", help="groups, by commas (raw,fastapi,c)")
    p.add_argument(
        "--budget", type=float, help="no new round that would end later, seconds (720; quick: 110)"
    )
    p.add_argument("--name", help="name of the result (full; quick)")
    p.add_argument(
        "--bin",
        type=Path,
        default=Path(sys.executable).parent,
        help="directory of the Python programs (this Python's)",
    )
    p.add_argument(
        "--toolb",
        type=Path,
        default=env_path("TOOLB_BIN"),
        help="toolb program ($TOOLB_BIN, else beside this Python)",
    )
    p.add_argument(
        "--c-server",
        default=os.environ.get("TOOLB_C_SERVER"),
        help="command of the C example, {port} replaced ($TOOLB_C_SERVER)",
    )
    p.add_argument(
        "--out", type=Path, default=HERE / "results", help="where the result goes (bench/results)"
    )
    p.add_argument("--no-plot", action="store_true", help="write no picture (needs no matplotlib)")
    p.add_argument(
        "--check", action="store_true", help="exit with 1 unless every floor was measured and holds"
    )
    o = p.parse_args(arguments)
    o.rounds = o.rounds or (3 if o.quick else 5)
    o.seconds = o.seconds or (2 if o.quick else 4)
    o.budget = o.budget or (110 if o.quick else 720)
    o.name = o.name or ("quick" if o.quick else "full")
    o.loads = (o.loads or ("64" if o.quick else f"1,64,512,{PIPELINED}")).split(",")
    o.only = o.only.split(",")
    if unknown := [g for g in o.only if g not in TITLES]:
        p.error(f"--only knows {', '.join(TITLES)}, not {', '.join(unknown)}")
    if not re.fullmatch(r"[\w.-]+", o.name):
        p.error("--name is a file name without its ending")
    return o


def env_path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).absolute() if value else None


def main() -> int:
    options = parse()
    if not shutil.which("wrk"):
        say("bench: wrk is not installed (apt install wrk)")
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    interrupt_on_terminate()
    everything = all_servers(Tools(options.bin.absolute(), options.toolb, options.c_server))
    groups = {name: everything[name] for name in options.only}
    began = time.monotonic()
    try:
        run = compare(options, groups)
    except KeyboardInterrupt:
        say("bench: interrupted; the servers are stopped and nothing is written")
        return 130
    text = document(run, options, groups)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(as_json(run, options, groups) + "\n")
    (options.out / f"{options.name}.md").write_text(text)
    print(text)
    say(
        f"took {time.monotonic() - began:.0f} s; written: {options.name}.json and {options.name}.md"
    )
    if not options.no_plot:
        plot(options.out / f"{options.name}.json")
    verdicts = judge(run, options, groups)
    if options.check and any(v.verdict in ("BELOW", "not measured") for v in verdicts):
        return 1
    return 0


def plot(result: Path) -> None:
    """In a process of its own: only the picture needs matplotlib."""
    done = subprocess.run([sys.executable, str(HERE / "plot.py"), str(result)], check=False)
    if done.returncode:
        say("no picture was drawn (pip install -r bench/requirements.txt brings matplotlib)")


if __name__ == "__main__":
    sys.exit(main())
