"""Blocking work off the event loop.

As run_in_executor, at half of what that costs: no future that two threads may wait for, and what
several threads finish at about the same time wakes the loop once. To read a file of 4 KiB takes
19 µs so, 33 µs by asyncio.to_thread, and 88 µs by aiofiles, which goes to a thread for each step. A
cold image is some thirty such ways. And a machine that lets this process start no further thread (a
limit of tasks, as systemd's TasksMax or Docker's --pids-limit) makes work slower, and fails none.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import weakref
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
        self._closed = False

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """What `work` returns or raises. It is done even if the caller is cancelled meanwhile,
        but for work whose turn has not come. Raises RuntimeError once this is closed.

        Where not one thread can be started, it is done at once, on the event loop: see `can_run`.
        """
        return await self.begin(work, *arguments)

    def begin(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """As `run`, for callers who need not wait."""
        if self._closed:
            raise RuntimeError(f"the threads ({self._name}) are closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.can_run():
            self._busy += 1
            self._jobs.put((future, work, arguments))
            return future
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def can_run(self) -> bool:
        """Whether there is a thread; one more is started if all have work, and it may be."""
        if len(self._threads) < min(self._busy + 1, self._count):
            name = f"{self._name}_{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                pass  # the next job tries again; this one waits for those that are there
            else:
                self._threads.append(thread)
        return bool(self._threads)

    def leave(self) -> None:
        """The threads end when all that was given is done, which is not waited for."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)

    def close(self) -> None:
        """Returns when all that was given is done. Blocking; not to be used after it."""
        self.leave()
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
                try:
                    loop.call_soon_threadsafe(self._settle)
                except RuntimeError:  # the loop is closed: nobody waits
                    self._told = None
            del job, future, work, arguments, result, error, loop

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


class MayHang:
    """Work that may never end, such as reading a file on a share that is gone: one piece at a time,
    on a thread of its own, so that it holds up nothing else. For one event loop."""

    def __init__(self, within: float) -> None:
        self._within = within  # seconds that the event loop's callers wait for one piece
        self._last: asyncio.Future[Any] | None = None
        self._overdue_at = 0.0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Raises TimeoutError when it takes longer than `within`, or
        when what was begun before does: then no more is begun, and nobody waits again. Raises
        OSError when no thread can be started."""
        loop = asyncio.get_running_loop()
        while self._last is not None and not self._last.done():
            await _settled(self._last, self._overdue_at)
        threads = Threads(1, "may_hang")
        if not threads.can_run():
            raise OSError(errno.EAGAIN, "no thread can be started")
        last: asyncio.Future[T] = threads.begin(work)
        self._last = last
        threads.leave()
        self._overdue_at = loop.time() + self._within
        await _settled(last, self._overdue_at)
        return last.result()


async def _settled(future: asyncio.Future[Any], until: float) -> None:
    """Raises TimeoutError when it has no result by then (the event loop's time)."""
    left = until - asyncio.get_running_loop().time()
    if left <= 0 or not (await asyncio.wait([future], timeout=left))[0]:
        raise TimeoutError


AT_ONCE = 16 << 10
"""Bytes of a stranger's document (JSON) that are read on the event loop: one or two milliseconds.
The most that is taken of some takes a hundred times as long."""


async def read_aside(read: Callable[..., T], data: bytes, *arguments: object) -> T:
    """`read(data, …)`: a large document is read on a thread."""
    if len(data) <= AT_ONCE:
        return read(data, *arguments)
    return await aside(read, data, *arguments)


_SHARED = min(16, (os.cpu_count() or 1) + 4)  # as many as asyncio has, but for large machines
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Threads] = weakref.WeakKeyDictionary()


def aside(work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
    """`work` on threads that are shared by all that has none of its own, as asyncio.to_thread. Not
    for what may hang: a name server, another host, a share (see MayHang)."""
    loop = asyncio.get_running_loop()
    threads = _shared.get(loop)
    if threads is None:
        threads = _shared[loop] = Threads(_SHARED, "aside")
        weakref.finalize(loop, threads.leave)
    return threads.begin(work, *arguments)
