"""asyncio's set of all tasks, before Python 3.12."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet


class AllTasks(WeakSet["asyncio.Task[Any]"]):
    """A set that is complete whenever somebody looks at it.

    A task that ends in its first step, as those of most requests do, is entered only if that
    happens before.
    """

    complete: Callable[[], None]

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        self.complete()
        return super().__iter__()

    def __len__(self) -> int:
        self.complete()
        return super().__len__()

    def __contains__(self, task: object) -> bool:
        self.complete()
        return super().__contains__(task)
