"""What ``receive`` and ``send`` return when they cannot complete at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolb._toolb import Exchange


async def receive_later(exchange: Exchange) -> dict[str, Any]:
    """Wait for the next message. A cancelled wait loses none."""
    while True:
        message = exchange.take()
        if message is not None:
            return message
        future = asyncio.get_running_loop().create_future()
        exchange.wait_to_receive(future)
        await future


async def send_later(exchange: Exchange) -> None:
    """Wait until the client has taken enough of what was sent."""
    while exchange.is_above and not exchange.is_disconnected:
        future = asyncio.get_running_loop().create_future()
        exchange.wait_to_send(future)
        await future
