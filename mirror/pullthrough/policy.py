"""What the configuration says of one registry's cache, and how long its clients are held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

from ..asking.negative_cache import MOMENT
from ..asking.retry_policy import NEVER, RetryPolicy
from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.patterns import Patterns
from ..oci.reference import Repository
from ..times import ANSWERS, TROUBLE
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

    stale: float = ANSWERS.stale
    unknown: float = ANSWERS.unknown


@dataclass(frozen=True, slots=True)
class TroublePatience:
    """How long trouble is waited out, in seconds: with what was promised, and with what was not.

    `lagging`: for how long "there is no such thing" is not believed of what was promised. A pause
    doubles from `pause` on.
    """

    promised: float = TROUBLE.promised
    other: float = TROUBLE.other
    lagging: float = TROUBLE.lagging
    pause: float = TROUBLE.pause

    def within(self, promised: bool) -> float:
        return self.promised if promised else self.other

    def trouble(self, promised: bool) -> RetryPolicy:
        return RetryPolicy(pause=self.pause, within=self.within(promised))

    def doubts(self, promised: bool) -> RetryPolicy:
        return RetryPolicy(pause=self.pause, within=self.lagging) if promised else NEVER


def _rules() -> Rules:
    return Rules((), Freshness())


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Of one registry. `rules`: how long its tags are good. `pins`: the tags that are frozen.
    `kept`: the images that are never evicted."""

    rules: Rules = field(default_factory=_rules)
    pins: Pins = field(default_factory=dict)
    kept: Patterns = field(default_factory=lambda: Patterns(()))
    patience: AnswerPatience = field(default_factory=AnswerPatience)
    trouble: TroublePatience = field(default_factory=TroublePatience)

    def believed(self, repository: Repository, promised: bool) -> float:
        """For how many seconds at most it is believed that a digest is missing."""
        negative_ttl = self.rules.of(repository, "").negative_ttl
        return min(MOMENT, negative_ttl) if promised else negative_ttl
