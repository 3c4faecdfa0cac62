"""Bytes that both the tests and the application can name without sending them."""

from __future__ import annotations

import functools
import hashlib

BLOCK = 64 * 1024


@functools.cache
def payload(size: int) -> bytes:
    """`size` bytes in which no block looks like another, the same in every process."""
    blocks = (hashlib.shake_128(b"%d" % n).digest(BLOCK) for n in range(-(-size // BLOCK)))
    return b"".join(blocks)[:size]


def marked(mark: str, size: int) -> bytes:
    """The same with its first bytes replaced: whose payload it is can be told."""
    text = mark.encode()[:size]
    return text + payload(size)[len(text) :]
