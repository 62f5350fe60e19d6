"""Single flight: those who ask for the same thing at the same time share one ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """The asks under way. They go on when those who wait for them leave."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[T]] = {}

    def join(self, key: K, ask: Callable[[], Awaitable[T]]) -> tuple[asyncio.Task[T], bool]:
        """The running ask for this key, or this one begun; and whether it was running already.

        Wait for it through `asyncio.shield`, so that leaving does not end it for the others.
        """
        running = self._tasks.get(key)
        if running is not None:
            return running, True

        async def fly() -> T:
            return await ask()

        task = asyncio.create_task(fly())
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._landed(key, done))
        return task, False

    def running(self, key: K) -> asyncio.Task[T] | None:
        """The ask under way for this key."""
        return self._tasks.get(key)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # seen, so that nobody having waited is no warning
