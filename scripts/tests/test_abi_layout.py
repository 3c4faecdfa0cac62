"""What moves in the C header must be flagged, and what only adds must not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import abi
import abi_layout
import pytest
from abi_layout import Field, Layout

HEADER = """
#ifndef TOOLB_H
#define TOOLB_H
#include <stdint.h>
#define TOOLB_MUST_USE __attribute__((warn_unused_result))
/* How it ends. */
#define TOOLB_DONE 0
typedef enum {
    TOOLB_OK = 0,
} toolb_status;
typedef enum {
    TOOLB_REASON_CLOSED = 1,
    TOOLB_REASON_RESET = 3,
} toolb_reason;
typedef struct toolb_engine toolb_engine;
typedef struct {
    const char *data;
    size_t len;
} toolb_slice;
typedef int (*toolb_handler)(void *user_data, const toolb_engine *engine);
typedef struct {
    size_t struct_size;
    /* A comment with a ; in it. */
    uint32_t loops;
    toolb_slice name;
    toolb_handler handler;
    void *(*make)(void *user_data, uint32_t index);
    uint16_t last;
} toolb_options;
#ifdef __cplusplus
extern "C" {
#endif // __cplusplus
uint32_t toolb_abi_version(void);
TOOLB_MUST_USE toolb_status toolb_engine_new(const toolb_options *options,
                                             toolb_engine **out);
void *toolb_state(uint64_t id);
#ifdef __cplusplus
}  // extern "C"
#endif
#endif
"""


def changed(old: str, new: str) -> list[str]:
    """What is said of the header when one text in it becomes another."""
    assert HEADER.count(old) == 1
    there = Layout.of_header(HEADER.replace(old, new))
    return abi_layout.problems(Layout.of_header(HEADER), there, "x")


def test_a_header_is_read_and_its_dump_too() -> None:
    layout = Layout.of_header(HEADER)
    assert layout.constants == {
        "TOOLB_DONE": "0",
        "TOOLB_REASON_CLOSED": "1",
        "TOOLB_REASON_RESET": "3",
    }
    assert layout.types == {
        "toolb_engine": "opaque",
        "toolb_handler": "int (*)(void *, const toolb_engine *)",
        "toolb_reason": "enum",
        "toolb_status": "enum",
    }
    assert layout.functions == {
        "toolb_abi_version": "uint32_t (void)",
        "toolb_engine_new": "toolb_status (const toolb_options *, toolb_engine **)",
        "toolb_state": "void * (uint64_t)",
    }
    options = layout.structs["toolb_options"]
    assert options.size == 56
    assert options.fields[1:] == [
        Field("loops", "uint32_t", 8, 4),
        Field("name", "toolb_slice", 16, 16),
        Field("handler", "toolb_handler", 32, 8),
        Field("make", "void *(*)(void *, uint32_t)", 40, 8),
        Field("last", "uint16_t", 48, 2),
    ]
    assert Layout.of_dump(layout.dump()) == layout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DONE 0", "DONE 1", ["constant TOOLB_DONE was `0` and is `1`"]),
        ("RESET = 3", "RESET = 4", ["constant TOOLB_REASON_RESET was `3` and is `4`"]),
        ("    TOOLB_REASON_RESET = 3,\n", "", ["constant TOOLB_REASON_RESET is gone from x"]),
        (
            "uint32_t toolb_abi",
            "uint64_t toolb_abi",
            ["function toolb_abi_version was `uint32_t (void)` and is `uint64_t (void)`"],
        ),
        (
            "toolb_state(uint64_t id)",
            "toolb_state(uint64_t id, int more)",
            ["function toolb_state was `void * (uint64_t)` and is `void * (uint64_t, int)`"],
        ),
        (
            "void *toolb_state(uint64_t id);",
            "",
            ["function toolb_state is gone from x"],
        ),
        (
            "user_data, const toolb_engine *engine)",
            "user_data, toolb_engine *engine)",
            [
                "type toolb_handler was `int (*)(void *, const toolb_engine *)` "
                "and is `int (*)(void *, toolb_engine *)`"
            ],
        ),
        (
            "uint32_t loops",
            "int32_t loops",
            ["struct toolb_options: `uint32_t loops` at 8 has become `int32_t loops` at 8"],
        ),
        (
            "const char *data;\n    size_t len;",
            "size_t len;\n    const char *data;",
            [
                "struct toolb_slice: `const char * data` at 0 has become `size_t len` at 0",
                "struct toolb_slice: `size_t len` at 8 has become `const char * data` at 8",
            ],
        ),
        (
            "    uint16_t last;\n",
            "",
            ["struct toolb_options: `uint16_t last` at 48 is gone"],
        ),
        # Old programs tell the same size with and without it.
        (
            "uint16_t last;",
            "uint16_t last; uint32_t newest;",
            ["struct toolb_options: `uint32_t newest` at 52 lies in what was padding up to 56"],
        ),
    ],
)
def test_what_moves_is_flagged_and_never_written(old: str, new: str, said: list[str]) -> None:
    assert changed(old, new) == said
    promised, there = Layout.of_header(HEADER), Layout.of_header(HEADER.replace(old, new))
    assert abi_layout.problems(abi_layout.added(promised, there), there, "x") == said


def test_a_struct_that_tells_no_size_does_not_grow() -> None:
    slice_and_more = "    size_t len;\n    size_t room;"
    listed = Layout.of_header(HEADER)
    there = Layout.of_header(HEADER.replace("    size_t len;", slice_and_more))
    said = abi_layout.problems(listed, there, "x")
    assert any("struct toolb_slice: `size_t room` at 16 was added, but" in p for p in said)
    # What contains it moves with it.
    assert any("`toolb_handler handler` at 32 has become" in p for p in said)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DONE 0", "DONE 0\n#define TOOLB_MORE 1", "constant TOOLB_MORE is not listed"),
        (
            "void *toolb_state",
            "void toolb_new(void);\nvoid *toolb_state",
            "function toolb_new is not listed",
        ),
        (
            "typedef struct toolb_engine",
            "typedef uint64_t toolb_id;\ntypedef struct toolb_engine",
            "type toolb_id is not listed",
        ),
        (
            "uint16_t last;",
            "uint16_t last; uint64_t newest;",
            "struct toolb_options: `uint64_t newest` at 56 is not listed",
        ),
        (
            "typedef struct toolb_engine",
            "typedef struct { int a; } toolb_new;\ntypedef struct toolb_engine",
            "struct toolb_new is not listed",
        ),
    ],
)
def test_what_adds_is_to_be_written(old: str, new: str, said: str) -> None:
    assert changed(old, new) == [said]
    promised, there = Layout.of_header(HEADER), Layout.of_header(HEADER.replace(old, new))
    assert abi_layout.problems(abi_layout.added(promised, there), there, "x") == []


def test_names_of_parameters_and_comments_may_change() -> None:
    assert changed("uint64_t id", "uint64_t number") == []
    assert changed("How it ends.", "How it began.") == []


@pytest.mark.parametrize("strange", ["union toolb_u { int a; };", "void toolb_f(int (*a)(int));"])
def test_what_is_not_understood_is_no_promise(strange: str) -> None:
    with pytest.raises(ValueError, match=r"program|typedef"):
        Layout.of_header(HEADER.replace("void *toolb_state(uint64_t id);", strange))


def test_a_compiler_lays_the_header_out_alike(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    assert compiler, "cc is needed, as it is to link the Rust crates"
    lines = ['#include "toolb.h"']
    for name, struct in Layout.of_header(abi.HEADER.read_text()).structs.items():
        lines.append(f'_Static_assert(sizeof({name}) == {struct.size}, "{name}");')
        lines += [
            f'_Static_assert(offsetof({name}, {f.name}) == {f.offset}, "{name}.{f.name}");'
            for f in struct.fields
        ]
    assert len(lines) > 50
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    include = f"-I{abi.HEADER.parent}"
    subprocess.run([compiler, "-std=c11", "-fsyntax-only", include, str(source)], check=True)
