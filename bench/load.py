"""One load on one server: wrk, and what the server's process tree spent on it."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import proctree

HERE = Path(__file__).resolve().parent
PIPELINED = "64 x16"  # 64 connections, sixteen requests in each write
CLOSING = "64 close"  # 64 at a time, each for one request
NATIVE_LOADS = (PIPELINED, CLOSING)
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0, "h": 3.6e6}


class WrkError(Exception):
    """The load came to nothing; the text says how."""


@dataclass(frozen=True)
class Answer:
    """What wrk said. It knows no latency of pipelined requests."""

    requests: int
    rate: float  # requests per second
    p50: float | None  # ms
    p99: float | None  # ms
    remarks: list[str]


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


def title(load: str) -> str:
    """A load in words."""
    connections = load.split()[0]
    plural = "" if connections == "1" else "s"
    rest = {PIPELINED: ", sixteen requests a write", CLOSING: ", a new one for each request"}
    return f"{connections} connection{plural}{rest.get(load, '')}"


def command(url: str, load: str, seconds: int) -> list[str]:
    """How wrk is called for a load."""
    words = ["wrk", "-t1", f"-c{load.split()[0]}", f"-d{seconds}s", "--latency"]
    if load == PIPELINED:
        words += ["-s", str(HERE / "peers" / "pipeline.lua")]
    if load == CLOSING:
        words += ["-H", "Connection: close"]
    return [*words, url]


def parse(out: str, load: str) -> Answer | None:
    """What wrk printed; None if that is no result."""
    total = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if not total or not rate or int(total[1]) == 0:
        return None

    def percentile(p: int) -> float | None:
        found = re.search(rf"^\s+{p}%\s+([\d.]+)([a-z]+)\s*$", out, re.MULTILINE)
        value = float(found[1]) * UNITS[found[2]] if found else 0.0
        return value if value and load != PIPELINED else None

    remarks = re.findall(r"^\s*((?:Socket errors|Non-2xx).*)$", out, re.MULTILINE)
    return Answer(int(total[1]), float(rate[1]), percentile(50), percentile(99), remarks)


def wrk(url: str, load: str, seconds: int) -> Answer:
    """Runs wrk to its end."""
    words = command(url, load, seconds)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        out, _ = process.communicate(timeout=seconds + 15)
    except subprocess.TimeoutExpired:
        raise WrkError(f"wrk did not end {seconds + 15} s after its start") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    answer = parse(out, load)
    if process.returncode or not answer:
        raise WrkError(f"{' '.join(words)} ended with {process.returncode}: {out.strip()}")
    return answer


def measure(running_pid: int, url: str, load: str, seconds: int, number: int) -> Sample:
    """One load, and the CPU time of the server's tree beside it."""
    wrk_before = children_cpu()
    busy_before = proctree.machine_busy()
    before = proctree.cpu(running_pid)
    clock = time.monotonic()
    answer = wrk(url, load, seconds)
    clock = time.monotonic() - clock
    after = proctree.cpu(running_pid)
    own = before.until(after)
    foreign = proctree.machine_busy() - busy_before - own - (children_cpu() - wrk_before)
    memory = proctree.memory(running_pid)
    remarks = list(answer.remarks)
    if lost := before.lost(after):
        remarks.append(f"{len(lost)} of the server's processes ended under load")
    return Sample(
        round=number,
        requests=answer.requests,
        rate=answer.rate,
        p50=answer.p50,
        p99=answer.p99,
        cpu=own * 1e6 / answer.requests,
        rss=memory.rss,
        pss=memory.pss,
        processes=memory.processes,
        foreign=share_of_machine(foreign, clock),
        remarks=remarks,
    )


def children_cpu() -> float:
    """CPU time of the programs we waited for: wrk, and servers that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def share_of_machine(busy: float, clock: float) -> float:
    """Seconds of CPU as a share of what all cores had in that time."""
    return max(0.0, busy / clock / (os.cpu_count() or 1))
