"""Threads that go round sockets: each job has its turn, and waits until its socket is ready for
more. So what is sent and received, by the server and from upstreams, costs the loop nothing."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from .tls import TlsSocket

_LAST_TURN = 5.0  # seconds to wait for it when stopping


class Job:
    """What a thread does with a socket, which may speak `tls`. Made on the event loop, where
    `ended` tells how it went; `over`: the thread does no more of it."""

    __slots__ = ("_loop", "ended", "over", "since", "socket", "tls")

    def __init__(self, socket: int, tls: TlsSocket | None) -> None:
        self.socket = socket
        self.tls = tls
        self.since = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.over = False

    def report(self, error: BaseException | None) -> None:
        """From the thread to the loop."""
        self.over = True
        with suppress(RuntimeError):  # the loop is closed, and whoever waited is gone with it
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
            self.ended.exception()  # whoever waited for it may be cancelled


J = TypeVar("J", bound=Job)


class SocketThread(ABC, Generic[J]):
    """One thread. What is not said to be the loop's is touched by this thread alone."""

    def __init__(self, name: str, ready: int, tick: float) -> None:
        """`ready`: epoll's word for a socket with which one can go on. `tick`: seconds between two
        looks for clients that have others wait."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._until = ready | select.EPOLLONESHOT
        self._tick = tick
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._known: set[int] = set()  # sockets that epoll has
        self._waiting: dict[int, J] = {}
        self._ready: deque[J] = deque()
        self._inbox: deque[Callable[[], None]] = deque()
        self._resting: deque[tuple[float, J]] = deque()  # each until when
        self._checked = 0.0
        self._stopping = False
        self.jobs = 0  # the loop's
        self._ended = False  # the loop's

    @abstractmethod
    def _advance(self, job: J) -> None:
        """Gives a job its turn: it is over then, ready for another, or waits."""

    @abstractmethod
    def _give_up(self, now: float) -> None:
        """Ends jobs that have waited for too long."""

    @abstractmethod
    def _cut(self, job: J) -> None:
        """Ends a job, as the server is stopping."""

    # Called on the loop.

    def start(self) -> None:
        """Raises RuntimeError when the thread cannot be started."""
        self._thread.start()

    def post(self, command: Callable[[], None]) -> None:
        if self._ended:
            command()  # there is no thread any more that could be using the descriptors
            return
        self._inbox.append(command)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Has the thread end after the turn that is being taken."""
        if not self._ended:
            self.post(self._quit)

    def release(self) -> None:
        """What the thread had, once it has ended."""
        if self._ended:
            return
        if self._thread.is_alive():
            return  # stuck at a dead disk: it may use its descriptors for ever
        self._ended = True
        while self._inbox:  # what was posted when it had looked for the last time
            self._inbox.popleft()()
        self._known.clear()
        self._epoll.close()
        os.close(self._wake)

    # Called on any thread.

    def join(self) -> None:
        """Waits until it has ended, some seconds at most; not on this thread itself."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_LAST_TURN)

    # Called on this thread.

    def begin(self, job: J) -> None:
        if self._ended:
            self._cut(job)
        else:
            self._ready.append(job)

    def _forget(self, socket: int) -> None:
        """Before the descriptor is closed."""
        self._waiting.pop(socket, None)
        if socket in self._known:
            self._known.discard(socket)
            self._epoll.unregister(socket)

    def _wait(self, job: J) -> None:
        self._waiting[job.socket] = job
        # Once for each wait: unlike an edge, it cannot be missed; and it is one call, where
        # registering anew and unregistering each time cost more than the sending did.
        if job.socket in self._known:
            self._epoll.modify(job.socket, self._until)
        else:
            self._epoll.register(job.socket, self._until)
            self._known.add(job.socket)

    def _rest(self, job: J, seconds: float) -> None:
        """Whatever comes meanwhile. The same time for all jobs of a thread."""
        self._resting.append((time.monotonic() + seconds, job))

    def _run(self) -> None:
        while not self._stopping:
            self._go_round()
        resting = [job for _, job in self._resting]
        for job in [*self._ready, *self._waiting.values(), *resting]:
            if not job.over:
                self._cut(job)

    def _go_round(self) -> None:
        for socket, _ in self._epoll.poll(self._pause()):
            if socket == self._wake:
                os.eventfd_read(self._wake)
            elif (waited := self._waiting.pop(socket, None)) is not None:
                self._ready.append(waited)
        while self._inbox:
            self._inbox.popleft()()
        while self._resting and self._resting[0][0] <= time.monotonic():
            self._ready.append(self._resting.popleft()[1])
        for _ in range(len(self._ready)):
            job = self._ready.popleft()
            if not job.over:
                self._advance(job)
        now = time.monotonic()
        if now - self._checked >= self._tick:
            self._checked = now
            self._give_up(now)

    def _pause(self) -> float | None:
        if self._ready or self._stopping:
            return 0
        if self._resting:
            return max(0.0, self._resting[0][0] - time.monotonic())
        return self._tick if self._waiting else None

    def _quit(self) -> None:
        self._stopping = True


T = TypeVar("T", bound=SocketThread[Any])


class SocketThreads(Generic[T]):
    """At most `count` threads (a few by default), begun as they are needed."""

    def __init__(self, make: Callable[[], T], count: int | None = None) -> None:
        self._make = make
        self._count = count or min(4, os.cpu_count() or 1)
        self.all: list[T] = []

    def least_busy(self) -> T:
        """Raises RuntimeError when no thread can be started."""
        least = min(self.all, key=lambda thread: thread.jobs, default=None)
        if least is None or (least.jobs and len(self.all) < self._count):
            thread = self._make()
            try:
                thread.start()
            except RuntimeError:
                thread.release()
                if least is None:
                    raise
            else:
                self.all.append(thread)
                return thread
        return least
