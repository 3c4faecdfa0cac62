#!/usr/bin/env python3
"""Draws a result of run.py as a picture beside it: python bench/plot.py bench/results/full.json"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TITLES = {"raw": "raw ASGI", "fastapi": "FastAPI", "native": "native"}
LOADS = {"64": "", "64 x16": ", x16 pipelined", "64 close": ", connection per request"}
OURS, PEERS = "#c2410c", "#94a3b8"
WIDE = 3  # panels in a row


@dataclass(frozen=True)
class Panel:
    """One small picture: a bar for each name."""

    title: str
    values: dict[str, float]
    form: str


def panels(data: dict[str, Any]) -> list[Panel]:
    """All that a result has to show: rates in one row, their CPU in the next."""
    rates, costs = [], []
    for load, suffix in LOADS.items():
        for group, title in TITLES.items():
            samples = [s for s in data["samples"] if (s["group"], s["load"]) == (group, load)]
            if not samples:
                continue
            name = f"{title}{suffix}"
            rates.append(Panel(f"{name}: requests per second", medians(samples, "rate"), "{:,.0f}"))
            costs.append(Panel(f"{name}: CPU per request, µs", medians(samples, "cpu"), "{:.1f}"))
    rows = (data.get("trips") or {}).get("rows", [])
    small = [
        r | {"server": r["way"].removesuffix(", polling")}
        for r in rows
        if r["bytes"] == 64 or r["way"].startswith("bare")
    ]
    for panel, polls in ((rates, True), (costs, False)):
        trips = medians([r for r in small if r["way"].endswith("polling") == polls], "p50")
        how = "polling" if polls else "sleeping"
        if trips:
            panel.append(Panel(f"round trip, 64 B, {how}: p50, ns", trips, "{:,.0f}"))
    found = []
    for at in range(0, len(rates), WIDE):
        found += rates[at : at + WIDE] + costs[at : at + WIDE]
    return found


def medians(samples: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Of each server, ours first."""
    values: dict[str, list[float]] = {}
    for s in samples:
        values.setdefault(s["server"], []).append(s[key])
    order = sorted(values, key=lambda name: not is_ours(name))
    return {name: statistics.median(values[name]) for name in order}


def is_ours(name: str) -> bool:
    return name.startswith(("toolb", "rings"))


def draw(result: Path) -> Path | None:
    data = json.loads(result.read_text())
    found = panels(data)
    if not found:
        print(f"{result.name} has nothing at 64 connections to draw", file=sys.stderr)
        return None
    tall = -(-len(found) // WIDE)
    figure, axes = plt.subplots(
        tall, WIDE, figsize=(4.4 * WIDE, 2.3 * tall), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    for ax, panel in zip(axes.flat, found, strict=False):
        names = list(panel.values)
        bars = ax.barh(
            names, list(panel.values.values()), color=[OURS if is_ours(n) else PEERS for n in names]
        )
        labels = [panel.form.format(v) for v in panel.values.values()]
        ax.bar_label(bars, labels=labels, padding=3, fontsize=8)
        ax.invert_yaxis()
        ax.set_title(panel.title, fontsize=9)
        ax.margins(x=0.2)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(labelsize=8)
    m = data["machine"]
    figure.suptitle(
        f"64 connections, one worker, {data['rounds']} rounds of {data['seconds']} s, medians; "
        f"{m['cores']} cores shared with wrk; Python {m['python']}",
        fontsize=10,
    )
    target = result.with_suffix(".png")
    figure.savefig(target, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: plot.py RESULT.json")
    draw(Path(sys.argv[1]))
