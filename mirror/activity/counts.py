"""The last 24 hours, hour and seconds, as counts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..clock import Clock
from ..contracts.activity import Day, Minute
from .news import Counts
from .steps import median

_DAY = 144  # spans of ten minutes
_SPAN = 600.0
_HOUR = 60  # minutes
_RATES = 5.0  # seconds over which what passes in one is said


@dataclass(slots=True)
class _Span:
    at: float
    counted: Counter[str] = field(default_factory=Counter)
    first_bytes: Counter[int] = field(default_factory=Counter)


class History:
    """What was counted, by when. The oldest span of the day is dropped as a whole: it is ten
    minutes too short at most."""

    def __init__(self, clock: Clock | None = None) -> None:
        clock = clock or Clock()
        self._wall, self._monotonic = clock.wall, clock.monotonic
        self._since = self._wall()
        self._spans: deque[_Span] = deque(maxlen=_DAY)
        self._minutes: deque[_Span] = deque(maxlen=_HOUR)
        self._seconds: deque[tuple[float, Counts]] = deque(maxlen=1000)
        self._began = self._monotonic()

    def add(self, counts: Counts) -> None:
        words = {
            "requests": counts.requests,
            "hits": counts.hits,
            "served": counts.served,
            "fetched": counts.fetched,
            "evicted": counts.evicted,
            "evicted_bytes": counts.evicted_bytes,
        }
        for span in (self._present(self._spans, _SPAN), self._present(self._minutes, 60.0)):
            span.counted.update(words)
        self._spans[-1].first_bytes.update(counts.first_bytes)
        self._seconds.append((self._monotonic(), counts))

    def pull(self, pulls: int, *, without_upstream: bool) -> None:
        """So many pulls are over."""
        counted = self._present(self._spans, _SPAN).counted
        counted["pulls"] += pulls
        counted["without_upstream"] += pulls if without_upstream else 0

    def _present(self, spans: deque[_Span], length: float) -> _Span:
        at = self._wall() // length * length
        if not spans or spans[-1].at != at:
            spans.append(_Span(at))
        return spans[-1]

    def day(self) -> Day:
        oldest = self._wall() - _DAY * _SPAN
        spans = [span for span in self._spans if span.at > oldest]
        counted, first_bytes = Counter[str](), Counter[int]()
        for span in spans:
            counted.update(span.counted)
            first_bytes.update(span.first_bytes)
        return Day(
            max(self._since, oldest),
            counted["pulls"],
            counted["without_upstream"],
            counted["requests"],
            counted["hits"],
            counted["served"],
            counted["fetched"],
            median(first_bytes),
            counted["evicted"],
            counted["evicted_bytes"],
        )

    def minutes(self) -> Sequence[Minute]:
        """Each of the last hour, also those in which nothing was asked."""
        known = {span.at: span.counted for span in self._minutes}
        present = self._wall() // 60 * 60
        first = max(present - (_HOUR - 1) * 60, self._since // 60 * 60)
        ats = [first + 60 * number for number in range(int(max(0, present - first) // 60) + 1)]
        found = ((at, known.get(at, Counter[str]())) for at in ats)
        return [
            Minute(at, one["requests"], one["hits"], one["served"], one["fetched"])
            for at, one in found
        ]

    def rates(self) -> tuple[float, float, float]:
        """Bytes to clients, bytes from upstreams and requests, each in one second, as of late."""
        now = self._monotonic()
        length = min(_RATES, max(1.0, now - self._began))
        late = list(self._late(now - length))
        return (
            sum(one.served for one in late) / length,
            sum(one.fetched for one in late) / length,
            sum(one.requests for one in late) / length,
        )

    def _late(self, after: float) -> Iterator[Counts]:
        return (counts for at, counts in self._seconds if at > after)
