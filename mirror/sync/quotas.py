"""What upstreams that count pulls have left, by what they said last."""

from __future__ import annotations

from collections.abc import Sequence

from ..clock import Clock
from ..contracts.events import QuotaReported
from ..frozen import dataclass

KNOWN_FOR = 900.0
"""Seconds for which a report is believed: what is used up comes back, in hours or by and by."""

_MOST = 1000  # reports


@dataclass(frozen=True, slots=True)
class _Report:
    share: float
    at: float  # monotonic


class Quotas:
    """Listens to QuotaReported."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reports: dict[tuple[str, str], _Report] = {}
        self._looked: dict[str, float] = {}

    def reported(self, event: QuotaReported) -> None:
        if len(self._reports) >= _MOST:
            self._reports.clear()
        share = event.remaining / event.limit if event.limit else 0.0
        self._reports[event.endpoint, event.login] = _Report(share, self._clock.monotonic())

    def left(self, endpoints: Sequence[str]) -> float | None:
        """The share that is left of what these grant, to the login that has most; None where they
        have not said it lately, as those that count nothing."""
        now = self._clock.monotonic()
        return max(
            (
                report.share
                for (endpoint, _), report in self._reports.items()
                if endpoint in endpoints and now - report.at < KNOWN_FOR
            ),
            default=None,
        )

    def counts_nothing(self, registry: str, endpoints: Sequence[str]) -> bool:
        """Whether it was asked lately, and has not said that it counts."""
        return self.left(endpoints) is None and self._was_asked(registry)

    def is_to_be_asked(self, registry: str, endpoints: Sequence[str], spare: float) -> bool:
        """Whether it has to be asked, by what is not counted, before a pull that leaves so much of
        the quota to clients: too little is left, or nothing was said and none was asked lately. It
        counts as asked then."""
        left = self.left(endpoints)
        if left is not None:
            return left <= spare
        if self._was_asked(registry):
            return False
        if len(self._looked) >= _MOST:
            self._looked.clear()
        self._looked[registry] = self._clock.monotonic()
        return True

    def _was_asked(self, registry: str) -> bool:
        at = self._looked.get(registry, float("-inf"))
        return self._clock.monotonic() - at < KNOWN_FOR
