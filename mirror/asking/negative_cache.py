"""What a repository was said to lack, remembered for a short time: facts, and no exceptions, which
would keep the frames in which they were raised."""

from __future__ import annotations

from cachetools import LRUCache

from ..clock import Clock
from ..contracts.records import Absence, Absences
from ..frozen import dataclass
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
    before, up to `longest` seconds, which whoever asks knows. What other nodes were told counts as
    well, where they share it (`elsewhere`): `ask` looks there too, `check` does not.
    """

    def __init__(self, clock: Clock, elsewhere: Absences | None = None) -> None:
        self._clock = clock
        self._elsewhere = elsewhere
        self._cleared_at = float("-inf")  # monotonic
        self._facts: FairTable[Repository, LRUCache[Digest, _Fact]] = FairTable(_REPOSITORIES)

    def note(
        self, repository: Repository, digest: Digest, error: Unknown | Denied, longest: float
    ) -> None:
        facts = self._of(repository)
        now = self._clock.monotonic()
        last, pause = facts.get(digest), MOMENT
        if last is not None and now < last.at + last.pause + longest:
            pause = max(pause, 2 * last.pause)
        fact = facts[digest] = _Fact(type(error), error.message, now, min(pause, longest))
        if self._elsewhere is not None and fact.pause > 0:
            absence = Absence(fact.kind, fact.message, fact.pause)
            self._elsewhere.note(repository, digest, absence)

    async def ask(self, repository: Repository, digest: Digest, longest: float) -> None:
        """As `check`, before an upstream is asked: other nodes are asked where nothing is known."""
        self.check(repository, digest, longest)
        if self._elsewhere is None or longest <= 0:
            return
        told = await self._elsewhere.told(repository, digest)
        if told is None:
            return
        at = self._clock.monotonic() - told.since
        if at > self._cleared_at:
            self._of(repository)[digest] = _Fact(told.kind, told.message, at, told.pause)
            self.check(repository, digest, longest)

    def check(self, repository: Repository, digest: Digest, longest: float) -> None:
        """Raises what was noted, if it is believed still."""
        facts = self._facts.get(repository.registry, repository)
        fact = None if facts is None else facts.get(digest)
        if fact is None:
            return
        if self._clock.monotonic() < fact.at + min(fact.pause, longest):
            raise fact.kind(fact.message)

    def clear(self) -> None:
        """Nothing is believed any more, here or by others of what this one had told them."""
        self._cleared_at = self._clock.monotonic()
        if self._elsewhere is not None:
            for repository, facts in self._facts.items():
                for digest in facts:
                    self._elsewhere.forget(repository, digest)
        self._facts = FairTable(_REPOSITORIES)

    def forget(self, registry: str) -> None:
        """What was noted of this registry's repositories."""
        self._facts.forget(registry)

    def _of(self, repository: Repository) -> LRUCache[Digest, _Fact]:
        facts = self._facts.get(repository.registry, repository)
        if facts is None:
            facts = LRUCache(_DIGESTS)
            self._facts.put(repository.registry, repository, facts)
        return facts
