"""A worker that looks for its engine itself, and outlives it."""

import argparse
import asyncio
import logging
import random
import signal
from collections.abc import Callable

from ._app import AppError
from ._control import hear
from ._finish import DRAIN, HANG_UP, Grace, finish, told_to_end
from ._lifespan import LifespanError
from ._loops import Bridge
from ._run import CANCELLED, START_UP_FAILED
from ._signals import Signals
from ._start import Report, Started, start
from ._toolb import AttachError, EngineAbsent, Leash, Worker

logger = logging.getLogger("toolb.error")

ORPHANED = Grace(30.0)
"""Who has lost its supervisor, and need not hurry."""

PAUSES = (0.01, 1.0)
"""Seconds between two looks for an engine, at first and at last."""


class Guest:
    """What such a worker does from its start to its end."""

    def __init__(
        self,
        attach: Callable[[], Worker],
        bus: str,
        leash: Leash | None,
        bridge: Bridge,
        signals: Signals,
        args: argparse.Namespace,
        report: Report,
    ) -> None:
        self._attach_first = attach
        self._bus = bus
        self._leash = leash
        self._bridge = bridge
        self._signals = signals
        self._args = args
        self._report = report
        self._worker: Worker | None = None
        # It is to end. Who has asked so is not the engine.
        self._stop = asyncio.Event()
        # The engine wants no more of it, or it is to end.
        self._parting = asyncio.Event()
        self._hurry = asyncio.Event()
        # The word that bounds how long handlers may take to end, and how long that is.
        self._last_word = ""
        self._grace = DRAIN
        self._gone = False
        self._is_ready = False
        self._code = 0

    async def run(self) -> int:
        """Serves until it is told to end. Returns the exit code."""
        loop = asyncio.get_running_loop()
        if self._leash is not None:
            loop.add_reader(self._leash.fd, self._on_leash)

        def loaded() -> None:
            self._signals.handle(loop, signal.SIGTERM, self.end)
            if self._leash is None:
                self._signals.handle(loop, signal.SIGINT, self.end)

        try:
            app = await start(self._args, loaded, self._hurry, self._abandoned)
        except (AppError, LifespanError) as error:
            return self._fail(str(error))
        try:
            while await self._attach(app):
                await self._serve()
                if self._worker is not None and self._worker.in_flight:
                    # Some handlers would not end: they cannot be told from those to come.
                    logger.error("requests of the last engine do not end; this process does")
                    return 0
        except AttachError as error:
            return self._fail(str(error))
        finally:
            await app.shutdown()
        return self._code

    def end(self) -> None:
        """Has it finish what it has begun; said again, it is to hurry."""
        if self._stop.is_set():
            self._last_word = "drain"
            self._hurry.set()
        elif self._leash is not None:
            # Unless it was told so there: then nobody waits for this word.
            self._leash.leave()
        self._stop.set()
        self._parting.set()

    @property
    def orphaned(self) -> bool:
        """Nobody is left who would end this process."""
        return self._last_word == "orphaned"

    def _abandoned(self) -> str:
        """Why nobody waits for the start of the application: the supervisor has gone, or urges."""
        return "it was told to end before it had started"

    async def _attach(self, app: Started) -> bool:
        """Looks for an engine until there is one. False: it is to end."""
        pause, most = PAUSES
        complaint = ""
        while not self._stop.is_set():
            try:
                if self._worker is None:
                    self._worker = self._attach_first()
                    app.serve(self._worker, self._args.root_path, self._report, self._on_broken)
                else:
                    self._worker.reattach(self._bus)
                self._ready()
                return True
            except EngineAbsent as error:
                complaint = self._complain(str(error), complaint, logging.INFO)
            except AttachError as error:
                if not self._is_ready:
                    raise
                # What this engine does not like, the next one may.
                complaint = self._complain(str(error), complaint, logging.ERROR)
            self._ready()
            await self._sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, most)
        return False

    async def _sleep(self, seconds: float) -> None:
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((stop,), timeout=seconds)
        stop.cancel()

    async def _serve(self) -> None:
        worker = self._worker
        assert worker is not None
        loop = asyncio.get_running_loop()
        self._gone = False
        if not self._stop.is_set():
            self._parting.clear()
            self._hurry.clear()
            self._grace = DRAIN
        loop.add_reader(worker.control_fd, self._on_control)
        self._bridge.attach(worker)
        worker.ready()
        self._tell(True)
        if not await told_to_end(self._parting, self._hurry):
            self._code = CANCELLED
            self.end()
        if not self._gone:
            worker.leave()
        await finish(worker, self._hurry, lambda: self._grace)
        self._bridge.detach()
        if not self._gone:
            loop.remove_reader(worker.control_fd)
            worker.drained()

    def _ready(self) -> None:
        """The application has started, and there is nothing wrong with where it looks."""
        if not self._is_ready and self._leash is not None:
            self._leash.ready()
        self._is_ready = True

    def _fail(self, why: str) -> int:
        if self._leash is None:
            logger.error("%s", why)
        else:
            self._leash.fail(why, True)
        return START_UP_FAILED

    def _complain(self, why: str, before: str, level: int) -> str:
        if why != before:
            self._tell(False, why, level)
        return why

    def _tell(self, attached: bool, why: str = "", level: int = logging.INFO) -> None:
        """Says whether there is an engine: to the supervisor, which speaks for all of its workers."""
        if self._leash is not None:
            self._leash.attached(attached, why)
            level = level if level > logging.INFO else logging.DEBUG
        if attached:
            logger.log(level, "attached to the engine at %s", self._bus)
        else:
            logger.log(level, "%s - looking again until an engine is there", why)

    def _on_broken(self, why: str) -> None:
        logger.error("%s", why)
        self._take("hang-up")

    def _take(self, word: str, left: float | None = None) -> None:
        """A word of the engine."""
        self._last_word = word
        self._grace = HANG_UP if word == "hang-up" else Grace.of(left)
        self._gone = self._gone or word == "hang-up"
        self._hurry.set()
        self._parting.set()

    def _on_control(self) -> None:
        assert self._worker is not None
        hear(self._worker, self._on_word)

    def _on_word(self, word: str, left: float | None) -> None:
        self._take(word, left)
        if word == "hang-up":
            self._tell(False, "the engine has gone")

    def _on_leash(self) -> None:
        assert self._leash is not None
        while word := self._leash.word():
            kind, _, left = word
            if kind == "error":
                continue
            self._grace = Grace.of(left)
            # Said a second time: little of the time is left.
            self.end()
            if kind == "hang-up":
                self._last_word = "orphaned"
                self._grace = ORPHANED
                asyncio.get_running_loop().remove_reader(self._leash.fd)
                self._hurry.set()
                break
