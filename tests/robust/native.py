"""Builds consumers in C and C++, and what serves by them: libtoolb and an engine that starts programs."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from .payload import BLOCK, payload

ROOT = Path(__file__).resolve().parent.parent.parent
# Where programs are, until the tests end.
KEPT = tempfile.TemporaryDirectory(prefix="robust-c-")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


@functools.cache
def built() -> Path:
    """The folder of what cargo has built for tests."""
    example = ["-p", "toolb-core", "--example", "serve_program"]
    for what in (["-p", "toolb-ffi"], example, ["-p", "toolb-cli"]):
        subprocess.run(["cargo", "build", "--quiet", "--locked", *what], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


@functools.cache
def compiled(name: str, language: str = "c") -> Path:
    """The program of tests/LANGUAGE/NAME.LANGUAGE, where that is c or cpp."""
    out = Path(KEPT.name)
    library = out / "libtoolb.so.0"
    if not library.exists():
        library.symlink_to(built() / "libtoolb.so")
    source = ROOT / "tests" / language / f"{name}.{language}"
    program = out / f"{language}_{name}"
    command = [*COMPILERS[language](), "-g", "-pthread", *WARNINGS, f"-I{ROOT / 'include'}"]
    command += [str(source), "-o", str(program), str(library), f"-Wl,-rpath,{out}"]
    subprocess.run(command, check=True)
    return program


COMPILERS = {
    "c": lambda: [*shlex.split(os.environ.get("CC", "cc")), "-std=c11"],
    "cpp": lambda: [
        *shlex.split(os.environ.get("CXX", "c++")),
        "-std=c++17",
        f"-I{ROOT / 'bindings' / 'cpp'}",
    ],
}


def command(name: str, *arguments: str, language: str = "c") -> list[str]:
    """A compiled program; with TOOLB_VALGRIND set, under valgrind, which then exits with 9 if it
    finds something."""
    valgrind = ["valgrind", "-q", "--fair-sched=try", "--leak-check=full", "--error-exitcode=9"]
    wrapper = valgrind if os.environ.get("TOOLB_VALGRIND") else []
    return [*wrapper, str(compiled(name, language)), *arguments]


def serving(
    name: str, *arguments: str, workers: int = 1, language: str = "c", **settings: object
) -> list[str]:
    """The command that serves by so many processes of a compiled program."""
    options = [f"{key}={value}" for key, value in {"workers": workers, **settings}.items()]
    program = built() / "examples" / "serve_program"
    return [str(program), *options, *command(name, *arguments, language=language)]


def prepare(directory: Path) -> None:
    """Leaves in ROBUST_DIR what a program in C does not make by itself."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "payload").write_bytes(payload(BLOCK))
