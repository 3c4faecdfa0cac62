"""The floor check must see every way to write an import."""

from __future__ import annotations

from pathlib import Path

import floors
import pytest

TABLE = """# Architecture

```floors
5  engine
4  dispatch consumer
2  bus http
0  sys
never  engine -> consumer
outside  cli -> engine consumer
```
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "ARCHITECTURE.md").write_text(TABLE)
    for module in ("engine", "dispatch", "consumer", "bus", "http", "sys"):
        (tmp_path / "core/src" / module).mkdir(parents=True)
        (tmp_path / "core/src" / module / "mod.rs").write_text("")
    (tmp_path / "core/src/lib.rs").write_text("pub mod bus;\n")
    (tmp_path / "cli/src").mkdir(parents=True)
    return tmp_path


def test_the_samples_start_clean(house: Path) -> None:
    assert floors.check(house) == []


@pytest.mark.parametrize(
    "source",
    [
        "use crate::sys::clock;",
        "use crate::bus::{Ring, ring::Reader};",
        "use super::super::sys::clock;",
        "use super::frame;",
        "use self::head::Head;\nmod head {}",
        "fn f() { crate::sys::clock::now(); }",
        "/// See [`crate::engine`].\n// use crate::engine::Loop;\nfn f() {}",
        'const A: &str = "crate::engine::Loop";',
        "pub(crate) fn f() {}",
        "fn f() { crate::hold!(1); }",
        "mod tests { use super::super::f; }",
    ],
)
def test_good_imports_pass(house: Path, source: str) -> None:
    (house / "core/src/dispatch/inner.rs").write_text(source)
    assert floors.check(house) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("use crate::engine::Loop;", 1),
        ("\nuse crate::{\n    bus::Ring,\n    engine::{self, Loop},\n};", 4),
        ("use {std::fmt, crate::engine};", 1),
        ("fn f() {\n    crate::engine::run();\n}", 2),
        ("use super::super::engine::Loop;", 1),
        ("mod tests {\n    use super::super::super::engine;\n}", 2),
        ("fn f() { super::super::engine::run() }", 1),
        ("macro_rules! m { () => { $crate::engine::run() } }", 1),
        ("pub use crate::engine as loops;", 1),
        ("use crate::*;", 1),
        ("use crate::Loop;", 1),
        ("#[cfg(test)]\nmod tests { use crate::engine; }", 2),
    ],
)
def test_imports_from_above_are_flagged(house: Path, source: str, line: int) -> None:
    (house / "core/src/dispatch/inner.rs").write_text(source)
    problems = floors.check(house)
    assert len(problems) == 1
    assert problems[0].startswith(f"core/src/dispatch/inner.rs:{line}: ")


def test_one_floor_is_flagged(house: Path) -> None:
    (house / "core/src/http/head.rs").write_text("use crate::bus::Ring;")
    assert "share floor 2" in floors.check(house)[0]


def test_what_is_ruled_out_is_flagged_though_it_goes_down(house: Path) -> None:
    (house / "core/src/engine/mod.rs").write_text("use crate::consumer::Consumer;")
    assert floors.check(house) == ["core/src/engine/mod.rs:1: engine never imports consumer"]


def test_crates_outside_see_only_what_is_granted(house: Path) -> None:
    main = house / "cli/src/main.rs"
    main.write_text("use toolb_core::engine::Loop;\nuse self::engine::x;\nuse crate::bus::y;\n")
    assert floors.check(house) == []
    main.write_text("use toolb_core::{\n    engine,\n    bus::Ring,\n};\n")
    assert floors.check(house) == [
        "cli/src/main.rs:3: cli sees only consumer, engine of the core, not bus"
    ]
    main.write_text("use toolb_core::*;\n")
    assert len(floors.check(house)) == 1


def test_table_and_folders_agree(house: Path) -> None:
    (house / "core/src/extra").mkdir()
    (house / "core/src/sys/mod.rs").unlink()
    (house / "core/src/sys").rmdir()
    assert floors.check(house) == [
        "core/src/extra: has no floor in ARCHITECTURE.md",
        "ARCHITECTURE.md: gives a floor to sys, which is not in core/src",
    ]


@pytest.mark.parametrize("text", ["# no block", "```floors\nten bus\n```"])
def test_an_unreadable_table_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="floors"):
        floors.Floors.parse(text)
