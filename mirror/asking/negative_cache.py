"""What a repository was said to lack, remembered for a short time: facts, and no exceptions, which
would keep the frames in which they were raised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

from ..clock import Clock
from ..oci.digest import Digest
from ..oci.errors import Denied, Unknown
from ..oci.reference import Repository

MOMENT = 1.5
"""Seconds for which a digest is taken for missing at first: what was asked for just before it was
pushed is there soon after, and a replica that lags has caught up."""

# In a repository that is asked about more missing digests than this, the ones least lately asked
# about cost the upstream one more ask; so do those of the repositories least lately asked about.
_REPOSITORIES = 64
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
    before, up to `longest(repository, digest)` seconds.
    """

    def __init__(self, clock: Clock, longest: Callable[[Repository, Digest], float]) -> None:
        self._clock = clock
        self._longest = longest
        self._facts: LRUCache[Repository, LRUCache[Digest, _Fact]] = LRUCache(_REPOSITORIES)

    def note(self, repository: Repository, digest: Digest, error: Unknown | Denied) -> None:
        facts = self._facts.get(repository)
        if facts is None:
            facts = self._facts[repository] = LRUCache(_DIGESTS)
        longest, now = self._longest(repository, digest), self._clock.monotonic()
        last, pause = facts.get(digest), MOMENT
        if last is not None and now < last.at + last.pause + longest:
            pause = max(pause, 2 * last.pause)
        facts[digest] = _Fact(type(error), error.message, now, min(pause, longest))

    def check(self, repository: Repository, digest: Digest) -> None:
        """Raises what was noted, if it is believed still."""
        facts = self._facts.get(repository)
        fact = None if facts is None else facts.get(digest)
        if fact is None:
            return
        believed = min(fact.pause, self._longest(repository, digest))
        if self._clock.monotonic() < fact.at + believed:
            raise fact.kind(fact.message)
