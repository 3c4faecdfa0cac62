"""What a run has found, as Markdown that also reads well in a terminal, and as JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from load import NATIVE_LOADS, title
from promises import BASELINES, TITLES, Run, Verdict, judge, median
from trips import BARE, Trips


@dataclass(frozen=True)
class Plan:
    """What was to be measured: a name, the length of a load, loads, and servers by group."""

    name: str
    seconds: int
    loads: list[str]
    servers: dict[str, list[str]]

    def loads_of(self, group: str) -> list[str]:
        """The loads of one group."""
        return [x for x in self.loads if x not in NATIVE_LOADS or group == "native"]

    def judge(self, run: Run) -> list[Verdict]:
        """Its promises."""
        return judge(run, self.loads, self.servers)


def document(run: Run, plan: Plan) -> str:
    """The whole result."""
    m = machine()
    lines = [
        f"## {plan.name}: {run.rounds} interleaved rounds of {plan.seconds} s, medians\n",
        f"{m['cores']} cores ({m['cpu']}), Linux {m['kernel']}, Python {m['python']}; the load "
        "generator (wrk -t1) shares them. " + ", ".join(named_versions(run)) + ".\n",
    ]
    lines += [f"**Missing: {what}**: {why}\n" for what, why in missing(run).items()]
    noisy = [s.foreign for samples in run.samples.values() for s in samples]
    if noisy and max(noisy) > 0.05:
        lines.append(
            f"**Noise**: other programs used up to {max(noisy):.0%} of the machine "
            f"({statistics.median(noisy):.0%} in the median load).\n"
        )
    if run.trips and run.trips.foreign > 0.05:
        lines.append(
            f"**Noise**: other programs used {run.trips.foreign:.0%} of the machine during the "
            "round trips.\n"
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
    lines += [
        group_table(run, group, servers, load)
        for group, servers in plan.servers.items()
        for load in plan.loads_of(group)
    ]
    if run.trips:
        lines += [trips_table(run.trips), lateness_table(run.trips)]
    lines += ["### Promises\n", floors_table(plan.judge(run)), ""]
    return "\n".join(line for line in lines if line) + "\n"


def missing(run: Run) -> dict[str, str]:
    """What could not be measured, and why, in one line each."""
    found = {f"{TITLES[g]}, {n}": why for (g, n), why in run.absent.items()}
    found |= run.trips.absent if run.trips else {}
    return {what: (why.splitlines() or [""])[0] for what, why in found.items()}


def group_table(run: Run, group: str, servers: list[str], load: str) -> str:
    """One load on all servers of a group."""
    first = BASELINES[group]
    head = ["server", "req/s", "p50 ms", "p99 ms", "CPU us/req", "RSS MiB", "PSS MiB",
            "processes", f"{first}'s req/s is", f"{first}'s CPU is"]  # fmt: skip
    rows = []
    for server in servers:
        samples = run.samples.get((group, server, load), [])
        if not samples:
            rows.append([server, "missing", *["-"] * 8])
            continue
        rate, cpu = (
            median(run.ratios(group, load, first, server, metric)) if server != first else None
            for metric in ("rate", "cpu")
        )
        rows.append(
            [
                server,
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
    return f"### {TITLES[group]}, {title(load)}\n\n{columns(head, rows)}\n"


def trips_table(trips: Trips) -> str:
    """Round trips between two processes."""
    if not trips.rows:
        return ""
    bare = trips.value(BARE, 8, "p50")
    sizes = {"8 B": 8, "64 B": 64, "1 KiB": 1024}
    head = ["way", *(f"{size} {key}" for size in sizes for key in ("p50 ns", "p99", "/ bare"))]
    rows = []
    for way in trips.ways():
        row = [way]
        for size in sizes.values():
            p50 = trips.value(way, size, "p50")
            row += [cell(p50, ",.0f"), cell(trips.value(way, size, "p99"), ",.0f")]
            row.append(f"{p50 / bare:.2f} x" if p50 and bare else "-")
        rows.append(row)
    text = [f"### Round trips between two processes\n\n{columns(head, rows)}\n"]
    text.append(
        "Each process on a core of its own. The bare cache line carries a number and nothing else; "
        "bare lines carry the bytes, and no protocol.\n"
    )
    if shared := trips.rounds_on_one_core():
        rounds = sum(r["way"] == BARE for r in trips.rows)
        text.append(
            f"**Remark**: in {shared} of {rounds} rounds the bare line was as fast as between two "
            "threads of one core: the hypervisor had put both processes there.\n"
        )
    if trips.dropped:
        text.append(
            f"**Remark**: {trips.dropped} of {len(trips.rows) + trips.dropped} measurements had "
            "hardly any trips, since others had the core, and are left out.\n"
        )
    if trips.calls:
        calls = ", ".join(f"{n:.2f} {name}" for name, n in sorted(trips.calls.items()))
        text.append(
            f"System calls of both sides in one sleeping round trip, under strace: {calls}.\n"
        )
    return "\n".join(text)


def lateness_table(trips: Trips) -> str:
    """How late timeouts of streams came."""
    late = trips.lateness
    if not late:
        return ""
    keys = ["min", "p50", "p90", "p99", "max"]
    row = [f"{late['streams']} silent streams, {late['wait_ms']} ms each", f"{late['timeouts']:,}"]
    row += [f"{late[k] / 1000:.2f}" for k in keys]
    table = columns(["timeouts of streams", "count", *(f"{k} ms" for k in keys)], [row])
    return f"### How late timeouts come\n\n{table}\n"


def floors_table(verdicts: list[Verdict]) -> str:
    """All promises and what became of them."""
    rows = []
    for v in verdicts:
        sign = "<=" if v.small else ">="
        rows.append(
            [
                v.what,
                cell(v.ratio, ".2f"),
                f"{v.low:.2f} - {v.high:.2f}" if v.low is not None else "-",
                f"{sign} {v.floor:.2f}" if v.floor else "-",
                f"{sign} {v.aim:.2f}",
                cell(v.limit, ".2f"),
                v.verdict,
            ]
        )
    return columns(["promise", "ratio", "rounds", "floor", "aim", "limit", "reached"], rows)


def columns(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns are aligned."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([line(head), "| " + " | ".join(rule) + " |", *map(line, rows)])


def cell(value: float | None, form: str) -> str:
    """A figure, or a dash."""
    return "-" if value is None else format(value, form)


def machine() -> dict[str, str | int]:
    """What it ran on."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


def named_versions(run: Run) -> list[str]:
    """Every program with its release, once."""
    return sorted({f"{name} {v}" for (_, name), v in run.versions.items() if v})


def as_json(run: Run, plan: Plan) -> str:
    """Every single sample."""
    return json.dumps(
        {
            "name": plan.name,
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "machine": machine(),
            "versions": {n: v for (_, n), v in sorted(run.versions.items()) if v},
            "seconds": plan.seconds,
            "rounds": run.rounds,
            "missing": missing(run),
            "promises": [asdict(v) for v in plan.judge(run)],
            "idle memory KiB": {
                f"{g}/{n}": [asdict(m) for m in ms] for (g, n), ms in run.idle.items()
            },
            "trips": asdict(run.trips) if run.trips else None,
            "samples": [
                {"group": g, "server": n, "load": load, **asdict(s)}
                for (g, n, load), samples in run.samples.items()
                for s in samples
            ],
        },
        indent=1,
    )
