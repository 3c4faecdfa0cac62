"""Starts `toolb run`, looks at it from outside, and ends it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from program import Output

from . import native
from .http1 import Connection

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
URL = re.compile(r"http://([\w.\-]+|\[[0-9a-f:]+\]):(\d+)")
PATIENCE = 30.0
# A request waits for its worker as long as a busy machine may take to start one.
QUEUE = ("--queue-timeout", "60s")
T = TypeVar("T")


def toolb() -> str:
    """$TOOLB_BIN, or the program that was built into the virtual environment."""
    if given := os.environ.get("TOOLB_BIN"):
        return str(Path(given).resolve()) if "/" in given else given
    for place in (ROOT / ".venv" / "bin" / "toolb", Path(sys.executable).with_name("toolb")):
        if place.exists():
            return str(place)
    pytest.fail("there is no .venv/bin/toolb: run `make build`, or set TOOLB_BIN", pytrace=False)


def wait_until(
    what: str, check: Callable[[], T], patience: float = PATIENCE, pause: float = 0.01
) -> T:
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + patience
    while True:
        if result := check():
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"{patience:.0f} s were not enough until {what} (last seen: {result!r})")
        time.sleep(pause)  # not-sync: the pause between two looks


# Processes.


@dataclass(frozen=True)
class Process:
    pid: int
    state: str
    parent: int
    started: int

    @property
    def zombie(self) -> bool:
        return self.state in "ZX"


def process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Of one that goes just then there may be nothing to read.
    if not text:
        return None
    words = text[text.rindex(")") + 2 :].split()
    return Process(pid, words[0], int(words[1]), int(words[19]))


def everyone() -> list[Process]:
    numbers = (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
    return [p for n in numbers if (p := process(n))]


def children(pid: int, zombies: bool = False) -> list[Process]:
    return [p for p in everyone() if p.parent == pid and (zombies or not p.zombie)]


def descendants(pid: int) -> list[Process]:
    found: dict[int, Process] = {}
    all_of_them = everyone()
    parents = {pid}
    while parents:
        new = {p.pid: p for p in all_of_them if p.parent in parents and p.pid not in found}
        found |= new
        parents = set(new)
    return list(found.values())


def alive(known: Iterable[Process]) -> list[Process]:
    """Which of them still run, told from later owners of their numbers."""
    now = ((p, process(p.pid)) for p in known)
    return [p for p, q in now if q and q.started == p.started and not q.zombie]


def status_kib(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, f"/proc/PID/status has no {name}"
    return int(found[1])


def rss(pid: int) -> int:
    """KiB of one process, without its children."""
    return status_kib(pid, "VmRSS")


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss(pid: int) -> int:
    """The most since `reset_peak`, in KiB; the kernel misses no moment."""
    return status_kib(pid, "VmHWM")


def descriptors(pid: int) -> list[str]:
    """What the open descriptors of a process are, sockets and pipes without their numbers."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(re.sub(r"\[\d+\]", "", os.readlink(entry)))
    return sorted(found)


