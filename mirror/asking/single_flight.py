"""Single flight: those who ask for the same thing at the same time share one ask, and its answer.

An ask is its client's who began it: it waits in turn behind all else that this client asks, and is
repeated beside a silent one only as often as this client may. So nobody else depends on it for
long: a client that has joined an ask which was silent for a while asks beside it, in its own name,
and the first answer is everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from ..contracts.context import Asker
from ..oci.errors import Unavailable
from ..tasks import pass_on

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_SILENT = 2.0  # seconds
_AT_ONCE = 4  # asks for one thing: registries count them


class _Flight(Generic[T]):
    """The asks for one thing that are under way, each with the client that has begun it, and the
    answer to come."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.asks: dict[asyncio.Task[T], str] = {}
        self.begun_at = 0.0  # the last ask, in the event loop's time


class SingleFlight(Generic[K, T]):
    """The asks under way. They go on when those who wait for them leave.

    `silent`: after so many seconds without an answer the next client asks too, also one whose ask
    has failed beside another's; None: none does.
    """

    def __init__(self, silent: float | None = _SILENT) -> None:
        self._silent = silent
        self._flights: dict[K, _Flight[T]] = {}

    def begin(self, asker: Asker, key: K, ask: Callable[[], Awaitable[T]]) -> None:
        """Asks, unless an ask for this is under way."""
        if key not in self._flights:
            self._ask(asker, key, ask)

    async def answer(self, asker: Asker, key: K, ask: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The answer, and whether an ask was under way already. `ask` asks in the asker's name.
        Raises what the ask raises."""
        joined = key in self._flights
        flight = self._flights[key] if joined else self._ask(asker, key, ask)
        while not flight.answer.done():
            wait = self._silent
            if self._silent is not None and asker.client not in flight.asks.values():
                wait = flight.begun_at + self._silent - asyncio.get_running_loop().time()
                if wait <= 0 and len(flight.asks) < _AT_ONCE:
                    self._ask(asker, key, ask)
                    continue
                wait = wait if wait > 0 else self._silent
            await asyncio.wait([flight.answer], timeout=wait)
        return flight.answer.result(), joined

    def is_under_way(self, key: K) -> bool:
        return key in self._flights

    async def ended(self, key: K) -> None:
        """Returns when no ask for this is under way."""
        flight = self._flights.get(key)
        if flight is not None:
            await asyncio.wait([flight.answer])

    async def close(self) -> None:
        tasks = [task for flight in self._flights.values() for task in flight.asks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask(self, asker: Asker, key: K, ask: Callable[[], Awaitable[T]]) -> _Flight[T]:
        async def fly() -> T:
            return await ask()

        flight = self._flights.setdefault(key, _Flight())
        task = asyncio.create_task(fly())
        flight.asks[task] = asker.client
        flight.begun_at = asyncio.get_running_loop().time()
        task.add_done_callback(partial(self._landed, key, flight))
        return flight

    def _landed(self, key: K, flight: _Flight[T], task: asyncio.Task[T]) -> None:
        del flight.asks[task]
        error = None if task.cancelled() else task.exception()
        if flight.answer.done():
            return
        if flight.asks and (task.cancelled() or isinstance(error, Unavailable)):
            return  # the others may still have an answer
        del self._flights[key]
        pass_on(task, flight.answer)
        for other in flight.asks:
            other.cancel()
