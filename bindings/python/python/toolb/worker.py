"""A worker process: attaches to an engine and serves one application.

`toolb run` and `toolb work` start it. Run by hand it attaches to the engine of `toolb serve` whose
bus socket is named in TOOLB_BUS.
"""

import os
import sys

if __name__ == "__main__" and sys.path[0] == os.getcwd():
    # Files of the application may have names of modules that are imported here.
    sys.path.pop(0)

import argparse
import asyncio
import faulthandler
import logging
import signal
import threading
from collections.abc import Sequence

from ._app import AppError
from ._control import hear
from ._finish import DRAIN, HANG_UP, Grace, finish, told_to_end
from ._guest import Guest
from ._lifespan import LifespanError
from ._log import to_stderr
from ._loops import Bridge, LoopError, new_loop
from ._run import CANCELLED, ENGINE_GONE, START_UP_FAILED, run
from ._signals import Signals
from ._start import start
from ._toolb import AttachError, Leash, Worker, name_aborts

logger = logging.getLogger("toolb.error")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a worker and returns its exit code."""
    args = _parse(argv)
    # Who stands still gets SIGABRT and prints where, even if it holds the interpreter's lock.
    faulthandler.enable()
    name_aborts()
    to_stderr(args.log_level)
    bus = os.environ.pop("TOOLB_BUS", "")
    supervisor = os.environ.pop("TOOLB_SUPERVISOR", "")
    if not bus:
        print(
            "toolb.worker: TOOLB_BUS is not set: start the application with `toolb run`",
            file=sys.stderr,
        )
        return START_UP_FAILED
    is_path = bus.startswith(("/", "unix:/"))
    signals = Signals()
    if supervisor or not is_path:
        # Ctrl-C reaches the whole process group; the supervisor decides what it means.
        signals.ignore(signal.SIGINT)
    if is_path:
        return _visit(bus, supervisor, signals, args)
    try:
        worker = _attach(bus)
    except AttachError as error:
        print(f"toolb.worker: {error}", file=sys.stderr)
        return ENGINE_GONE
    try:
        loop, bridge = new_loop(args.loop)
    except LoopError as error:
        worker.fail(str(error), True)
        return START_UP_FAILED
    asyncio.set_event_loop(loop)
    try:
        service = _Service(worker, bridge, signals, args)
        code = run(loop, service.run(), service.end)
        if service.orphaned:
            _leave_threads(code)
        return code
    finally:
        _close(loop)


def _visit(bus: str, supervisor: str, signals: Signals, args: argparse.Namespace) -> int:
    """Serves the engines that come and go at this address."""
    leash = None
    try:
        if supervisor:
            leash = Leash(supervisor)
        loop, bridge = new_loop(args.loop)
    except (AttachError, LoopError) as error:
        if leash is None:
            print(f"toolb.worker: {error}", file=sys.stderr)
        else:
            leash.fail(str(error), True)
        return START_UP_FAILED
    asyncio.set_event_loop(loop)
    try:
        guest = Guest(lambda: _attach(bus), bus, leash, bridge, signals, args, _report)
        code = run(loop, guest.run(), guest.end)
        if guest.orphaned:
            _leave_threads(ENGINE_GONE)
        return code
    finally:
        _close(loop)


def _leave_threads(code: int) -> None:
    """Exits though threads are left: they may take for ever, and nobody would end them."""
    if threading.active_count() > 1:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


class _Service:
    """What a worker does from its start to its end."""

    def __init__(
        self, worker: Worker, bridge: Bridge, signals: Signals, args: argparse.Namespace
    ) -> None:
        self._worker = worker
        self._bridge = bridge
        self._signals = signals
        self._args = args
        self._stop = asyncio.Event()
        # The word that bounds how long handlers may take to end, and how long that is.
        self._last_word = ""
        self._grace = DRAIN
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._worker.control_fd, self._on_control)
        args = self._args

        def loaded() -> None:
            self._signals.handle(loop, signal.SIGTERM, self.end)

        try:
            app = await start(args, loaded, self._hurry, self._abandoned)
        except (AppError, LifespanError) as error:
            self._worker.fail(str(error), True)
            return ENGINE_GONE if self.orphaned else START_UP_FAILED
        code = 0
        # Whatever was started is shut down, even if the word to stop came while it started.
        try:
            if not self._stop.is_set():
                app.serve(self._worker, args.root_path, _report, self._on_broken)
                self._bridge.attach(self._worker)
                self._worker.ready()
                if not await told_to_end(self._stop, self._hurry):
                    code = CANCELLED
                if not self._last_word:
                    # Not the engine's wish: it is to send no more.
                    self._worker.leave()
                await self._finish()
        finally:
            self._bridge.detach()
            await app.shutdown()
        if self.orphaned:
            return ENGINE_GONE
        self._worker.drained()
        return code

    def end(self) -> None:
        """Has it finish what it has begun."""
        self._stop.set()

    @property
    def orphaned(self) -> bool:
        """Nobody is left who would end this process."""
        return self._last_word == "hang-up"

    def _abandoned(self) -> str:
        """Why nobody waits for the start of the application, if so."""
        return "the engine has gone" if self.orphaned else ""

    async def _finish(self) -> None:
        """Waits for the requests in flight."""
        await finish(self._worker, self._hurry, lambda: self._grace)

    def _take(self, word: str, left: float | None = None) -> None:
        self._last_word = word
        self._grace = HANG_UP if word == "hang-up" else Grace.of(left)
        self._hurry.set()
        self._stop.set()

    def _on_broken(self, why: str) -> None:
        logger.error("%s", why)
        self._take("hang-up")

    def _on_control(self) -> None:
        hear(self._worker, self._take)


def _attach(bus: str) -> Worker:
    return Worker(
        bus,
        name=f"python-{os.getpid()}",
        pool="main",
        generation=0,
        token=0,
        slots=1024,
        concurrency=1024,
        window=16,
        timeout=10.0,
    )


def _report(text: str, error: BaseException | None) -> None:
    logger.error(text, exc_info=error)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Ends a loop as `asyncio.run` does."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for task in tasks:
            if not task.cancelled() and (error := task.exception()):
                what = "unhandled exception while the worker ends"
                loop.call_exception_handler({"message": what, "exception": error, "task": task})
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m toolb.worker", description=__doc__)
    parser.add_argument("app", metavar="MODULE:ATTR", help="the application")
    parser.add_argument("--loop", choices=["auto", "asyncio", "uvloop"], default="auto")
    parser.add_argument("--lifespan", choices=["auto", "on", "off"], default="auto")
    parser.add_argument(
        "--factory", action="store_true", help="MODULE:ATTR makes the application when called"
    )
    parser.add_argument(
        "--app-dir", default="", help="where to look for the module (default: here)"
    )
    parser.add_argument("--root-path", default="", help="the prefix the application is mounted at")
    levels = ["critical", "error", "warning", "info", "debug", "trace"]
    parser.add_argument("--log-level", choices=levels, default="info")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
