#!/usr/bin/env python3
"""Compares servers in one run and holds toolb to its promises. See README.md beside this file.

python bench/run.py              everything, about 14 minutes
python bench/run.py --quick      64 connections only, about 2 minutes
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import proctree
import trips
from load import CLOSING, HERE, NATIVE_LOADS, PIPELINED, WrkError, measure, wrk
from promises import TITLES, Run
from report import Plan, as_json, document
from servers import (
    MissingError,
    Server,
    StartError,
    add_tool_options,
    all_servers,
    interrupt_on_terminate,
    start,
    tools_of,
)

GROUPS = [*TITLES, "bus"]


def main() -> int:
    options = parse()
    if not shutil.which("wrk"):
        say("bench: wrk is not installed (apt install wrk)")
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    interrupt_on_terminate()
    tools = tools_of(options)
    everything = all_servers(tools)
    groups = {name: everything[name] for name in options.only if name != "bus"}
    names = {group: [s.name for s in servers] for group, servers in groups.items()}
    plan = Plan(options.name, options.seconds, options.loads, names)
    began = time.monotonic()
    run = Run()
    try:
        if "bus" in options.only:
            say("round trips between two processes ...")
            run.trips = trips.gather(tools.native, 4 * options.rounds, 100, options.seconds)
            for what, why in run.trips.absent.items():
                say(f"{what}: LEFT OUT: {why}")
        compare(run, options, plan, groups)
    except KeyboardInterrupt:
        say("bench: interrupted; the servers are stopped and nothing is written")
        return 130
    text = document(run, plan)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(as_json(run, plan) + "\n")
    (options.out / f"{options.name}.md").write_text(text)
    print(text)
    say(
        f"took {time.monotonic() - began:.0f} s; written: {options.name}.json and {options.name}.md"
    )
    if not options.no_plot:
        plot(options.out / f"{options.name}.json")
    if options.check and any(v.verdict in ("BELOW", "not measured") for v in plan.judge(run)):
        return 1
    return 0


def compare(
    run: Run, options: argparse.Namespace, plan: Plan, groups: dict[str, list[Server]]
) -> None:
    """Rounds of all servers, each started anew, in an order that turns."""
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
                    one_server(run, plan, group, server, number)
        longest = max(longest, time.monotonic() - began - spent)
        run.rounds = number + 1


def one_server(run: Run, plan: Plan, group: str, server: Server, number: int) -> None:
    """Starts a server, puts every load on it, and stops it."""
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
        for load in plan.loads_of(group):
            sample = measure(running.pid, running.url, load, plan.seconds, number)
            run.samples.setdefault((group, server.name, load), []).append(sample)
            say(
                f"round {number + 1}  {TITLES[group]:9} {server.name:18} c{load:8}"
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
        for load in plan.loads:
            run.samples.pop((group, server.name, load), None)
        say(f"{TITLES[group]}: {server.name} is LEFT OUT: {e}\n{running.last_words()}")
    finally:
        running.stop()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="bench/run.py", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    p.add_argument(
        "--quick", action="store_true", help="64 connections only, 2 short rounds, about 2 minutes"
    )
    p.add_argument("--rounds", type=int, help="rounds (5; quick: 2)")
    p.add_argument("--seconds", type=int, help="seconds of each load (3; quick: 2)")
    loads = ["64", *NATIVE_LOADS]
    p.add_argument(
        "--loads", help=f"connections, by commas (1,512,{','.join(loads)}; quick: not 1, 512)"
    )
    p.add_argument(
        "--only", default=",".join(GROUPS), help=f"groups, by commas ({','.join(GROUPS)})"
    )
    p.add_argument(
        "--budget", type=float, help="no new round that would end later, seconds (780; quick: 130)"
    )
    p.add_argument("--name", help="name of the result (full; quick)")
    add_tool_options(p)
    p.add_argument(
        "--out", type=Path, default=HERE / "results", help="where the result goes (bench/results)"
    )
    p.add_argument("--no-plot", action="store_true", help="write no picture (needs no matplotlib)")
    p.add_argument(
        "--check", action="store_true", help="exit with 1 unless every floor was measured and holds"
    )
    o = p.parse_args(arguments)
    o.rounds = o.rounds or (2 if o.quick else 5)
    o.seconds = o.seconds or (2 if o.quick else 3)
    o.budget = o.budget or (130 if o.quick else 780)
    o.name = o.name or ("quick" if o.quick else "full")
    o.loads = (
        o.loads.split(",") if o.loads else loads if o.quick else ["1", "64", "512", *NATIVE_LOADS]
    )
    known = re.compile(rf"[1-9]\d*|{re.escape(PIPELINED)}|{re.escape(CLOSING)}")
    if unknown := [x for x in o.loads if not known.fullmatch(x)]:
        p.error(f"--loads knows numbers, {PIPELINED!r} and {CLOSING!r}, not {', '.join(unknown)}")
    o.only = o.only.split(",")
    if unknown := [g for g in o.only if g not in GROUPS]:
        p.error(f"--only knows {', '.join(GROUPS)}, not {', '.join(unknown)}")
    if not re.fullmatch(r"[\w.-]+", o.name):
        p.error("--name is a file name without its ending")
    return o


def plot(result: Path) -> None:
    """In a process of its own: only the picture needs matplotlib."""
    done = subprocess.run([sys.executable, str(HERE / "plot.py"), str(result)], check=False)
    if done.returncode:
        say("no picture was drawn (pip install -r bench/requirements.txt brings matplotlib)")


if __name__ == "__main__":
    sys.exit(main())
