"""Whether an object store does what it is asked, told to the log when it changes and not at every
request. One that cannot be reached is left alone for a moment: what is asked of it meanwhile would
only wait."""

from __future__ import annotations

import structlog
from cachetools import TTLCache

from ...clock import Clock
from ...contracts.events import SecondTierFailed
from ...events import Events
from ...times import STORES

log = structlog.get_logger()

_TOLD_FOR = 600.0  # seconds: what fails now and then is told so often
_MOST_TOLD = 64


class Health:
    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._failing: dict[str, str] = {}  # by operation: the reason that was told
        self._told: TTLCache[tuple[str, str], None] = TTLCache(
            _MOST_TOLD, _TOLD_FOR, clock.monotonic
        )
        self._rests_until = float("-inf")

    @property
    def rests(self) -> bool:
        return self._clock.monotonic() < self._rests_until

    def failed(self, operation: str, reason: str, is_away: bool) -> None:
        """`reason`: the store's own words, without secrets. `is_away`: nobody has answered."""
        self._events.emit(SecondTierFailed(operation))
        if is_away:
            self._rests_until = self._clock.monotonic() + STORES.far_rests
        if (operation, reason) not in self._told:
            self._told[operation, reason] = None
            self._failing[operation] = reason
            log.warning("second_tier_failed", operation=operation, reason=reason)

    def worked(self, operation: str) -> None:
        if self._failing and (reason := self._failing.pop(operation, None)) is not None:
            log.info("second_tier_works_again", operation=operation, reason=reason)
