"""Waiting for something to come true, with an end: no test sleeps for a time that it guesses."""

from __future__ import annotations

import asyncio
import inspect
import time
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


def until(
    condition: Callable[[], bool], otherwise: Callable[[], str] = str, seconds: float = 30
) -> None:
    """As `eventually`, where there is no event loop; `otherwise` says what to look at."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)
