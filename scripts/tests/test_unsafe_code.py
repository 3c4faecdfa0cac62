"""The check of `unsafe` must flag what is out of place and what is not argued."""

from __future__ import annotations

from pathlib import Path

import pytest
import unsafe_code

GOOD = [
    "// SAFETY: the pointer was checked above.\nunsafe { read(p) }",
    "// SAFETY: two lines\n// of reasons.\nlet a = unsafe { read(p) };",
    "// SAFETY: sent to one thread only.\nunsafe impl Send for Ring {}",
    "// SAFETY: a statement over\n// several lines.\nlet a =\n    unsafe { read(p) };",
    "// SAFETY: see above.\n#[inline]\nunsafe impl Sync for Ring {}",
    "unsafe {\n    // SAFETY: inside, first thing.\n    read(p)\n}",
    "/// Reads.\n///\n/// # Safety\n/// `p` is valid.\n#[must_use]\npub unsafe fn read(p: *const u8) {}",
    "unsafe fn private() {}",
    'type Callback = unsafe extern "C" fn(*mut u8);',
    '#[unsafe(no_mangle)]\npub extern "C" fn f() {}',
    "#![deny(unsafe_op_in_unsafe_fn)]",
]
BAD = [
    "unsafe { read(p) }",
    "// a comment, but no reason\nunsafe { read(p) }",
    "// SAFETY: of another one.\nlet a = 1;\nunsafe { read(p) }",
    "// SAFETY: too far away.\n\nunsafe { read(p) }",
    "unsafe impl Send for Ring {}",
    "pub unsafe fn read(p: *const u8) {}",
    'unsafe extern "C" {\n    fn f();\n}',
]


@pytest.mark.parametrize("source", GOOD)
def test_argued_uses_pass(source: str) -> None:
    assert unsafe_code.problems_in("core/src/bus/ring.rs", source) == []


@pytest.mark.parametrize("source", BAD)
def test_uses_without_a_reason_are_flagged(source: str) -> None:
    assert len(unsafe_code.problems_in("core/src/bus/ring.rs", source)) == 1


@pytest.mark.parametrize(
    "where",
    [
        "core/src/http/mod.rs",
        "cli/src/main.rs",
        "bindings/python/src/app.rs",
        "core/src/sysadmin/mod.rs",
    ],
)
def test_uses_out_of_place_are_flagged(where: str) -> None:
    problems = unsafe_code.problems_in(where, GOOD[0])
    assert len(problems) == 1
    assert problems[0].startswith(f"{where}:2: unsafe belongs")


@pytest.mark.parametrize(
    "where",
    [
        "core/src/sys/epoll.rs",
        "ffi/src/lib.rs",
        "bindings/node/src/raw/uv.rs",
        "core/tests/alloc.rs",
    ],
)
def test_uses_at_home_pass(where: str) -> None:
    assert unsafe_code.problems_in(where, GOOD[0]) == []


def test_every_other_module_forbids_it(tmp_path: Path) -> None:
    source = tmp_path / "core/src"
    for folder in ("bus", "http/parts", "time"):
        (source / folder).mkdir(parents=True)
    (source / "lib.rs").write_text("pub mod bus;")
    (source / "bus/mod.rs").write_text("")
    (source / "http/mod.rs").write_text("#![forbid(unsafe_code)]\n")
    (source / "http/parts/head.rs").write_text("")
    (source / "time/mod.rs").write_text("// #![forbid(unsafe_code)] is only spoken of\n")
    (tmp_path / "cli/src").mkdir(parents=True)
    (tmp_path / "cli/src/lib.rs").write_text("#![forbid(unsafe_code)]\n")
    (tmp_path / "cli/src/run.rs").write_text("")
    (tmp_path / "cli/src/main.rs").write_text("fn main() {}")
    flagged = {problem.split(":")[0] for problem in unsafe_code.check(tmp_path)}
    assert flagged == {"core/src/time/mod.rs", "cli/src/main.rs"}


def test_a_library_without_a_home_for_it_forbids_it_at_its_root(tmp_path: Path) -> None:
    (tmp_path / "cli/src").mkdir(parents=True)
    (tmp_path / "cli/src/lib.rs").write_text("pub mod run;")
    assert len(unsafe_code.check(tmp_path)) == 1
