"""Applications that fork."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server, wait_for_exit

APP = """
import json, os, sys, time, warnings

def fork():
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        # A child that forks in turn, as daemons do.
        second = os.fork()
        if second:
            os.waitpid(second, 0)
        os._exit(len(os.listdir("/proc/self/task")))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def app(scope, receive, send):
    assert scope["type"] == "http"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        codes = [fork() for _ in range(20)]
    said = {
        "codes": codes,
        "caught": [str(warning.message) for warning in caught],
        "threads": len(os.listdir("/proc/self/task")),
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/block":
        print("blocked", os.getpid(), flush=True)
        time.sleep(600)  # not-sync: the handler blocks its worker on purpose
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})
"""


@pytest.fixture
def forking(start: Callable[..., Server], tmp_path: Path) -> Server:
    (tmp_path / "main.py").write_text(APP)
    return start("main:app", app_dir=tmp_path).listening()


def test_a_fork_finds_no_other_thread(forking: Server) -> None:
    """Python 3.12 and later warn of a fork while there are others, as it may hang the child."""
    said = json.loads(forking.ask("/").text)
    assert said["caught"] == []
    # The child has the one thread that it was forked with; its worker's watch is not for it.
    assert said["codes"] == [1] * 20
    assert said["threads"] == 2


def test_a_worker_that_has_forked_is_still_watched(forking: Server) -> None:
    with forking.connect() as connection:
        connection.request("/block")
        said = forking.until_said("blocked")
        worker = int(said.split("blocked ")[1].split()[0])
        forking.signal(signal.SIGKILL)
        wait_for_exit(worker)
    forking.wait()
    assert f"process {worker} was still busy" in forking.said
