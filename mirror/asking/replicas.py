"""Registries of several replicas, one of which has not got yet what the others name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from ..oci.errors import Unknown

T = TypeVar("T")

LONGEST = 8.0
"""Seconds for which "there is no such thing" is not believed of what was promised: less than any
client waits."""


def doubts(first: float, within: float) -> Iterator[float]:
    """The pauses, in seconds, after each of which it is asked once more: doubled from `first` on,
    `within` so many in all."""
    pause, left = first, within
    while 0 < pause <= left:
        yield pause
        pause, left = pause * 2, left - pause


async def doubting(ask: Callable[[], Awaitable[T]], pauses: Iterator[float]) -> T:
    """What `ask` gives, once it does not raise Unknown, or no pause is left."""
    while True:
        try:
            return await ask()
        except Unknown:
            pause = next(pauses, None)
            if pause is None:
                raise
        await asyncio.sleep(pause)
