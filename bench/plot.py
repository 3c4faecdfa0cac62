#!/usr/bin/env python3
"""Draws a result of run.py as a picture beside it: python bench/plot.py bench/results/full.json"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TITLES = {"raw": "raw ASGI", "fastapi": "FastAPI", "c": "inline C"}
OURS, PEERS = "#c2410c", ["#64748b", "#94a3b8", "#cbd5e1"]


def medians(samples: list[dict[str, Any]], key: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for s in samples:
        values.setdefault(s["server"], []).append(s[key])
    order = sorted(values, key=lambda name: not name.startswith("toolb"))
    return {name: statistics.median(values[name]) for name in order}


def draw(result: Path) -> Path | None:
    data = json.loads(result.read_text())
    of = {g: [s for s in data["samples"] if s["group"] == g and s["load"] == "64"] for g in TITLES}
    groups = [g for g in TITLES if of[g]]
    if not groups:
        print(f"{result.name} has nothing at 64 connections to draw", file=sys.stderr)
        return None
    figure, axes = plt.subplots(
        2, len(groups), figsize=(4.2 * len(groups), 6.4), squeeze=False, layout="constrained"
    )
    for column, group in enumerate(groups):
        for row, (key, label, form) in enumerate(
            [("rate", "requests per second", "{:,.0f}"), ("cpu", "CPU per request, µs", "{:.1f}")]
        ):
            ax = axes[row][column]
            values = medians(of[group], key)
            peers = iter(PEERS)
            colours = [OURS if n.startswith("toolb") else next(peers) for n in values]
            bars = ax.bar(list(values), list(values.values()), color=colours)
            ax.bar_label(
                bars, labels=[form.format(v) for v in values.values()], padding=2, fontsize=9
            )
            ax.set_title(f"{TITLES[group]}: {label}", fontsize=10)
            ax.margins(y=0.15)
            ax.spines[["top", "right"]].set_visible(False)
            ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
            ax.tick_params(labelsize=9)
    m = data["machine"]
    figure.suptitle(
        f"64 connections, one worker, {data['rounds']} rounds of {data['seconds']} s, medians; "
        f"{m['cores']} cores shared with wrk; Python {m['python']}",
        fontsize=10,
    )
    target = result.with_suffix(".png")
    figure.savefig(target, dpi=110, metadata={"Software": None})
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: plot.py RESULT.json")
    draw(Path(sys.argv[1]))
