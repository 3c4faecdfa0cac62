"""The shell scripts, with a machine made of fakes around them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1]
ROOT = SCRIPTS.parent


class Machine:
    """A PATH with nothing on it but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder
        for tool in ("bash", "cut", "dirname", "env", "head", "sed", "sort", "touch", "chmod"):
            found = shutil.which(tool)
            assert found is not None
            (folder / tool).symlink_to(found)
        self.user(1000)

    def has(self, tool: str, script: str = "exit 0") -> None:
        """Puts a tool there that runs `script`."""
        path = self.bin / tool
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def user(self, number: int) -> None:
        """Decides who runs what follows."""
        self.has("id", f"echo {number}")

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPTS / script, *arguments],
            env={"PATH": str(self.bin), "FAKES": str(self.bin)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_need_is_silent_about_what_is_there(machine: Machine) -> None:
    machine.has("tool")
    done = machine.run("need.sh", "tool", "package", "work")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_need_prints_one_line_that_installs_all(machine: Machine) -> None:
    machine.has("apt-get", "exit 1")
    machine.has("two")
    done = machine.run("need.sh", "one", "pkg1", "count", "two", "pkg2", "x", "three", "pkg3", "y")
    assert done.returncode == 1
    assert "one is needed to count and is not installed." in done.stderr
    assert done.stderr.endswith("Install it with:  sudo apt-get install -y pkg1 pkg3\n")


def test_need_installs_as_root(machine: Machine) -> None:
    machine.user(0)
    machine.has("apt-get", 'echo "$*" >>"$FAKES/log"; touch "$FAKES/one"; chmod +x "$FAKES/one"')
    done = machine.run("need.sh", "one", "pkg1", "count")
    assert done.returncode == 0, done.stderr
    calls = (machine.bin / "log").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["install"]


def test_need_fetches_the_lists_once_when_installing_fails(machine: Machine) -> None:
    machine.user(0)
    machine.has(
        "apt-get",
        'echo "$1" >>"$FAKES/log"\n'
        'if [[ $1 == update ]]; then touch "$FAKES/fresh"; exit 0; fi\n'
        '[[ -e "$FAKES/fresh" ]] || exit 100\n'
        'touch "$FAKES/one"; chmod +x "$FAKES/one"',
    )
    done = machine.run("need.sh", "one", "pkg1", "count")
    assert done.returncode == 0, done.stderr
    assert (machine.bin / "log").read_text().split() == ["install", "update", "install"]


def test_need_fails_when_the_package_lacks_the_tool(machine: Machine) -> None:
    machine.user(0)
    machine.has("apt-get")
    done = machine.run("need.sh", "one", "pkg1", "count")
    assert done.returncode == 1
    assert "cannot be found on PATH" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("one",), ("one", "pkg1", "count", "two")])
def test_need_refuses_what_it_cannot_read(machine: Machine, arguments: tuple[str, ...]) -> None:
    assert machine.run("need.sh", *arguments).returncode == 2


def test_rust_names_the_remedy(machine: Machine) -> None:
    assert "rustup" in machine.run("rust.sh").stderr
    machine.has("cargo")
    machine.has("rustc", "echo 'rustc 1.60.0 (abc 2022-04-04)'")
    done = machine.run("rust.sh")
    assert done.returncode == 1
    assert "Rust 1.60.0 is too old" in done.stderr
    machine.has("cc")
    machine.has("rustc", "echo 'rustc 1.100.0-nightly (abc 2026-04-04)'")
    done = machine.run("rust.sh")
    assert done.returncode == 0, done.stderr


