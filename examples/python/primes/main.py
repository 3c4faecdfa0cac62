"""A handler that takes long. What computes does so in a thread, a piece at a time, so that the loop
goes on serving others; between pieces the client gets a line of progress. When it has left, sending
fails, and that is the end of the computation.

    GET /primes/{limit}    counts the primes below limit
    GET /running           how many computations there are right now
"""

import asyncio

PIECE = 10_000
running = 0


async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/running":
        await start(send, 200)
        return await say(send, f"{running}\n", more=False)
    limit = scope["path"].removeprefix("/primes/")
    if not limit.isascii() or not limit.isdigit() or len(limit) > 18:
        await start(send, 400)
        return await say(send, "ask for /primes/ and a number\n", more=False)
    await start(send, 200)
    return await primes(int(limit), send)


async def primes(limit, send):
    global running
    running += 1
    try:
        found = 0
        for low in range(2, limit, PIECE):
            high = min(low + PIECE, limit)
            # Threads take turns under the interpreter's lock: for more than one core, use an executor
            # of processes (loop.run_in_executor), or more workers.
            found += await asyncio.to_thread(count, low, high)
            await say(send, f"{found} below {high}\n", more=True)
        await say(send, f"{found}\n", more=False)
    finally:
        running -= 1


def count(low, high):
    """How many of the numbers from `low` up to `high` are prime."""
    return sum(1 for n in range(low, high) if is_prime(n))


def is_prime(n):
    divisor = 2
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 1
    return True


async def start(send, status):
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def say(send, text, more):
    await send({"type": "http.response.body", "body": text.encode(), "more_body": more})
