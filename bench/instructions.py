#!/usr/bin/env python3
"""Instructions per request, counted by callgrind: the same on a busy machine as on an idle one.

    python bench/instructions.py raw/toolb
    python bench/instructions.py "native/bare C epoll" --requests 2000

Two runs that differ only in the number of requests are subtracted, so that start-up cancels out.
callgrind sees no kernel code and runs one thread at a time: compare what it says of one program
before and after a change, not of two programs. It counts the server's children, too.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hotspots import choose
from servers import (
    MissingError,
    Server,
    StartError,
    add_tool_options,
    interrupt_on_terminate,
    start,
    tools_of,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def ask(url: str, requests: int, connections: int) -> None:
    """Rounds of one request on every connection, each answered before the next round."""
    host, port = url.split("/")[2].rsplit(":", 1)
    sockets = [socket.create_connection((host, int(port)), timeout=60) for _ in range(connections)]
    try:
        done = 0
        while done < requests:
            now = sockets[: requests - done]
            for s in now:
                s.sendall(REQUEST)
            for s in now:
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += s.recv(65536) or _gone()
                head, body = answer.split(b"\r\n\r\n", 1)
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                if not head.startswith(b"HTTP/1.1 200 ") or not length:
                    raise SystemExit(f"unexpected answer: {answer[:200]!r}")
                while len(body) < int(length[1]):
                    body += s.recv(65536) or _gone()
            done += len(now)
    finally:
        for s in sockets:
            s.close()


def _gone() -> bytes:
    raise SystemExit("the server closed a connection")


def count(server: Server, requests: int, connections: int) -> dict[str, int]:
    """Instructions by program, for one life of the server with so many requests."""
    with tempfile.TemporaryDirectory(prefix="bench-") as out:

        def command(directory: Path, port: int) -> list[str]:
            return ["valgrind", "--tool=callgrind", "--trace-children=yes", "-q",
                    f"--callgrind-out-file={out}/callgrind.%p",
                    *server.command(directory, port)]  # fmt: skip

        running = start(replace(server, command=command), patience=180)
        try:
            ask(running.url, requests, connections)
        finally:
            running.process.terminate()
            try:
                running.process.wait(60)  # callgrind writes its files at the end
            except subprocess.TimeoutExpired:
                print("it did not end when asked to: no counts", file=sys.stderr)
            running.stop()
        totals: dict[str, int] = {}
        for path in Path(out).glob("callgrind.*"):
            text = path.read_text(errors="replace")
            cmd = re.search(r"^cmd: *(\S+)", text, re.MULTILINE)
            total = re.search(r"^(?:totals|summary): *(\d+)", text, re.MULTILINE)
            if cmd and total:
                name = Path(cmd[1]).name
                totals[name] = totals.get(name, 0) + int(total[1])
        return totals


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("server", help="group/name, such as raw/toolb or native/nginx")
    p.add_argument("--requests", type=int, default=2000)
    p.add_argument("--connections", type=int, default=16)
    add_tool_options(p)
    o = p.parse_args()
    if not shutil.which("valgrind"):
        print("valgrind is not installed", file=sys.stderr)
        return 2
    interrupt_on_terminate()
    server = choose(tools_of(o), o.server)
    try:
        # The first requests warm caches and the interpreter's specialised code; both runs make them.
        few = count(server, o.requests, o.connections)
        many = count(server, 2 * o.requests, o.connections)
    except (MissingError, StartError) as e:
        print(e, file=sys.stderr)
        return 2
    if not few or not many:
        print("callgrind wrote no counts", file=sys.stderr)
        return 1
    for name, total in sorted(many.items()):
        print(f"{name}: {(total - few.get(name, 0)) / o.requests:,.0f} instructions per request")
    return 0


if __name__ == "__main__":
    sys.exit(main())