def voluntary_switches(pid: int) -> int:
    """How often the threads of a process have gone to sleep by themselves."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            text = (task / "status").read_text()
            total += int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def files_held(pid: int) -> set[str]:
    """Names below /tmp and /dev/shm that a process has open or mapped."""
    names = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        names |= set(descriptors(pid))
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            names.add(line.split(maxsplit=5)[5] if line.count("/") else "")
    return {n for n in names if n.startswith(("/tmp/", "/dev/shm/"))}


# The server.


class Server:
    """A running `toolb run`. Its own process is the engine's; the workers are its children."""

    def __init__(
        self,
        directory: Path,
        application: str = "app:app",
        *,
        workers: int = 1,
        loop: str = "auto",
        flags: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        events: bool = True,
        program: Sequence[str] = (),
    ) -> None:
        """`program`: consumers in C instead of an application, as `native.serving` names them."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.workers = workers
        own = {"TMPDIR": str(directory / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        (directory / "tmp").mkdir(exist_ok=True)
        if events:
            own["ROBUST_DIR"] = str(directory)
        if program:
            native.prepare(directory)
            command = [*wrapper, *program]
        else:
            command = [*wrapper, toolb(), "run", application, "--no-access-log", *flags]
            given = (("--port", "0"), ("--workers", str(workers)), ("--loop", loop), QUEUE)
            for name, value in given:
                if name not in flags and (name != "--port" or "--uds" not in flags):
                    command += [name, value]
        self.process = subprocess.Popen(
            command,
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **own, **(environment or {})},
            start_new_session=True,
        )
        self.wrapped = bool(wrapper)
        self._output = Output(self.process)
        self.lines = self._output.lines
        self.address: tuple[str, int] = ("", 0)

    def said(self) -> str:
        return self._output.text()

    def reads(self) -> bool:
        """Whether somebody may still say something."""
        return not self._output.ended

    def await_banner(self) -> Server:
        found = self._output.until(lambda: URL.search(self.said()), PATIENCE)
        assert found, f"no address was named:\n{self.said()}"
        self.address = (found[1].strip("[]"), int(found[2]))
        return self

    def await_workers(self) -> Server:
        """Returns when every worker has its application up."""
        wait_until(
            f"{self.workers} workers had started",
            lambda: self.process.poll() is not None or len(self.began("STARTUP")) >= self.workers,
        )
        return self

    def connect(self, timeout: float = 20.0) -> Connection:
        return Connection(self.address, timeout)

    @property
    def pid(self) -> int:
        """The engine's process."""
        if not self.wrapped:
            return self.process.pid
        return wait_until("the wrapped program ran", lambda: children(self.process.pid))[0].pid

    def worker_pids(self) -> list[int]:
        return [p.pid for p in children(self.pid)]

    # What the application has seen.

    def events(self) -> list[list[str]]:
        """Event and id, in the order they came; the id of some is empty."""
        path = self.directory / "events"
        if not path.exists():
            return []
        return [words for line in path.read_text().splitlines() if (words := line.split())]

    def began(self, event: str = "BEGIN") -> list[str]:
        """The ids of an event, in order, as often as they came."""
        return [words[1] for words in self.events() if words[0] == event and len(words) > 1]

    def open_gate(self, name: str) -> None:
        (self.directory / f"gate-{name}").touch()

    # Its end.

    def stop(self, patience: float = 25.0) -> int:
        """Asks it to end; the exit code. Whatever does not go is killed, and fails the test."""
        known = descendants(self.process.pid)
        if self.process.poll() is None:
            os.kill(self.pid if self.wrapped else self.process.pid, signal.SIGTERM)
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill(known)
            pytest.fail(f"it did not stop within {patience:.0f} s of SIGTERM:\n{self.said()}")
        left = []
        deadline = time.monotonic() + patience
        while (left := alive(known)) and time.monotonic() < deadline:
            time.sleep(0.01)  # not-sync: the pause between two looks
        self.kill(left)
        self._output.join(5)
        assert not left, f"processes are left behind: {left}\n{self.said()}"
        return code

    def kill(self, known: Iterable[Process] = ()) -> None:
        """Without ceremony, and only what was started here."""
        known = {*known, *descendants(self.process.pid)}
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for p in alive(known):
            with suppress(ProcessLookupError):
                os.kill(p.pid, signal.SIGKILL)
        self._output.join(5)


class Servers:
    """Makes servers for one test or module, and sees them off."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Server] = []

    def start(self, application: str = "app:app", **options: object) -> Server:
        """A server that serves."""
        server = self.start_only(application, **options).await_banner()
        return server.await_workers() if options.get("events", True) else server

    def start_only(self, application: str = "app:app", **options: object) -> Server:
        place = self.directory / f"server-{len(self.started)}"
        server = Server(place, application, **options)  # type: ignore[arg-type]
        self.started.append(server)
        return server

    def close(self) -> None:
        """Every server that a test has left running must end well."""
        running = [s for s in self.started if s.process.poll() is None]
        try:
            for server in running:
                code = server.stop()
                assert code == 0, f"exit code {code}:\n{server.said()}"
                assert "panicked" not in server.said(), server.said()
                found = re.search(r"^==\d+==", server.said(), re.MULTILINE)
                assert not found, f"valgrind has found something:\n{server.said()}"
        finally:
            for server in self.started:
                server.kill()
                shutil.rmtree(server.directory, ignore_errors=True)


def percentile(values: Sequence[float], p: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]
