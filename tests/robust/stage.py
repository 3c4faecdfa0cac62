"""An engine and its workers as programs of their own: `toolb serve`, `toolb work`, and the bus between."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from program import Output

from .harness import HERE, PATIENCE, QUEUE, URL, alive, children, descendants, toolb, wait_until
from .http1 import Connection, request


class Program:
    """`toolb serve` or `toolb work`, and what it says."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        own = {"ROBUST_DIR": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [toolb(), *arguments],
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **own},
            start_new_session=True,
        )
        self._output = Output(self.process)
        self.lines = self._output.lines

    def said(self) -> str:
        return self._output.text()

    def says(self, text: str, times: int = 1) -> str:
        """Waits for so many lines with this text; the last of them."""

        def found() -> list[str]:
            lines = [line for line in self.lines if text in line]
            return lines if len(lines) >= times else []

        lines = self._output.until(found, PATIENCE)
        assert lines, f"it never said {text!r}:\n{self.said()}"
        return lines[-1]

    def ends(self, patience: float = 20.0) -> int:
        code = self.process.wait(patience)
        self._output.join(5)
        return code

    def stop(self) -> None:
        """Asks it to end, which it must do well, with everything that it has started."""
        known = descendants(self.process.pid)
        self.process.terminate()
        assert self.ends() == 0, self.said()
        assert "panicked" not in self.said(), self.said()
        wait_until("its processes had gone", lambda: not alive(known))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Stage:
    """A bus and the programs around it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Short, as the path of a socket has to be.
        self.bus = directory / "b"
        self.programs: list[Program] = []
        self.address = ("127.0.0.1", 0)

    def serve(self, *flags: str) -> Program:
        """Starts an engine; on the port of the one before, if there was one."""
        port = str(self.address[1])
        queue = () if QUEUE[0] in flags else QUEUE
        program = self.start(
            "serve", "--port", port, "--bus", str(self.bus), "--no-access-log", *queue, *flags
        )
        found = URL.search(program.says("serving on"))
        assert found
        self.address = (found[1], int(found[2]))
        return program

    def work(self, *flags: str, application: str = "app:app") -> Program:
        return self.start("work", application, "--bus", str(self.bus), *flags)

    def start(self, *arguments: str) -> Program:
        program = Program(self.directory, *arguments)
        self.programs.append(program)
        return program

    def connect(self) -> Connection:
        return Connection(self.address, 20.0)

    def pid(self) -> int:
        with self.connect() as connection:
            answer = connection.ask("/pid")
            assert answer.status == 200
            return int(answer.body)

    def events(self) -> str:
        """What the application has noted."""
        path = self.directory / "events"
        return path.read_text() if path.exists() else ""

    def awaits(self, text: str, times: int = 1) -> None:
        """Waits until the application has noted it."""
        wait_until(f"{text!r} was noted", lambda: self.events().count(text) >= times)

    def kill_at_work(self, work: Program) -> int:
        """Kills the only worker of `work` with a request that it has begun. Returns its pid."""
        with self.connect() as begun:
            begun.send(request("/sleep?ms=600000", headers={"X-Id": "begun"}))
            self.awaits("BEGIN begun")
            (victim,) = (p.pid for p in children(work.process.pid))
            os.kill(victim, signal.SIGKILL)
            assert begun.receive().status == 502
        return victim

    def left(self) -> list[str]:
        """What there is of the bus in the file system."""
        return sorted(path.name for path in self.directory.glob("b*"))

    def close(self) -> None:
        for program in self.programs:
            known = descendants(program.process.pid)
            program.kill()
            for p in alive(known):
                os.kill(p.pid, signal.SIGKILL)
