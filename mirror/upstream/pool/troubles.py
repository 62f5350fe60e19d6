"""One kind of trouble with an endpoint: held against what met it, and against the whole endpoint
where several have.

What fails is what some client has chosen to ask for. So a failure counts for its own part of what
the endpoint has (a repository, a piece of content), and for the whole endpoint only once several
parts have met it, and none has done well in between.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

from .breaker import Breaker, BreakerState, Pauses

K = TypeVar("K", bound=Hashable)


class Troubles(Generic[K]):
    """Breakers: one for each part that has failed, and one for the whole, which opens when `agree`
    parts have; None: never. Bounded: of very many parts the longest unused is forgotten."""

    def __init__(self, pauses: Pauses, agree: int | None = None, most: int = 1024) -> None:
        self._pauses = pauses
        self._agree = agree
        self._parts: LRUCache[K, Breaker] = LRUCache(most)
        self._failed: set[K] = set()  # since the last that did well; fewer than `agree`
        self.whole = Breaker(pauses)

    def of(self, part: K) -> list[Breaker]:
        """The breakers that have a say in whether this part is asked for."""
        own = self._parts.get(part) if self._parts else None
        return [self.whole] if own is None else [self.whole, own]

    def failed(self, part: K, now: float, reason: str, least: float = 0.0) -> bool:
        """Notes a failure; whether it opened the part's breaker, or the whole's. `least` as in
        Breaker."""
        own = self._parts.get(part)
        if own is None:
            own = self._parts[part] = Breaker(self._pauses)
        opened = own.failed(now, reason, least)
        was_under_way = self.whole.state(now) is BreakerState.OPEN and not self.whole.trying
        if self._agree is None or was_under_way:
            return opened
        self._failed.add(part)
        if len(self._failed) >= self._agree:
            self._failed.clear()
            opened |= self.whole.failed(now, reason, least)
        return opened

    def succeeded(self, part: K) -> bool:
        """Notes a success; whether it closed the whole's breaker."""
        self._failed.clear()
        own = self._parts.get(part) if self._parts else None
        if own is not None:
            own.succeeded()
        return self.whole.succeeded()
