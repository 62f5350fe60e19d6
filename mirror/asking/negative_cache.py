"""What a repository was said to lack, remembered for a short time: facts, and no exceptions, which
would keep the frames in which they were raised."""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache

from ..clock import Clock
from ..oci.digest import Digest
from ..oci.errors import Denied, Unknown
from ..oci.reference import Repository
from .fair_table import FairTable

MOMENT = 1.5
"""Seconds for which a digest is taken for missing at first: what was asked for just before it was
pushed is there soon after, and a replica that lags has caught up."""

# In a repository that is asked about more missing digests than this, the ones least lately asked
# about cost the upstream one more ask; so do those of the repositories least lately asked about, of
# the registry that has most of them.
_REPOSITORIES = 256
_DIGESTS = 256


@dataclass(frozen=True, slots=True)
class _Fact:
    """`at` is when it was said (monotonic), `pause` for how many seconds it is believed."""

    kind: type[Unknown] | type[Denied]
    message: str
    at: float
    pause: float


class NegativeCache:
    """Digests that a repository lacks, or does not show.

    The first word is believed for a moment, and each that repeats it for twice as long as the one
    before, up to `longest` seconds, which whoever asks knows.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._facts: FairTable[Repository, LRUCache[Digest, _Fact]] = FairTable(_REPOSITORIES)

    def note(
        self, repository: Repository, digest: Digest, error: Unknown | Denied, longest: float
    ) -> None:
        facts = self._facts.get(repository.registry, repository)
        if facts is None:
            facts = LRUCache(_DIGESTS)
            self._facts.put(repository.registry, repository, facts)
        now = self._clock.monotonic()
        last, pause = facts.get(digest), MOMENT
        if last is not None and now < last.at + last.pause + longest:
            pause = max(pause, 2 * last.pause)
        facts[digest] = _Fact(type(error), error.message, now, min(pause, longest))

    def check(self, repository: Repository, digest: Digest, longest: float) -> None:
        """Raises what was noted, if it is believed still."""
        facts = self._facts.get(repository.registry, repository)
        fact = None if facts is None else facts.get(digest)
        if fact is None:
            return
        if self._clock.monotonic() < fact.at + min(fact.pause, longest):
            raise fact.kind(fact.message)

    def clear(self) -> None:
        self._facts = FairTable(_REPOSITORIES)

    def forget(self, registry: str) -> None:
        """What was noted of this registry's repositories."""
        self._facts.forget(registry)
