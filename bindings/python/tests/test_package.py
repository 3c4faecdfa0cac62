"""The package as it is installed."""

from __future__ import annotations

import asyncio
import collections.abc
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import toolb
from toolb import _toolb


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with a module of the package."""
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_versions_agree() -> None:
    assert toolb.__version__ == _toolb.__version__ == metadata.version("toolb")


def test_the_program_is_the_module() -> None:
    ran = run("toolb", "--version")
    assert (ran.returncode, ran.stdout.split()) == (0, ["toolb", toolb.__version__])


def test_a_worker_needs_an_engine() -> None:
    ran = run("toolb.worker", "main:app", TOOLB_BUS="")
    assert ran.returncode == 3
    assert len(ran.stderr.splitlines()) == 1
    assert "toolb run" in ran.stderr


def test_a_worker_says_what_is_wrong_with_its_bus() -> None:
    ran = run("toolb.worker", "main:app", TOOLB_BUS="nonsense")
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert "nonsense" in ran.stderr


def test_a_folder_that_hides_the_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "toolb").mkdir()
    (tmp_path / "toolb" / "__init__.py").touch()
    program = Path(sys.executable).with_name("toolb")
    ran = subprocess.run(
        [program, "run", "main:app", "--port", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 3
    assert "toolb/__init__.py in this folder hides the package" in ran.stderr
    assert "pip install" not in ran.stderr


def test_a_disconnect_is_an_os_error() -> None:
    assert issubclass(toolb.ClientDisconnected, OSError)


def test_native_awaitables_are_coroutines() -> None:
    for native in (_toolb.Exchange, _toolb.Answer):
        assert issubclass(native, collections.abc.Coroutine)
        assert not asyncio.iscoroutinefunction(native)
