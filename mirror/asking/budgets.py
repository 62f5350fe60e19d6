"""Bounds for asks that are not needed while all is well: retries, hedges, asks beside others."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

from cachetools import LRUCache

from ..clock import Clock

_BUDGETS = 1024


class Budget:
    """A token bucket of asks that are not needed while all is well: `most` at once, and `refill`
    more a second.

    While all is well, it is never empty. When it is not, each of a thousand waiting requests may
    ask once, but they share these.
    """

    def __init__(self, most: float, refill: float, clock: Clock) -> None:
        self._most = most
        self._refill = refill
        self._clock = clock
        self._left = most
        self._counted_at = clock.monotonic()

    def has_left(self) -> bool:
        now = self._clock.monotonic()
        grown = self._left + (now - self._counted_at) * self._refill
        self._left, self._counted_at = min(self._most, grown), now
        return self._left >= 1

    def take(self) -> bool:
        """Whether one more is allowed; it is counted when it is."""
        if not self.has_left():
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """One of the asks was of use."""
        self._left = min(self._most, self._left + 1)


class Budgets:
    """One budget for each key, such as a client or a repository, so that none uses up another's.
    Bounded: of very many the longest unused is full again."""

    def __init__(self, most: float, refill: float, clock: Clock) -> None:
        self._new = partial(Budget, most, refill, clock)
        self._all: LRUCache[Hashable, Budget] = LRUCache(_BUDGETS)

    def __len__(self) -> int:
        return len(self._all)

    def of(self, whose: Hashable) -> Budget:
        budget = self._all.get(whose)
        if budget is None:
            budget = self._all[whose] = self._new()
        return budget
