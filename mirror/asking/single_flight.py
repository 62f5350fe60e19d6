"""Single flight: clients that ask for the same thing at the same time share one ask, and its
answer.

An ask is made in the name of the client that began it: it waits in turn behind all else that this
client asks, and is repeated beside a silent one only as often as this client may. So no other
client depends on it for long: one that has joined an ask which was silent for a while asks beside
it, in its own name, and the first answer is everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, Protocol, TypeVar

from ..contracts.context import Asker
from ..frozen import dataclass
from ..oci.errors import Unavailable
from ..tasks import pass_on, settled
from ..times import ANSWERS
from .budgets import Budgets

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class NoTurn(Unavailable):
    """Nothing was asked: the asker's client had no turn beside what is asked already."""


class Turn(Protocol):
    """One ask's turn, in the name of a client, which may change."""

    @property
    def client(self) -> str: ...

    @property
    def since(self) -> float | None:
        """When the turn began, in the event loop's time; None while it is waited for."""

    async def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks when it is this turn. Raises NoTurn, and what `ask` raises."""


class Turns(Protocol):
    """Gives turns to askers, where not all may ask at once."""

    def turn(self, asker: Asker) -> Turn:
        """A turn for this asker, still to be waited for."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """When clients that wait for an ask begin another beside it.

    `silent`: seconds without an answer after which they may; None: never. Of the asks for one thing
    a client has at most `of_client` at once, and all clients together `of_all`: registries count
    asks. `beside`: of each client, the asks beside others that bring no answer; None: any number.
    An ask that fails with one of `unheard` has heard nothing, and leaves the others going.
    """

    silent: float | None = ANSWERS.beside
    of_client: int = 1
    of_all: float = 4
    beside: Budgets | None = None
    unheard: tuple[type[Unavailable], ...] = (Unavailable,)


class SingleFlight(Generic[K, T]):
    """The asks under way. They go on when the clients that wait for them leave. `turns`: without
    them, each ask is made at once."""

    def __init__(self, sharing: Sharing | None = None, turns: Turns | None = None) -> None:
        self._sharing = sharing or Sharing()
        self._turns = turns or _AtOnce()
        self._flights: dict[K, _Flight[T]] = {}

    def begin(self, asker: Asker, key: K, ask: Callable[[], Awaitable[T]]) -> None:
        """Asks, unless an ask for this is under way."""
        if key not in self._flights:
            self._ask(asker, key, ask)

    async def answer(self, asker: Asker, key: K, ask: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The answer, and whether an ask was under way already. `ask` asks in the asker's name.
        Raises what the ask raises, and NoTurn only where the asker's own client had no turn."""
        joined = key in self._flights
        while True:
            flight = self._flights.get(key) or self._ask(asker, key, ask)
            try:
                return await self._answer_of(asker, key, flight, ask), joined
            except NoTurn:
                if asker.client in flight.turned_away:
                    raise

    def is_under_way(self, key: K) -> bool:
        return key in self._flights

    async def ended(self, key: K) -> None:
        """Returns when no ask for this is under way."""
        flight = self._flights.get(key)
        if flight is not None:
            await asyncio.wait([flight.answer])

    async def close(self) -> None:
        tasks = [task for flight in self._flights.values() for task in flight.asks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer_of(
        self, asker: Asker, key: K, flight: _Flight[T], ask: Callable[[], Awaitable[T]]
    ) -> T:
        silent, beside = self._sharing.silent, self._sharing.beside
        loop = asyncio.get_running_loop()
        while not flight.answer.done():
            wait = silent
            at = None if silent is None else self._beside_at(flight, asker.client, silent)
            if at is not None and at > loop.time():
                wait = at - loop.time()
            elif at is not None and (beside is None or beside.of(asker.client).take()):
                self._ask(asker, key, ask)
                continue
            await settled(flight.answer, wait)
        try:
            return flight.answer.result()
        except Exception as error:  # every client that waits raises the same one
            raise error.with_traceback(None) from error.__cause__

    def _beside_at(self, flight: _Flight[T], client: str, silent: float) -> float | None:
        """When this client may ask beside the asks that are under way; None: not before one of them
        ends. What others have begun may wait behind all else that they ask, or they may have used
        up their asks beside."""
        if len(flight.asks) >= self._sharing.of_all:
            return None
        own = [turn for turn in flight.asks if turn.client == client]
        if not own:
            return flight.begun_at + silent
        since = [turn.since for turn in own if turn.since is not None]
        if len(own) >= self._sharing.of_client or len(since) < len(own):
            return None
        return max(since) + silent

    def _ask(self, asker: Asker, key: K, ask: Callable[[], Awaitable[T]]) -> _Flight[T]:
        flight = self._flights.setdefault(key, _Flight())
        is_beside = bool(flight.asks)
        turn = self._turns.turn(asker)
        task = asyncio.create_task(turn.run(ask))
        flight.asks[turn] = task
        flight.begun_at = asyncio.get_running_loop().time()
        task.add_done_callback(partial(self._landed, key, flight, turn, is_beside))
        return flight

    def _landed(
        self, key: K, flight: _Flight[T], turn: Turn, is_beside: bool, task: asyncio.Task[T]
    ) -> None:
        del flight.asks[turn]
        error = None if task.cancelled() else task.exception()
        if flight.answer.done():
            return
        if isinstance(error, NoTurn):
            flight.turned_away.add(turn.client)
        if flight.asks and (task.cancelled() or isinstance(error, self._sharing.unheard)):
            return  # the others may still have an answer
        del self._flights[key]
        pass_on(task, flight.answer)
        beside = self._sharing.beside
        if beside is not None and is_beside and error is None and not task.cancelled():
            beside.of(turn.client).give_back()
        for other in flight.asks.values():
            other.cancel()


class _Flight(Generic[T]):
    """The asks for one thing that are under way, each with its turn, and the answer to come."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.asks: dict[Turn, asyncio.Task[T]] = {}
        self.begun_at = 0.0  # the last ask, in the event loop's time
        self.turned_away: set[str] = set()  # clients that had no turn


class _AtOnce:
    """Turns for any number of asks."""

    def turn(self, asker: Asker) -> Turn:
        return _Now(asker, asyncio.get_running_loop().time())


@dataclass(frozen=True, slots=True, eq=False)
class _Now:
    asker: Asker
    since: float | None

    @property
    def client(self) -> str:
        return self.asker.client

    async def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await ask()
