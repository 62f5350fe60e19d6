"""What the configuration says of one registry's cache, and how long its clients are held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ..asking.negative_cache import MOMENT
from ..asking.replicas import LONGEST, doubts
from ..oci.digest import Digest
from ..oci.patterns import Patterns
from ..oci.reference import Repository
from .fills.fill import Soon
from .freshness import Freshness, Rules

Pins = Mapping[tuple[Repository, str], Digest | datetime]
"""Tags that the configuration freezes: to a digest, or to what they pointed to at a time, which has
a time zone."""


@dataclass(frozen=True, slots=True)
class AnswerPatience:
    """How long a client is held, in seconds.

    `stale`: for the upstream's word on what could be answered stale. `unknown`: on what is not
    known here; every client goes elsewhere after a tag's error.
    """

    stale: float = 0.8
    unknown: float = 12.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long trouble is waited out, in seconds: with what was promised, and with what was not.

    `lagging`: for how long "there is no such thing" is not believed of what was promised. A pause
    doubles from `pause` on.
    """

    promised: float = 30.0
    other: float = 2.0
    lagging: float = LONGEST
    pause: float = 0.25

    def within(self, promised: bool) -> float:
        return self.promised if promised else self.other

    def doubts(self, promised: bool) -> Iterator[float]:
        return doubts(self.pause, self.lagging if promised else 0.0)


def _rules() -> Rules:
    return Rules((), Freshness())


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Of one registry. `rules`: how long its tags are good. `pins`: the tags that are frozen.
    `kept`: the images that are never evicted."""

    rules: Rules = field(default_factory=_rules)
    pins: Pins = field(default_factory=dict)
    kept: Patterns = field(default_factory=lambda: Patterns(()))
    patience: AnswerPatience = AnswerPatience()
    retries: RetryPolicy = RetryPolicy()
    soon: Soon = field(default_factory=Soon)

    def believed(self, repository: Repository, promised: bool) -> float:
        """For how many seconds at most it is believed that a digest is missing."""
        negative_ttl = self.rules.of(repository, "").negative_ttl
        return min(MOMENT, negative_ttl) if promised else negative_ttl
