"""What applications say about themselves, made fit for a log."""

import re

LINE = 500
"""Characters of what is to stand in one line."""

MOST = 16 * 1024
"""Characters of what may take several."""

_TRACEBACK = re.compile(r" *(?:\+ Exception Group )?Traceback \(most recent call last\):")
# In front of each line of a group, but not of those within it.
_OF_GROUP = "  | "


def headline(text: str) -> str:
    """The line of a text that says most: of a traceback, as frameworks send it, the exception's."""
    lines = text.strip().splitlines()
    starts = [number for number, line in enumerate(lines) if _TRACEBACK.fullmatch(line)]
    if starts:
        rest = [line.removeprefix(_OF_GROUP) for line in lines[starts[-1] + 1 :]]
        lines = [line for line in rest if line and not line.startswith(" ")] or rest or lines
    line = lines[0].strip() if lines else ""
    return line if len(line) <= LINE else f"{line[:LINE]}..."


def bounded(text: str) -> str:
    """The text without its middle, if it is long."""
    left_out = len(text) - MOST
    if left_out <= 0:
        return text
    half = MOST // 2
    return f"{text[:half]}\n... {left_out} characters are left out ...\n{text[-half:]}"
