"""Blocking work off the event loop.

As run_in_executor, at a third of what that costs the loop: no future that two threads may wait for,
and what several threads finish at about the same time wakes the loop once. A cold image is some
thirty such ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[object, ...]]


class Threads:
    """At most `count` threads, begun as they are needed. For one event loop at a time."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._threads: list[threading.Thread] = []
        self._busy = 0  # jobs given and not settled: the loop's
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._finished: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told: asyncio.AbstractEventLoop | None = None  # will look at what is finished

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """What `work` returns or raises. It is done even if the caller is cancelled meanwhile,
        but for work whose turn has not come."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._busy += 1
        if len(self._threads) < min(self._busy, self._count):
            name = f"{self._name}_{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((future, work, arguments))
        return await future

    def close(self) -> None:
        """Returns when all that was given is done. Blocking; not to be used after it."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work, arguments = job
            result, error = None, None
            if not future.cancelled():
                try:
                    result = work(*arguments)
                except BaseException as raised:
                    error = raised
            self._finished.append((future, result, error))
            loop = future.get_loop()
            if self._told is not loop:
                self._told = loop
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(self._settle)
            del job, future, work, arguments, result, error

    def _settle(self) -> None:
        self._told = None  # first: what is finished from now on tells again
        while self._finished:
            future, result, error = self._finished.popleft()
            self._busy -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
