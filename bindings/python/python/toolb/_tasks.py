"""asyncio's set of all tasks, before Python 3.12."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakSet, ref


class AllTasks(WeakSet["asyncio.Task[Any]"]):
    """A set that is complete whenever somebody looks at it.

    A task that ends in its first step, as those of most requests do, is entered only if that
    happens before.
    """

    def complete(self) -> None:
        """Enters who is missing. The set of asyncio has its own; what is made of it misses nobody."""

    @property
    def data(self) -> set[ref[asyncio.Task[Any]]]:
        """What all methods of a `WeakSet` look at."""
        self.complete()
        return vars(self)["data"]  # type: ignore[no-any-return]

    @data.setter
    def data(self, data: set[ref[asyncio.Task[Any]]]) -> None:
        vars(self)["data"] = data
