"""The servers that are compared, and how each of them is started and asked for its port."""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import proctree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
APPS = HERE / "apps"
HELLO = b"Hello, World!"
JSON = b'{"message":"Hello, World!"}'


class MissingError(Exception):
    """A server that is not on this machine; the text says what to do about it."""


class StartError(Exception):
    """A server that did not start or answered wrongly; the text holds its last words."""


@dataclass
class Server:
    """How to start one server. `command` gets a directory for its own use and a port; a server that
    chooses its own port ignores the second and names it in its output."""

    name: str
    command: Callable[[Path, int], list[str]]
    body: bytes
    version: Callable[[], str] = field(default=lambda: "")


@dataclass
class Running:
    server: Server
    process: subprocess.Popen[bytes]
    url: str
    output: Path
    directory: tempfile.TemporaryDirectory[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self, lines: int = 20) -> str:
        text = self.output.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"    | {line}" for line in text) or "    | (it said nothing)"

    def stop(self) -> None:
        proctree.stop(self.process)
        self.directory.cleanup()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def start(server: Server, patience: float = 20.0) -> Running:
    """Starts a server and returns once it has given the right answer. A port that somebody else
    took between our choice and its bind is tried again."""
    for attempt in (1, 2, 3):
        try:
            return _start(server, patience)
        except StartError as e:
            if attempt == 3 or not re.search(r"in use|EADDRINUSE", str(e)):
                raise
    raise AssertionError


def _start(server: Server, patience: float) -> Running:
    directory = tempfile.TemporaryDirectory(prefix="bench-")
    output = Path(directory.name) / "output.txt"
    port = free_port()
    try:
        command = server.command(Path(directory.name), port)
        with output.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=APPS,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            )
    except BaseException:
        directory.cleanup()
        raise
    running = Running(server, process, f"http://127.0.0.1:{port}/", output, directory)
    try:
        _await_answer(running, time.monotonic() + patience)
    except BaseException:
        running.stop()
        raise
    return running


def _await_answer(running: Running, deadline: float) -> None:
    trouble = "it never listened"
    while time.monotonic() < deadline:
        if (code := running.process.poll()) is not None:
            raise StartError(f"{running.server.name} ended with {code}:\n{running.last_words()}")
        if said := re.search(rb"https?://[\w.:\[\]]+:\d+", running.output.read_bytes()):
            running.url = said[0].decode().replace("//0.0.0.0:", "//127.0.0.1:") + "/"
        host, port = running.url.split("/")[2].rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=2)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as e:
            trouble = f"{type(e).__name__}: {e}"
            time.sleep(0.02)
            continue
        finally:
            connection.close()
        if answer.status == 200 and body == running.server.body:
            return
        trouble = f"it answers {answer.status} {body[:80]!r} instead of {running.server.body!r}"
        if answer.status not in (502, 503):
            break
        time.sleep(0.02)
    raise StartError(f"{running.server.name} does not serve: {trouble}\n{running.last_words()}")


# The servers themselves.


@dataclass
class Tools:
    """Where things are: directory of the Python programs, toolb, directory of native programs."""

    bin: Path
    toolb: Path | None
    native: Path

    def python_program(self, name: str) -> str:
        path = self.bin / name
        if not path.exists():
            raise MissingError(
                f"{name} is not beside this Python: pip install -r bench/requirements.txt"
            )
        return str(path)

    def toolb_program(self) -> str:
        path = self.toolb or self.bin / "toolb"
        if not path.exists():
            raise MissingError(
                "toolb is not beside this Python: build the wheel, or give --toolb PATH"
            )
        return str(path)

    def native_program(self, name: str) -> str:
        path = self.native / name
        if not path.is_file():
            raise MissingError(
                f"{name} is not built: scripts/bench.sh does it, or give --native DIR"
            )
        return str(path)


