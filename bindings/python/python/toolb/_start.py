"""How a worker comes to an application that has started."""

import argparse
import asyncio
from collections.abc import Callable
from typing import Any

from ._app import App, load
from ._lifespan import Lifespan, LifespanError
from ._toolb import Worker

START_GRACE = 1.0
"""Seconds that a start-up gets when nobody waits for it any more."""

Report = Callable[[str, BaseException | None], None]


class Started:
    """An application that has started. It is to be shut down, whatever happens."""

    def __init__(self, app: App, lifespan: Lifespan, state: dict[str, Any] | None) -> None:
        self._app = app
        self._lifespan = lifespan
        self._state = state

    def serve(
        self, worker: Worker, root_path: str, report: Report, broken: Callable[[str], None]
    ) -> None:
        """Has `worker` call it, on the running loop."""
        worker.serve(
            self._app,
            asyncio.get_running_loop(),
            report=report,
            broken=broken,
            root_path=root_path,
            state=self._state,
        )

    async def shutdown(self) -> None:
        """Lets it clean up."""
        await self._lifespan.shutdown()


async def start(
    args: argparse.Namespace,
    loaded: Callable[[], None],
    hurry: asyncio.Event,
    abandoned: Callable[[], str],
) -> Started:
    """Loads the application and starts it.

    Signals end the process until it is `loaded`: there is nothing to be shut down before. Once there
    is a `hurry`, it is asked why nobody waits for the start any more, if that is so.
    """
    app = load(args.app, factory=args.factory, app_dir=args.app_dir)
    loaded()
    lifespan = Lifespan(app, args.lifespan)
    starting = asyncio.ensure_future(lifespan.startup())
    hurrying = asyncio.ensure_future(hurry.wait())
    await asyncio.wait((starting, hurrying), return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    if hurry.is_set() and (why := abandoned()):
        await asyncio.wait((starting,), timeout=START_GRACE)
        if not starting.done():
            starting.cancel()
            raise LifespanError(why)
    return Started(app, lifespan, await starting)
