"""When a check that failed may be made again, while stale answers are given."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

from ..times import STORES
from .retry_policy import RetryPolicy

K = TypeVar("K", bound=Hashable)

_MOST = 10_000

RECHECK = RetryPolicy(pause=STORES.recheck, longest_pause=STORES.longest_recheck)
"""After checks of tags and lists behind the answer."""


class Backoff(Generic[K]):
    """The pauses after failures, as the policy says, by how many there were in a row. Bounded: of
    very many keys the longest unused are tried at once again."""

    def __init__(self, monotonic: Callable[[], float], policy: RetryPolicy = RECHECK) -> None:
        self._monotonic = monotonic
        self._policy = policy
        self._waits: LRUCache[K, tuple[int, float]] = LRUCache(_MOST)  # failures, the pause's end

    def failed(self, key: K) -> None:
        failures = self._waits.get(key, (0, 0.0))[0] + 1
        pause = self._policy.pause_after(failures, 0.0) or 0.0
        self._waits[key] = failures, self._monotonic() + pause

    def worked(self, key: K) -> None:
        self._waits.pop(key, None)

    def waiting(self, key: K) -> bool:
        wait = self._waits.get(key)
        return wait is not None and self._monotonic() < wait[1]