def add_tool_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where the servers are."""
    parser.add_argument(
        "--bin",
        type=Path,
        default=Path(sys.executable).parent,
        help="directory of the Python programs (this Python's)",
    )
    parser.add_argument(
        "--toolb",
        type=Path,
        default=_env_path("TOOLB_BIN"),
        help="toolb program for the Python groups ($TOOLB_BIN, else beside this Python)",
    )
    parser.add_argument(
        "--native",
        type=Path,
        default=_env_path("TOOLB_NATIVE") or ROOT / "build" / "bench" / "bin",
        help="directory of the native programs ($TOOLB_NATIVE, else build/bench/bin)",
    )


def tools_of(options: argparse.Namespace) -> Tools:
    """What those options say."""
    return Tools(options.bin.absolute(), options.toolb, options.native.absolute())


def _env_path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).absolute() if value else None


def _package(name: str) -> Callable[[], str]:
    def version() -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "?"

    return version


def _says(*command: str) -> Callable[[], str]:
    def version() -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
        return found[0] if found else "?"

    return version


def python_servers(tools: Tools, module: str, body: bytes) -> list[Server]:
    def toolb(_: Path, __: int) -> list[str]:
        return [tools.toolb_program(), "run", f"{module}:app", "--port", "0", "--workers", "1",
                "--loop", "auto", "--no-access-log"]  # fmt: skip

    def uvicorn(_: Path, port: int) -> list[str]:
        return [tools.python_program("uvicorn"), f"{module}:app", "--port", str(port),
                "--loop", "uvloop", "--http", "httptools",
                "--no-access-log", "--log-level", "warning"]  # fmt: skip

    def granian(_: Path, port: int) -> list[str]:
        return [tools.python_program("granian"), f"{module}:app", "--host", "127.0.0.1",
                "--port", str(port), "--interface", "asgi", "--loop", "uvloop", "--workers", "1",
                "--runtime-threads", "1", "--no-access-log", "--log-level", "warning"]  # fmt: skip

    def toolb_version() -> str:
        return _says(tools.toolb_program(), "--version")()

    return [
        Server("toolb", toolb, body, toolb_version),
        Server("granian", granian, body, _package("granian")),
        Server("uvicorn", uvicorn, body, _package("uvicorn")),
    ]


def native_servers(tools: Tools) -> list[Server]:
    def inline(program: str) -> Callable[[Path, int], list[str]]:
        return lambda _, port: [tools.native_program(program), str(port)]

    def over_bus(directory: Path, _: int) -> list[str]:
        # The engine is the process that is told to stop, and tells the consumer.
        script = (
            '"$1" bus "$3" & exec "$2" serve --bus "$3" --port 0 --io-threads 1 --no-access-log'
        )
        return ["sh", "-c", script, "sh", tools.native_program("hello_cpp"),
                tools.native_program("toolb"), str(directory / "bus")]  # fmt: skip

    def epoll(_: Path, port: int) -> list[str]:
        return [str(build_epoll()), str(port)]

    def nginx(directory: Path, port: int) -> list[str]:
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not program:
            raise MissingError("nginx is not installed")
        (directory / "nginx.conf").write_text(NGINX.replace("PORT", str(port)))
        return [program, "-p", str(directory), "-c", str(directory / "nginx.conf"),
                "-e", "stderr"]  # fmt: skip

    return [
        Server("toolb inline C", inline("hello_c"), HELLO),
        Server("toolb inline C++", inline("hello_cpp"), HELLO),
        Server("toolb C++ over bus", over_bus, HELLO),
        Server("bare C epoll", epoll, HELLO),
        Server("nginx", nginx, HELLO, _says("nginx", "-v")),
    ]


# keepalive_requests: the others never close a busy connection either.
NGINX = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:PORT backlog=4096;
        location / { return 200 "Hello, World!"; }
    }
}
"""


def build_epoll() -> Path:
    """Compiles the bare server if it is not newer than its source."""
    source, target = HERE / "peers" / "epoll.c", HERE / "out" / "epoll"
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return target
    compiler = shutil.which("cc")
    if not compiler:
        raise MissingError("no C compiler (cc) for bench/peers/epoll.c")
    target.parent.mkdir(exist_ok=True)
    subprocess.run([compiler, "-O2", "-o", str(target), str(source)], check=True)
    return target


def all_servers(tools: Tools) -> dict[str, list[Server]]:
    return {
        "raw": python_servers(tools, "raw", HELLO),
        "fastapi": python_servers(tools, "fastapi_app", JSON),
        "native": native_servers(tools),
    }


def interrupt_on_terminate() -> None:
    """A polite end (SIGTERM) unwinds like Ctrl-C, so that every server is stopped."""

    def raise_interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, raise_interrupt)
