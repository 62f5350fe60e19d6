"""One ask, and the same once more beside it when it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def once_more_if_silent(ask: Callable[[], Awaitable[T]], silent: float) -> T:
    """The first answer to this, or to the same asked once more beside it when it was silent for so
    many seconds. Raises what the last of them raises."""
    asks = {asyncio.ensure_future(ask())}
    try:
        done, _ = await asyncio.wait(asks, timeout=silent)
        if not done:
            asks.add(asyncio.ensure_future(ask()))
        while True:
            done, under_way = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
            answered = [task for task in done if task.exception() is None]
            if answered or not under_way:
                return (answered or [*done])[0].result()
            asks = under_way
    finally:
        for task in asks:
            task.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
