"""What is missing of a blob: pure.

A list of gaps, in order. A connection takes a part of one to bring it; what it has not brought when
it ends is a gap again, from the very byte.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

END = 1 << 62
"""Where a blob ends whose size is not known yet."""

NEAR = 256 << 10
"""Bytes: what a connection will have brought after no more than these is waited for, and so many
that are there are rather read over than asked around."""

ROUND = 64 << 10
"""Bytes: what is asked for of a range begins and ends at a multiple of these. Ranges that touch
each other leave no crumbs between them, and a partial has fewer spans to note."""


@dataclass(slots=True, eq=False)
class Span:
    """What a connection is bringing: what is missing of it. Others may take from its end."""

    start: int
    stop: int


class Gaps:
    """The bytes of a blob that are not there: those which nobody brings yet, in order, and the
    spans which connections are bringing. `stop`: the size, or END."""

    def __init__(self, offset: int, ahead: Sequence[tuple[int, int]], stop: int) -> None:
        self.stop = stop
        self.missing: list[tuple[int, int]] = []
        self.coming: list[Span] = []
        self._leave_out(offset, ahead)

    def __repr__(self) -> str:
        coming = [(span.start, span.stop) for span in self.coming]
        return f"missing {_shown(self.missing)}, coming {_shown(coming)}"

    @property
    def are_filled(self) -> bool:
        return not self.missing and not self.coming

    def count(self) -> int:
        """Bytes that are to come yet."""
        coming = sum(span.stop - span.start for span in self.coming)
        return coming + sum(stop - start for start, stop in self.missing)

    def cut(self, stop: int) -> None:
        """The blob ends there."""
        self.stop = stop
        self.missing = [(a, min(b, stop)) for a, b in self.missing if a < stop]
        for span in self.coming:
            span.stop = max(span.start, min(span.stop, stop))

    def restart(self, offset: int, kept: Iterable[Span]) -> None:
        """All from `offset` on is missing but what these spans bring."""
        self.coming = [span for span in kept if span.start < span.stop]
        self._leave_out(offset, sorted((span.start, span.stop) for span in self.coming))

    def first(self, part: int) -> Span | None:
        """Takes so many bytes, or fewer, from the first gap."""
        return self._take(0, part) if self.missing else None

    def half(self, least: int) -> Span | None:
        """Takes the second half of what a connection has to bring, where that is no less than
        `least`: the longest there is."""
        longest = max(self.coming, key=lambda span: span.stop - span.start, default=None)
        if longest is None or longest.stop - longest.start < 2 * least:
            return None
        middle = (longest.start + longest.stop) // 2
        span = Span(middle, longest.stop)
        longest.stop = middle
        self.coming.append(span)
        return span

    def wanted(self, start: int, stop: int) -> Span | None:
        """Takes the first bytes of these which are missing, a little more where that makes them
        round; None when all of them are there, or come soon."""
        found = next(((a, b) for a, b in self.missing if a < stop and start < b), None)
        at = stop if found is None else max(start, found[0])
        for span in self.coming:
            late = max(start - start % ROUND, span.start + NEAR)  # of what it brings, from here on
            if late < min(at, span.stop):
                return self._take_over(span, late, stop + -stop % ROUND)
        if found is None:
            return None
        end = min(stop, found[1])
        return self._part(max(found[0], at - at % ROUND), min(found[1], end + -end % ROUND))

    def comes(self, start: int, stop: int) -> bool:
        """Whether some of these bytes are to come yet."""
        spans = [*self.missing, *((span.start, span.stop) for span in self.coming)]
        return any(a < stop and start < b for a, b in spans)

    def extend(self, span: Span, part: int, over: int = NEAR) -> bool:
        """Goes on, with a span that was brought to its end, to the next gap, where no more than
        `over` bytes lie between, which are to be read over. Whether there is one."""
        at = bisect.bisect_left(self.missing, (span.stop, 0))
        if at == len(self.missing) or self.missing[at][0] > span.stop + over:
            return False
        start, stop = self.missing.pop(at)
        span.start, span.stop = start, min(stop, start + part)
        if span.stop < stop:
            self.missing.insert(at, (span.stop, stop))
        return True

    def give_back(self, span: Span) -> None:
        """Nobody brings it any more."""
        if span in self.coming:
            self.coming.remove(span)
            if span.start < span.stop:
                self._put(span.start, span.stop)

    def _take(self, number: int, part: int) -> Span:
        start, stop = self.missing[number]
        return self._part(start, min(stop, start + part))

    def _part(self, start: int, stop: int) -> Span:
        """Takes these bytes, which lie in one gap."""
        number = bisect.bisect_right(self.missing, (start, END)) - 1
        begins, ends = self.missing.pop(number)
        for rest in ((stop, ends), (begins, start)):
            if rest[0] < rest[1]:
                self.missing.insert(number, rest)
        span = Span(start, stop)
        self.coming.append(span)
        return span

    def _take_over(self, span: Span, start: int, stop: int) -> Span:
        """Takes these bytes from the span that others bring, and from nothing else."""
        end, span.stop = span.stop, start
        taken = Span(start, min(stop, end))
        if taken.stop < end:
            self._put(taken.stop, end)
        self.coming.append(taken)
        return taken

    def _put(self, start: int, stop: int) -> None:
        """These bytes, of which none is in a gap, are missing."""
        at = bisect.bisect_left(self.missing, (start, stop))
        if at < len(self.missing) and self.missing[at][0] == stop:
            stop = self.missing.pop(at)[1]
        if at and self.missing[at - 1][1] == start:
            start = self.missing.pop(at - 1)[0]
            at -= 1
        self.missing.insert(at, (start, stop))

    def _leave_out(self, offset: int, spans: Iterable[tuple[int, int]]) -> None:
        """Missing is what follows `offset`, but for these spans, which are in order."""
        self.missing = []
        for start, stop in spans:
            if offset < start:
                self.missing.append((offset, min(start, self.stop)))
            offset = max(offset, stop)
        if offset < self.stop:
            self.missing.append((offset, self.stop))


def _shown(spans: Sequence[tuple[int, int]]) -> str:
    shown = [f"{start}-{'' if stop == END else stop}" for start, stop in spans[:4]]
    return "[" + ", ".join([*shown, "…"] if len(spans) > 4 else shown) + "]"
