"""How long a tag's answer is good: pure, time passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from ..contracts.tags import TagRecord
from ..frozen import dataclass
from ..oci.patterns import Patterns
from ..oci.reference import Repository

STRETCH = 4.0
"""How many times longer a tag is fresh while what the upstream still grants is scarce: a tag that
is asked for all the time then costs a quarter of its rechecks, and is 20 minutes old at most where
it was 5."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Periods in seconds. Below `ttl` a tag is answered at once. From there on, for
    `stale_while_revalidate` it is still answered at once, and the upstream asked behind; for
    `stale` it is answered when the upstream does not (stale-while-revalidate and stale-if-error of
    RFC 5861; both begin at the TTL's end). A "no such tag" is believed for `negative_ttl`.

    `keeps_gone`: a tag that was known is answered though the upstream says that it is gone.
    `immutable`: a tag that is known is never asked about again.
    """

    ttl: float = 300.0
    stale_while_revalidate: float = 0.0
    stale: float = 86400.0
    negative_ttl: float = 30.0
    keeps_gone: bool = False
    immutable: bool = False

    @property
    def usable_for(self) -> float:
        """The age at which a record is not answered any more unless the upstream says so."""
        return self.ttl + max(self.stale_while_revalidate, self.stale)

    @property
    def keep_for(self) -> float:
        """How long a record may be of any use, however scarce asking becomes meanwhile."""
        if self.immutable or self.keeps_gone:
            return float("inf")
        return self.stretched().usable_for

    def fresh_for(self, age: float) -> float:
        """For how many seconds more a tag of this age is fresh; none when it is not."""
        return float("inf") if self.immutable else max(0.0, self.ttl - age)

    def stretched(self) -> Freshness:
        """These periods while the upstream is to be spared."""
        return replace(self, ttl=self.ttl * STRETCH)

    def offline(self) -> Freshness:
        """These periods where no upstream is ever asked: nobody else can say what a tag is, so it
        is answered however old."""
        return replace(self, stale=float("inf"))


@dataclass(frozen=True, slots=True)
class FreshnessRule:
    """Which tags these periods are for."""

    match: Patterns
    freshness: Freshness


class Rules:
    """The first rule that means a tag decides; `otherwise` where none does."""

    def __init__(self, rules: Sequence[FreshnessRule], otherwise: Freshness) -> None:
        self._rules = tuple(rules)
        self._otherwise = otherwise

    def of(self, repository: Repository, tag: str) -> Freshness:
        for rule in self._rules:
            if rule.match.match(repository, tag):
                return rule.freshness
        return self._otherwise


class RecordState(Enum):
    FRESH = "fresh"
    REVALIDATE = "revalidate"  # answered at once, asked about behind
    STALE = "stale"
    EXPIRED = "expired"


def age_of(record: TagRecord, now: float) -> float:
    """Seconds since the record was checked; never negative, though the clock was set back."""
    return max(0.0, now - record.checked_at)


def judge(record: TagRecord | None, now: float, periods: Freshness) -> RecordState:
    """Which period this record is in. One from the future, by a clock that was wrong then or is
    wrong now, is stale: worth having, not worth trusting unasked."""
    if record is None:
        return RecordState.EXPIRED
    if record.descriptor is None:
        age = age_of(record, now)
        fresh = age < periods.negative_ttl and record.checked_at <= now
        return RecordState.FRESH if fresh else RecordState.EXPIRED
    return RecordState.FRESH if periods.immutable else judge_age(record.checked_at, now, periods)


def judge_age(checked_at: float, now: float, periods: Freshness) -> RecordState:
    """As `judge`, of anything that was last checked then."""
    if checked_at > now:
        return RecordState.STALE
    age = now - checked_at
    if age < periods.ttl:
        return RecordState.FRESH
    if age < periods.ttl + periods.stale_while_revalidate:
        return RecordState.REVALIDATE
    return RecordState.STALE if age < periods.usable_for else RecordState.EXPIRED
