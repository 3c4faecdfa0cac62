"""A worker process: ``python -m toolb.worker MODULE:ATTR``, started by ``toolb run``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from toolb import ClientDisconnected, _waiting
from toolb._lifespan import Lifespan, StartupFailed
from toolb._loops import new_loop, serve_bus
from toolb._toolb import Exchange, Worker

Application = Callable[..., Coroutine[Any, Any, None]]

# The exit code of a worker that cannot start and has said why.
CANNOT_START = 3


class ImportFailed(Exception):
    """The application cannot be imported; the text names the remedy."""


def main() -> None:
    """Attach to the engine, import the application and serve it until the engine ends."""
    options = parse(sys.argv[1:])
    # Ctrl-C goes to the whole group of processes; it is the supervisor that decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(name=options.app)
    try:
        app = load(options.app, options.app_dir, options.factory)
    except ImportFailed as error:
        worker.fail(str(error), True)
        sys.exit(CANNOT_START)
    try:
        loop = new_loop(options.loop)
    except ImportError:
        worker.fail("--loop uvloop: uvloop is not installed; pip install uvloop", True)
        sys.exit(CANNOT_START)
    asyncio.set_event_loop(loop)
    code = loop.run_until_complete(Server(worker, app, options).run())
    with contextlib.suppress(Exception):
        loop.run_until_complete(loop.shutdown_asyncgens())
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of the application that will not end must not keep the process.
    os._exit(code)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read what the supervisor passes on."""
    parser = argparse.ArgumentParser(prog="toolb.worker", description=__doc__)
    parser.add_argument("app", metavar="MODULE:ATTR")
    parser.add_argument("--loop", choices=["auto", "asyncio", "uvloop"], default="auto")
    parser.add_argument("--lifespan", choices=["auto", "on", "off"], default="auto")
    parser.add_argument("--factory", action="store_true")
    parser.add_argument("--app-dir", default=".")
    parser.add_argument("--root-path", default="")
    parser.add_argument("--log-level", default="info")
    return parser.parse_args(arguments)


def load(target: str, app_dir: str, factory: bool) -> Application:
    """Import the application that ``MODULE:ATTR`` names."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ImportFailed(f"{target!r} names no application; write MODULE:ATTR, such as main:app")
    sys.path.insert(0, os.path.abspath(app_dir))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            traceback.print_exc()
            raise ImportFailed(
                f"module {module_name!r} imports {error.name!r}, which is not installed; "
                f"install it into {sys.prefix}"
            ) from error
        raise ImportFailed(
            f"there is no module {module_name!r} in {os.path.abspath(app_dir)} or on the path; "
            "check the name, or give its folder with --app-dir"
        ) from error
    except BaseException as error:
        traceback.print_exc()
        raise ImportFailed(
            f"importing {module_name!r} failed: {type(error).__name__}: {error}; "
            "the traceback above says where"
        ) from error
    app: Any = module
    for name in attribute.split("."):
        try:
            app = getattr(app, name)
        except AttributeError:
            raise ImportFailed(
                f"module {module_name!r} has no attribute {attribute!r}; check the name after the colon"
            ) from None
    if factory:
        try:
            app = app()
        except Exception as error:
            traceback.print_exc()
            raise ImportFailed(
                f"the factory {target!r} failed: {type(error).__name__}: {error}; "
                "the traceback above says where"
            ) from error
    if not callable(app):
        raise ImportFailed(
            f"{target!r} is {type(app).__name__}, which cannot be called; an ASGI application is "
            "called with scope, receive and send"
        )
    application: Application = app
    return application


class Server:
    """One application on one worker."""

    def __init__(self, worker: Worker, app: Application, options: argparse.Namespace) -> None:
        self._worker = worker
        self._app = app
        self._options = options
        self._stop = asyncio.Event()
        self._hung_up = False

    async def run(self) -> int:
        """Serve until told to stop; the result is the exit code."""
        loop = asyncio.get_running_loop()
        worker = self._worker
        loop.add_reader(worker.control_fd(), self._on_control)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        lifespan = Lifespan(self._app, self._options.lifespan)
        starting = loop.create_task(lifespan.startup())
        stopping = loop.create_task(self._stop.wait())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            try:
                starting.result()
            except StartupFailed as error:
                worker.fail(
                    f"the application failed to start: {error}; its lifespan startup says why",
                    True,
                )
                return CANNOT_START
            worker.configure(
                loop_=loop,
                task=asyncio.Task,
                eager=sys.version_info >= (3, 12),
                serve=self._serve,
                helpers=_waiting,
                disconnected=ClientDisconnected,
                root_path=self._options.root_path,
                state=lifespan.state if lifespan.is_supported else None,
            )
            serve_bus(loop, worker)
            worker.ready()
            await stopping
            await self._drain()
        else:
            # The application still gets to undo what it has begun.
            await asyncio.wait([starting], timeout=5)
        await lifespan.shutdown()
        worker.drained()
        return 0

    async def _serve(self, exchange: Exchange, scope: dict[str, Any]) -> None:
        """Run the application on one request."""
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnected:
            exchange.fail()
        except asyncio.CancelledError:
            exchange.fail()
            raise
        except BaseException as error:
            begun = exchange.has_begun
            gone = exchange.is_disconnected
            exchange.fail()
            if not (gone and isinstance(error, OSError)):
                what = "after the response had begun" if begun else "before its response"
                print(
                    f"toolb: the application raised {what}: {scope['method']} {scope['path']}",
                    file=sys.stderr,
                )
                traceback.print_exc()
            if not isinstance(error, Exception):
                raise
        else:
            if not exchange.finish():
                print(
                    "toolb: the application returned without completing its response: "
                    f"{scope['method']} {scope['path']}",
                    file=sys.stderr,
                )

    def _on_control(self) -> None:
        event = self._worker.control()
        if event is None:
            return
        if event == "hang-up":
            self._hung_up = True
            asyncio.get_running_loop().remove_reader(self._worker.control_fd())
        elif event != "drain":
            print(f"toolb: the engine gave this worker up: {event}", file=sys.stderr)
        self._stop.set()

    async def _drain(self) -> None:
        """Let what is in flight end; after a hang-up nobody waits for it for long."""
        deadline = 5.0 if self._hung_up else None
        loop = asyncio.get_running_loop()
        until = None if deadline is None else loop.time() + deadline
        while self._worker.in_flight():
            await asyncio.sleep(0.01)
            if self._hung_up and until is None:
                until = loop.time() + 5.0
            if until is not None and loop.time() > until:
                return


if __name__ == "__main__":
    main()
