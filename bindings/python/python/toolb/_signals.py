"""Signals to a worker, and to the processes that its application forks."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any


class Signals:
    """What a worker does about signals. There is one for each process.

    A process that the application forks inherits all of it: a signal to it would end nothing, and
    wake the loop of the worker that it was forked from. So there it is undone.
    """

    def __init__(self) -> None:
        # By number: our handler, and the one before.
        self._handlers: dict[int, tuple[Any, Any]] = {}
        self._threads = threading.local()
        os.register_at_fork(
            before=self._hold, after_in_parent=self._release, after_in_child=self._undo
        )

    def ignore(self, number: int) -> None:
        """Nothing comes of the signal, but for programs that the application starts."""
        if signal.getsignal(number) is not signal.SIG_IGN:
            # SIG_IGN itself would be theirs, too.
            former = signal.signal(number, _nothing)
            self._handlers[number] = (_nothing, former)

    def handle(
        self, loop: asyncio.AbstractEventLoop, number: int, callback: Callable[[], object]
    ) -> None:
        """Has `loop` call that when the signal comes."""
        former = signal.getsignal(number)
        loop.add_signal_handler(number, callback)
        self._handlers[number] = (signal.getsignal(number), former)

    def _hold(self) -> None:
        """What comes to the child before it has undone the handlers waits until then."""
        held = signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers)
        self._threads.held = held

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._threads.held)

    def _undo(self) -> None:
        # Before Python 3.12 asyncio leaves it as it was.
        signal.set_wakeup_fd(-1)
        for number, (ours, former) in self._handlers.items():
            # Unless the application has set one of its own.
            if signal.getsignal(number) is ours:
                signal.signal(number, signal.SIG_DFL if former is None else former)
        self._release()


def _nothing(*_: object) -> None:
    pass
