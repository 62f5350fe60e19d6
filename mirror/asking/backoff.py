"""When something that failed may be tried again behind the scenes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)

_MOST = 10_000


class Backoff(Generic[K]):
    """Pauses after failures, in seconds: `first`, doubled with each more in a row, at most
    `longest`. Bounded: of very many keys the longest unused are tried at once again."""

    def __init__(
        self, monotonic: Callable[[], float], first: float = 1.0, longest: float = 300.0
    ) -> None:
        self._monotonic = monotonic
        self._first = first
        self._longest = longest
        self._waits: LRUCache[K, tuple[float, float]] = LRUCache(_MOST)  # the pause, its end

    def failed(self, key: K) -> None:
        pause, _ = self._waits.get(key, (self._first / 2, 0.0))
        pause = min(pause * 2, self._longest)
        self._waits[key] = pause, self._monotonic() + pause

    def worked(self, key: K) -> None:
        self._waits.pop(key, None)

    def waiting(self, key: K) -> bool:
        wait = self._waits.get(key)
        return wait is not None and self._monotonic() < wait[1]