def test_venv_refuses_an_old_python(machine: Machine, tmp_path: Path) -> None:
    machine.has("python3", "exit 1")
    done = machine.run("venv.sh", str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "Python 3.10 or newer is needed" in done.stderr


PYTHON = """
case "$*" in
*version_info*) [[ $0 == "$FAKES"/chosen/* || $0 == */venv/* ]] && echo 3.13 ;;
-VV) echo "Python 3.13.10 (fake)" ;;
"-m venv"*)
    mkdir -p "${!#}/bin"
    cp "$0" "${!#}/bin/python"
    printf '#!/bin/bash\\necho build >>"$FAKES/log"; mkdir "${!#}"; touch "${!#}/it.whl"' >"${!#}/bin/maturin"
    chmod +x "${!#}/bin/maturin" ;;
"-m pytest"*) echo "test ${!#}" >>"$FAKES/log"; exit "$(cat "$FAKES/verdict")" ;;
esac
"""
"""An interpreter that is 3.13 if it stands in the right folder, and what comes with it."""


@pytest.fixture
def pythons(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs pythons.sh, whose home is the machine's folder."""
    tools = ("cat", "cp", "find", "grep", "mkdir", "realpath", "rm", "sha256sum", "tail", "xargs")
    for tool in tools:
        found = shutil.which(tool)
        assert found is not None
        (machine.bin / tool).symlink_to(found)

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        homes = {
            "PATH": str(machine.bin),
            "FAKES": str(machine.bin),
            "PYTHON_HOMES": str(machine.bin),
        }
        done = subprocess.run(
            [SCRIPTS / "pythons.sh", "nowhere", *arguments],
            env={**homes, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_pythons_names_those_that_are_missing(
    machine: Machine, pythons: Callable[..., tuple[int, str]]
) -> None:
    # A shim that stands for no version here, and a python of another version.
    machine.has("python3.12", "exit 127")
    machine.has("python3.13", "echo 3.9")
    code, said = pythons()
    assert code == 0
    lines = said.splitlines()
    assert len(lines) == 5
    for line, version in zip(lines, ("3.10", "3.11", "3.12", "3.13", "3.14"), strict=True):
        assert line.startswith(f"Python {version} is not on this machine and was not tested: ")
        assert f"PYTHONS=/path/to/python{version}" in line


def test_pythons_tests_once_what_has_not_changed(
    machine: Machine, pythons: Callable[..., tuple[int, str]]
) -> None:
    for version in ("3.13.2", "3.13.10"):
        (machine.bin / "chosen" / version / "bin").mkdir(parents=True)
        machine.has(f"chosen/{version}/bin/python", PYTHON if version == "3.13.10" else "exit 1")
    machine.has(
        "pyenv",
        """case $1 in
        versions) printf '%s\\n' 3.13.10 3.13.2 3.130.1 3.13t.1 ;;
        prefix) echo "$FAKES/chosen/$2" ;;
        esac""",
    )
    log, verdict = machine.bin / "log", machine.bin / "verdict"
    verdict.write_text("1")
    code, said = pythons()
    assert (code, said.splitlines()[-1]) == (1, "Failed with Python 3.13.")
    verdict.write_text("0")
    # What was built is not built again.
    code, said = pythons()
    assert code == 0, said
    assert log.read_text() == "build\n" + "test bindings/python/tests\n" * 2
    code, said = pythons()
    assert (code, "Python 3.13: nothing has changed since its tests passed." in said) == (0, True)
    assert log.read_text().count("test") == 2 + 2
    # Who asks for a test by name gets it; so does who names the interpreter.
    code, _ = pythons(
        "-k", "one", PYTHONS="nothing " + str(machine.bin / "chosen/3.13.10/bin/python")
    )
    assert code == 0
    assert log.read_text().endswith("test one\n")


def test_lint_knows_its_checks() -> None:
    done = subprocess.run([SCRIPTS / "lint.sh", "nonsense"], capture_output=True, check=False)
    assert done.returncode == 2


def test_make_explains_each_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    listed = next(line for line in makefile.splitlines() if line.startswith(".PHONY: help "))
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in shown.stdout.splitlines()} == set(listed.split()[1:])
