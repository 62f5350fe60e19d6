"""Waiting for something to come true, with an end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(condition: Callable[[], T | Awaitable[T]], seconds: float = 10) -> T:
    """Asks the condition, plain or async, until it is true; returns what it said.

    Fails with the last thing it said when `seconds` have passed.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        said = condition()
        if inspect.isawaitable(said):
            said = await said
        if said:
            return said
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"after {seconds:g} s it still says {said!r}")
        await asyncio.sleep(0.01)
