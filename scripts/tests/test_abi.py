"""A change of the C ABI that breaks programs must be flagged, one that adds must be passed."""

from __future__ import annotations

import abi

HEADER = """
/* toolb_not_me(x) */
typedef enum {
    /* It worked. */
    TOOLB_OK = 0,
    TOOLB_GONE = 300,
} toolb_status;
typedef int (*toolb_handler)(void *user_data, const toolb_request *request);
typedef struct { void (*on_close)(void *state, toolb_stream stream); } toolb_service;
uint32_t toolb_abi_version(void);
toolb_status toolb_engine_route(toolb_engine *engine,
                                toolb_handler handler);
const char *toolb_status_text(int32_t status);
"""
FUNCTIONS = ["toolb_abi_version", "toolb_engine_route", "toolb_status_text"]
STATUSES = [(0, "TOOLB_OK", False), (300, "TOOLB_GONE", False)]


def test_a_header_is_read() -> None:
    assert abi.functions_of(HEADER) == set(FUNCTIONS)
    assert abi.statuses_of(HEADER) == {"TOOLB_OK": 0, "TOOLB_GONE": 300}
    assert abi.read_statuses("0 TOOLB_OK\n7 TOOLB_OLD retired\n") == [
        (0, "TOOLB_OK", False),
        (7, "TOOLB_OLD", True),
    ]


def test_the_same_passes() -> None:
    assert abi.symbol_problems(FUNCTIONS, set(FUNCTIONS), "x") == []
    assert abi.status_problems(STATUSES, abi.statuses_of(HEADER)) == []
    assert abi.status_problems([*STATUSES, (7, "TOOLB_OLD", True)], abi.statuses_of(HEADER)) == []


def test_symbols_are_flagged() -> None:
    assert abi.symbol_problems(FUNCTIONS, {*FUNCTIONS, "toolb_new"}, "x") == [
        "toolb_new is in x, but not in symbols.txt"
    ]
    assert abi.symbol_problems(FUNCTIONS, set(FUNCTIONS[1:]), "x") == [
        "toolb_abi_version is gone from x"
    ]
    assert abi.symbol_problems(FUNCTIONS[::-1], set(FUNCTIONS), "x") == [
        "symbols.txt is not sorted, or names something twice"
    ]


def test_statuses_are_flagged() -> None:
    there = {"TOOLB_OK": 0, "TOOLB_GONE": 300}
    assert abi.status_problems(STATUSES, {**there, "TOOLB_NEW": 301}) == [
        "TOOLB_NEW = 301 is not listed"
    ]
    assert abi.status_problems(STATUSES, {"TOOLB_OK": 0, "TOOLB_GONE": 302}) == [
        "TOOLB_GONE = 302, but it is listed as 300 or retired"
    ]
    assert abi.status_problems(STATUSES, {"TOOLB_OK": 0}) == [
        "TOOLB_GONE = 300 is gone; mark it `retired`"
    ]
    retired = [(0, "TOOLB_OK", False), (300, "TOOLB_GONE", True)]
    assert abi.status_problems(retired, {"TOOLB_OK": 0, "TOOLB_NEW": 300}) == [
        "TOOLB_NEW = 300, but 300 belongs to TOOLB_GONE for ever"
    ]
    assert abi.status_problems([*STATUSES, (0, "TOOLB_FINE", True)], there) == ["0 is listed twice"]
