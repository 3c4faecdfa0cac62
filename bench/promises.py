"""What toolb promises against its peers, and whether a run has kept it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

import proctree
from load import PIPELINED, Sample
from trips import IN_PLACE, POLLING, Trips

TITLES = {"raw": "raw ASGI", "fastapi": "FastAPI", "native": "native"}
# What the other servers of a group are compared with in its tables.
BASELINES = {"raw": "toolb", "fastapi": "toolb", "native": "toolb inline C"}
BARE = "bare C epoll"


@dataclass
class Run:
    """What a whole comparison has found."""

    samples: dict[tuple[str, str, str], list[Sample]] = field(default_factory=dict)
    absent: dict[tuple[str, str], str] = field(default_factory=dict)  # (group, server) -> why
    idle: dict[tuple[str, str], list[proctree.Memory]] = field(default_factory=dict)
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    trips: Trips | None = None
    rounds: int = 0

    def ratios(self, group: str, load: str, ours: str, peer: str, metric: str) -> list[float]:
        """One server over another, round by round, so that drift of the machine cancels out."""
        mine, theirs = (
            {s.round: getattr(s, metric) for s in self.samples.get((group, name, load), [])}
            for name in (ours, peer)
        )
        both = sorted(mine.keys() & theirs.keys())
        return [mine[r] / theirs[r] for r in both if mine[r] and theirs[r]]


@dataclass(frozen=True)
class Floor:
    """One promise: a server against a peer. CPU has to be small, rates large."""

    group: str
    load: str
    metric: str  # "cpu" or "rate"
    ours: str
    peer: str
    floor: float | None
    aim: float

    def label(self) -> str:
        what = "CPU per request" if self.metric == "cpu" else "req/s"
        name = TITLES[self.group]
        if self.ours not in ("toolb", name):
            name = self.ours.removeprefix("toolb ")
        return f"{name}, {self.load}: {what} / {self.peer}"


FLOORS = [
    Floor("raw", "64", "cpu", "toolb", "granian", 0.55, 0.45),
    Floor("raw", "64", "cpu", "toolb", "uvicorn", 0.35, 0.30),
    Floor("raw", "64", "rate", "toolb", "granian", 1.8, 2.5),
    Floor("raw", "64", "rate", "toolb", "uvicorn", 3.2, 4.5),
    Floor("fastapi", "64", "rate", "toolb", "uvicorn", 1.15, 1.25),
    Floor("native", "64", "cpu", "toolb inline C", BARE, 1.3, 1.15),
    Floor("native", "64", "cpu", "toolb inline C++", BARE, 1.3, 1.15),
    Floor("native", PIPELINED, "rate", "toolb inline C", "nginx", None, 5.0),
    Floor("native", PIPELINED, "rate", "toolb inline C++", "nginx", None, 5.0),
    Floor("native", "64", "rate", "toolb C++ over bus", "toolb inline C++", 0.5, 0.65),
]


@dataclass
class Verdict:
    what: str
    small: bool  # the ratio has to be at most the floor, not at least
    ratio: float | None
    low: float | None
    high: float | None
    floor: float | None
    aim: float
    limit: float | None  # the ratio of what does nothing but move the bytes, in the same run
    verdict: str  # "aim", "floor", "short of aim", "BELOW" or "not measured"


def judge(run: Run, loads: Iterable[str], groups: Iterable[str]) -> list[Verdict]:
    """All promises about these loads and groups, and about the bus if that was measured at all."""
    verdicts = []
    loads, groups = list(loads), list(groups)
    for f in FLOORS:
        if f.group not in groups or f.load not in loads:
            continue
        ratios = run.ratios(f.group, f.load, f.ours, f.peer, f.metric)
        limit = None
        if f.metric == "rate":
            bare = median(x.rate for x in run.samples.get(("native", BARE, f.load), []))
            peer = median(x.rate for x in run.samples.get((f.group, f.peer, f.load), []))
            limit = bare / peer if bare and peer else None
        verdicts.append(verdict(f.label(), f.metric == "cpu", ratios, f.floor, f.aim, limit))
    if run.trips:
        calls = run.trips.calls_per_sleep()
        verdicts += [
            verdict(
                "rings, polling, 64 bytes: round trip / bare cache line",
                True, run.trips.ratios(POLLING, 64), 2.0, 1.5,
                median(run.trips.ratios(IN_PLACE, 64)),
            ),
            verdict(
                "rings, sleeping: system calls per sleep and side",
                True, [] if calls is None else [round(calls, 2)], 1.0, 1.0,
            ),
        ]  # fmt: skip
    return verdicts


def verdict(
    what: str,
    small: bool,
    ratios: list[float],
    floor: float | None,
    aim: float,
    limit: float | None = None,
) -> Verdict:
    """Holds the median of some ratios against a promise."""

    def holds(bound: float) -> bool:
        return ratio is not None and (ratio <= bound if small else ratio >= bound)

    ratio = median(ratios)
    if ratio is None:
        word = "not measured"
    elif holds(aim):
        word = "aim"
    elif floor is None:
        word = "short of aim"
    else:
        word = "floor" if holds(floor) else "BELOW"
    low, high = (min(ratios), max(ratios)) if ratios else (None, None)
    return Verdict(what, small, ratio, low, high, floor, aim, limit, word)


def median(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
