"""When a check that failed may be made again, while stale answers are given."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..oci.reference import Repository
from ..times import STORES
from .fair_table import FairTable
from .retry_policy import RetryPolicy

K = TypeVar("K", bound=tuple[Repository, Hashable])

_MOST = 10_000

RECHECK = RetryPolicy(pause=STORES.recheck, longest_pause=STORES.longest_recheck)
"""After checks of tags and lists behind the answer."""


class Backoff(Generic[K]):
    """The pauses after failures, as the policy says, by how many there were in a row. Bounded: of
    very many keys the longest unused of the registry that has most are tried at once again."""

    def __init__(self, monotonic: Callable[[], float], policy: RetryPolicy = RECHECK) -> None:
        self._monotonic = monotonic
        self._policy = policy
        # The failures, and the pause's end.
        self._waits: FairTable[K, tuple[int, float]] = FairTable(_MOST)

    def failed(self, key: K) -> None:
        registry = key[0].registry
        failures = (self._waits.get(registry, key) or (0, 0.0))[0] + 1
        pause = self._policy.pause_after(failures, 0.0) or 0.0
        self._waits.put(registry, key, (failures, self._monotonic() + pause))

    def worked(self, key: K) -> None:
        self._waits.drop(key[0].registry, key)

    def waiting(self, key: K) -> bool:
        wait = self._waits.get(key[0].registry, key)
        return wait is not None and self._monotonic() < wait[1]

    def forget(self, registry: str) -> None:
        """What is known of this registry."""
        self._waits.forget(registry)
