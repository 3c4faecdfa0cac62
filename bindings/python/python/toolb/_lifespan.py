"""The ASGI lifespan protocol: one conversation with the application per event loop."""

import asyncio
import logging
from typing import Any

from ._app import App, Message
from ._words import bounded, headline

logger = logging.getLogger("toolb.error")


class LifespanError(Exception):
    """The application does not start; the text is one line."""


class Lifespan:
    """The start and the end of an application."""

    def __init__(self, app: App, mode: str) -> None:
        self._app = app
        self._mode = mode
        self._state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._startup: Message | None = None
        self._error: BaseException | None = None
        self._is_ending = False
        # It has said itself what went wrong.
        self._is_told = False
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> dict[str, Any] | None:
        """Starts the application. Returns the state for its requests, None if it keeps none."""
        if self._mode == "off":
            return None
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._run(), name="toolb-lifespan")
        await self._started.wait()
        if self._startup is None:
            self._task = None
            self._check_unsupported()
            return None
        if self._startup["type"] == "lifespan.startup.failed":
            text = str(self._startup.get("message") or "").strip()
            reason = headline(text)
            if reason != text:
                logger.error("The application's start-up failed:\n%s", bounded(text))
                reason += "; all of it is above"
            raise LifespanError(
                f"the application's start-up failed: {reason or 'it gave no reason'}"
            )
        return self._state

    async def shutdown(self) -> None:
        """Lets the application clean up, if it was started."""
        if self._task is None or self._task.done():
            return
        self._is_ending = True
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        await self._stopped.wait()

    @property
    def _is_up(self) -> bool:
        return self._startup is not None and self._startup["type"] == "lifespan.startup.complete"

    def _check_unsupported(self) -> None:
        error = self._error
        if self._mode == "auto":
            if error is not None and self._inbox.empty():
                # It has taken the message, so it is not that it knows no lifespan.
                logger.warning(
                    "the application's start-up failed, and it is served without; "
                    "--lifespan on makes that an error",
                    exc_info=error,
                )
                return
            logger.debug("the application does not support lifespan", exc_info=error)
            return
        if error is not None:
            logger.error("Exception in the application's start-up", exc_info=error)
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        else:
            reason = "it returned without answering lifespan.startup"
        raise LifespanError(
            f"the application's start-up failed: {reason}; --lifespan auto starts applications without one"
        )

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._inbox.get, self._send)
        except BaseException as error:
            self._error = error
            if isinstance(error, asyncio.CancelledError):
                raise
            if self._is_up and not self._is_told:
                when = "shutdown" if self._is_ending else "lifespan, which has ended"
                logger.error("Exception in the application's %s", when, exc_info=error)
        finally:
            self._started.set()
            self._stopped.set()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("lifespan.startup.complete", "lifespan.startup.failed"):
            if self._startup is not None:
                raise RuntimeError(f"unexpected ASGI message '{kind}': the start-up is over")
            self._startup = message
            self._started.set()
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            if self._startup is None or self._stopped.is_set():
                raise RuntimeError(f"unexpected ASGI message '{kind}'")
            if kind == "lifespan.shutdown.failed":
                self._is_told = True
                text = bounded(str(message.get("message", "")))
                logger.error("The application's shutdown failed: %s", text)
            self._stopped.set()
        else:
            raise RuntimeError(f"unexpected ASGI message '{kind}' in lifespan")
