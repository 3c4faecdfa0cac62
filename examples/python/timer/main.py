"""A periodic task that lives as long as the application: the lifespan starts and ends it, and its
state is in the scope of every request. Whoever waits costs no thread.

    GET /              how often the clock has ticked
    GET /ticks/{n}     a line for each of the next n ticks
    GET /after/{ms}    an answer after so many milliseconds
"""

import asyncio

PERIOD = 0.1


class Clock:
    """Ticks, and wakes those who wait for it."""

    def __init__(self):
        self.ticks = 0
        self._next = asyncio.Event()

    async def run(self):
        while True:
            await asyncio.sleep(PERIOD)
            self.ticks += 1
            self._next.set()
            self._next = asyncio.Event()

    async def tick(self):
        """Waits for the next tick."""
        await self._next.wait()
        return self.ticks


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await live(scope["state"], receive, send)
    assert scope["type"] == "http"
    clock = scope["state"]["clock"]
    _, what, *rest = scope["path"].split("/")
    number = int(rest[0]) if len(rest) == 1 and rest[0].isascii() and rest[0].isdigit() else -1
    if (what, rest) == ("", []):
        await start(send, 200)
        return await say(send, f"{clock.ticks} ticks\n")
    if what == "ticks" and 0 < number <= 1_000_000:
        await start(send, 200)
        for left in reversed(range(number)):
            await say(send, f"tick {await clock.tick()}\n", more=left > 0)
        return None
    if what == "after" and 0 <= number <= 3_600_000:
        await asyncio.sleep(number / 1000)
        await start(send, 200)
        return await say(send, "waited\n")
    await start(send, 404)
    return await say(send, "ask for /, /ticks/{n} or /after/{ms}\n")


async def live(state, receive, send):
    """The application from its start to its end."""
    await receive()  # lifespan.startup
    state["clock"] = Clock()
    task = asyncio.create_task(state["clock"].run())
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    task.cancel()
    await send({"type": "lifespan.shutdown.complete"})


async def start(send, status):
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def say(send, text, more=False):
    await send({"type": "http.response.body", "body": text.encode(), "more_body": more})
