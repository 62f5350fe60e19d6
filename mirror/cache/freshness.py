"""How long a tag's answer is good: pure, time passed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..interfaces import TagRecord


@dataclass(frozen=True, slots=True)
class Freshness:
    """Periods in seconds: answered at once below `ttl`; for `stale` more, answered when the
    upstream does not; a "no such tag" is believed for `negative_ttl`."""

    ttl: float = 300.0
    stale: float = 86400.0
    negative_ttl: float = 30.0

    @property
    def keep_for(self) -> float:
        """How long a record is of any use."""
        return self.ttl + self.stale


class State(Enum):
    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"


def age_of(record: TagRecord, now: float) -> float:
    """Seconds since the record was checked; never negative, though the clock was set back."""
    return max(0.0, now - record.checked_at)


def judge(record: TagRecord | None, now: float, periods: Freshness) -> State:
    """Which period this record is in. One from the future, by a clock that was wrong then or is
    wrong now, is stale: worth having, not worth trusting unasked."""
    if record is None:
        return State.EXPIRED
    if record.descriptor is None:
        age = age_of(record, now)
        fresh = age < periods.negative_ttl and record.checked_at <= now
        return State.FRESH if fresh else State.EXPIRED
    if record.checked_at > now:
        return State.STALE
    age = age_of(record, now)
    if age < periods.ttl:
        return State.FRESH
    return State.STALE if age < periods.keep_for else State.EXPIRED
