"""One ask for all who wait for the same, and another beside it when it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from ...asking.budgets import Budgets
from ...clock import Clock
from ...contracts.context import Asker
from ...tasks import pass_on
from ..failures import NoTurn, Unreached
from .turns import Turn, Turns

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_OF_CLIENT = 2  # asks for the same thing
# A client's asks beside silent ones that were of no use: so many at once, and more a second.
_BESIDE = 8.0
_BESIDE_REFILL = 0.1


class _Flight(Generic[T]):
    """The asks for one thing that are under way, each with its turn, and their answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.asks: dict[Turn, asyncio.Task[T]] = {}
        self.begun_at = 0.0  # the last of them, in the event loop's time
        self.turned_away: set[str] = set()  # clients that had no turn

    def beside_at(self, client: str, silent: float) -> float | None:
        """When this client may ask beside those that are under way; None: not before that has
        changed. What others have begun may wait behind all else that they ask, or may have used up
        their asks beside: so nobody depends on it for longer than that."""
        own = [turn for turn in self.asks if turn.client == client]
        if not own:
            return self.begun_at + silent
        since = [turn.since for turn in own if turn.since is not None]
        if len(own) >= _OF_CLIENT or len(since) < len(own):
            return None
        return max(since) + silent


class Asks(Generic[K, T]):
    """Each ask takes a turn, in the name of the client for which it began. When an ask for
    something was silent for `silent` seconds, whoever waits for that asks beside it: each client
    once more, and one of them every `silent` seconds. The first answer is the answer to all, and
    the other asks are dropped; also an error is one, unless it says that nothing was heard.

    They go on when those who wait leave, for `longest` seconds at most.
    """

    def __init__(self, turns: Turns, clock: Clock, silent: float, longest: float) -> None:
        self._turns = turns
        self._silent = silent
        self._longest = longest
        self._beside = Budgets(_BESIDE, _BESIDE_REFILL, clock)
        self._flights: dict[K, _Flight[T]] = {}

    async def close(self) -> None:
        tasks = [task for flight in self._flights.values() for task in flight.asks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def answer(self, asker: Asker, key: K, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises NoTurn when there was no turn for the asker's client, and what `ask` raises."""
        while True:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight()
                self._begin(asker, key, flight, ask)
            try:
                return await self._answer_of(asker, key, flight, ask)
            except NoTurn:
                if asker.client in flight.turned_away:
                    raise

    async def _answer_of(
        self, asker: Asker, key: K, flight: _Flight[T], ask: Callable[[], Awaitable[T]]
    ) -> T:
        loop = asyncio.get_running_loop()
        while not flight.answer.done():
            at = flight.beside_at(asker.client, self._silent)
            wait = self._silent if at is None else at - loop.time()
            if wait <= 0:
                if self._beside.of(asker.client).take():
                    self._begin(asker, key, flight, ask)
                    continue
                wait = self._silent
            await asyncio.wait([flight.answer], timeout=wait)
        try:
            return flight.answer.result()
        except Exception as error:  # each of those who wait raises it
            raise error.with_traceback(None) from error.__cause__

    def _begin(
        self, asker: Asker, key: K, flight: _Flight[T], ask: Callable[[], Awaitable[T]]
    ) -> None:
        is_beside = bool(flight.asks)
        turn = self._turns.turn(asker)
        task = asyncio.create_task(self._ask(turn, ask))
        flight.asks[turn] = task
        flight.begun_at = asyncio.get_running_loop().time()
        task.add_done_callback(partial(self._ended, key, flight, turn, is_beside))

    async def _ask(self, turn: Turn, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._longest):
                return await turn.run(ask)
        except TimeoutError:
            raise NoTurn(f"nothing was heard within {self._longest:g} s") from None

    def _ended(
        self, key: K, flight: _Flight[T], turn: Turn, is_beside: bool, task: asyncio.Task[T]
    ) -> None:
        del flight.asks[turn]
        error = None if task.cancelled() else task.exception()
        if flight.answer.done():
            return
        if isinstance(error, NoTurn):
            flight.turned_away.add(turn.client)
        if flight.asks and (task.cancelled() or isinstance(error, NoTurn | Unreached)):
            return
        del self._flights[key]
        pass_on(task, flight.answer)
        if is_beside and error is None and not task.cancelled():
            self._beside.of(turn.client).give_back()
        for other in flight.asks.values():
            other.cancel()


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
