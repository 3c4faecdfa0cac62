"""The lifespan protocol: one conversation with the application per worker (ASGI lifespan 2.0)."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Literal

Application = Callable[..., Coroutine[Any, Any, None]]


class StartupFailed(Exception):
    """The application said that it cannot start, or with ``on`` raised."""


class Lifespan:
    """Tells an application that it starts and stops."""

    def __init__(self, app: Application, mode: Literal["auto", "on", "off"]) -> None:
        self._app = app
        self._mode = mode
        self._messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._started: asyncio.Future[str | None] | None = None
        self._stopped: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}
        self.is_supported = False

    async def startup(self) -> None:
        """Start the application; raises ``StartupFailed`` if it cannot."""
        if self._mode == "off":
            return
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._stopped = loop.create_future()
        self._messages.put_nowait({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run(), name="toolb-lifespan")
        failure = await self._started
        if failure is not None:
            raise StartupFailed(failure)

    async def shutdown(self) -> None:
        """Stop the application, also one whose start was still under way."""
        if self._task is None or self._task.done() or self._stopped is None:
            return
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        failure = await self._stopped
        if failure is not None:
            print(f"toolb: the application failed to shut down: {failure}", file=sys.stderr)
        await asyncio.wait([self._task], timeout=1)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        error: str | None = None
        try:
            await self._app(scope, self._messages.get, self._send)
        except Exception as raised:
            starting = self._started is not None and not self._started.done()
            if starting and self._mode == "auto":
                # An application that does not know lifespan raises: it is served without.
                self._settle(self._started, None)
                self._settle(self._stopped, None)
                return
            traceback.print_exc()
            error = f"{type(raised).__name__}: {raised}"
        self._settle(self._started, error)
        self._settle(self._stopped, error)

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self.is_supported = True
            self._settle(self._started, None)
        elif kind == "lifespan.startup.failed":
            self._settle(self._started, message.get("message") or "no reason given")
        elif kind == "lifespan.shutdown.complete":
            self._settle(self._stopped, None)
        elif kind == "lifespan.shutdown.failed":
            self._settle(self._stopped, message.get("message") or "no reason given")
        else:
            raise RuntimeError(f"send got a message of type {kind} in the lifespan scope")

    @staticmethod
    def _settle(future: asyncio.Future[str | None] | None, result: str | None) -> None:
        if future is not None and not future.done():
            future.set_result(result)
