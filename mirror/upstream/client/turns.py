"""Turns at a token realm, shared fairly between clients (see Places)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ...asking.single_flight import NoTurn
from ...contracts.context import Asker, left
from ...places import Crowded, Places, Unwanted
from ...times import TURNS

T = TypeVar("T")


class Turns:
    """At most `most` asks at once. While `one_by_one` says so there is one; and a second, beside
    one that has been silent for `silent` seconds.

    An ask that waits for its turn is given up after `patience` seconds, and after `longest` in all.
    `name` is for messages.
    """

    def __init__(
        self,
        name: str,
        most: int,
        one_by_one: Callable[[], bool],
        silent: float,
        patience: float,
        longest: float,
    ) -> None:
        self._name = name
        self._most = most
        self._one_by_one = one_by_one
        self._silent = silent
        self._patience = patience
        self.longest = longest
        self._places = Places(most, lambda group: self._limit(), quantum=TURNS.quantum)
        self._held: set[Turn] = set()

    def turn(self, asker: Asker) -> Turn:
        """A turn for this asker, still to be waited for."""
        return Turn(self, asker)

    def _limit(self) -> int:
        if not self._one_by_one():
            return self._most
        now = asyncio.get_running_loop().time()
        return 1 + any(
            turn.since is not None and now - turn.since >= self._silent for turn in self._held
        )

    async def take(self, turn: Turn) -> None:
        """Raises NoTurn."""
        try:
            await self._places.take(turn, min(self._patience, left(turn.asker)))
        except (TimeoutError, Crowded, Unwanted):
            raise NoTurn(
                f"{self._name}: its token realm is asked by others, and has not answered them",
                retry_after=5,
            ) from None
        self._held.add(turn)

    def give(self, turn: Turn) -> None:
        self._held.remove(turn)
        self._places.give(turn)

    def may_ask_back(self, turn: Turn) -> bool:
        """Whether the ask of this turn may be broken off, and repeated later. One by one, only for
        a client that has both turns: an ask that was broken off may still have been counted, and
        nothing is heard of its refusal."""
        if not self._one_by_one():
            return True
        return sum(held.client == turn.client for held in self._held) > 1


class Turn:
    """One ask's turn, a Claim. `since`: when it began, in the event loop's time; None while it is
    waited for."""

    group = ""

    def __init__(self, turns: Turns, asker: Asker) -> None:
        self._turns = turns
        self.asker = asker
        self._timeout: asyncio.Timeout | None = None
        self.since: float | None = None
        self.vain_turns = 0

    @property
    def client(self) -> str:
        return self.asker.client

    @property
    def is_wanted(self) -> bool:
        return self.asker.is_wanted

    async def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks when it is its turn; again, where that was asked back meanwhile. Raises NoTurn, also
        where nothing was heard within `longest` seconds."""
        longest = self._turns.longest
        try:
            async with asyncio.timeout(longest):
                return await self._run(ask)
        except TimeoutError:
            raise NoTurn(f"nothing was heard within {longest:g} s") from None

    async def _run(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            await self._turns.take(self)
            self.since = asyncio.get_running_loop().time()
            self._timeout = asyncio.timeout(None)
            try:
                async with self._timeout:
                    return await ask()
            except TimeoutError:
                if not self._timeout.expired():
                    raise
            finally:
                self.since = self._timeout = None
                self._turns.give(self)
            self.vain_turns += 1

    def give_back(self) -> bool:
        if self._timeout is None or self._timeout.expired() or not self._turns.may_ask_back(self):
            return False
        self._timeout.reschedule(0.0)
        return True
