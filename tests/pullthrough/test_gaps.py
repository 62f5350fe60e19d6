"""What is missing of a blob."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mirror.pullthrough.fills.gaps import END, NEAR, ROUND, Gaps, Span

SIZE = 40 * ROUND
PART = 5 * ROUND

steps = st.lists(
    st.tuples(
        st.sampled_from(["first", "half", "wanted", "extend", "bring", "give back", "cut"]),
        st.integers(0, SIZE),
        st.integers(1, SIZE),
    ),
    max_size=60,
)


@given(steps)
def test_each_byte_is_missing_or_comes_from_one_connection_or_was_brought(
    steps: list[tuple[str, int, int]],
) -> None:
    gaps, spans, brought = Gaps(0, [], END), list[Span](), set[int]()
    for step, at, count in steps:
        span = spans[at % len(spans)] if spans else None
        if step == "first":
            span = gaps.first(PART)
            assert span is None or span.start < span.stop
            spans += [span] if span else []
        elif step == "half":
            span = gaps.half(ROUND)
            spans += [span] if span else []
        elif step == "wanted":
            span = gaps.wanted(at, at + count)
            spans += [span] if span else []
        elif step == "cut":
            gaps.cut(SIZE)
        elif span is not None and step == "extend" and span.start == span.stop:
            gaps.extend(span, PART)
        elif span is not None and step == "bring":
            stop = min(span.start + count, span.stop)
            brought.update(range(-(-span.start // 4096), -(-stop // 4096)))
            span.start = stop
        elif span is not None and step == "give back":
            gaps.give_back(span)
            spans.remove(span)
        every = sorted(
            [*gaps.missing, *((one.start, one.stop) for one in spans if one.start < one.stop)]
        )
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(every))
        seen = {
            page
            for start, stop in every
            for page in range(-(-start // 4096), -(-min(stop, SIZE) // 4096))
        }
        assert seen.isdisjoint(brought)
        assert seen | {page for page in brought if page < SIZE // 4096} == set(range(SIZE // 4096))


def test_a_wanted_range_is_asked_for_with_a_little_around_it() -> None:
    gaps = Gaps(0, [], END)
    span = gaps.wanted(3 * ROUND + 5, 4 * ROUND + 5)
    assert span is not None
    assert (span.start, span.stop) == (3 * ROUND, 5 * ROUND)
    assert gaps.missing == [(0, 3 * ROUND), (5 * ROUND, END)]


def test_what_a_connection_brings_soon_is_waited_for_and_what_it_brings_late_is_taken() -> None:
    gaps = Gaps(0, [], SIZE)
    first = gaps.first(SIZE)
    assert first is not None
    assert gaps.wanted(NEAR - 10, NEAR) is None
    span = gaps.wanted(20 * ROUND, 21 * ROUND)
    assert span is not None
    assert (first.stop, span.start, span.stop) == (20 * ROUND, 20 * ROUND, 21 * ROUND)
    assert gaps.missing == [(21 * ROUND, SIZE)]


def test_a_connection_reads_over_what_is_little_and_leaves_what_is_much_to_another_ask() -> None:
    gaps = Gaps(0, [(ROUND, 2 * ROUND), (10 * ROUND, 20 * ROUND)], SIZE)
    span = gaps.first(PART)
    assert span is not None
    span.start = span.stop
    assert gaps.extend(span, SIZE)
    assert (span.start, span.stop) == (2 * ROUND, 10 * ROUND)
    span.start = span.stop
    assert not gaps.extend(span, SIZE)
    assert gaps.extend(span, SIZE, over=END)  # of an upstream that sends no parts
    assert (span.start, span.stop) == (20 * ROUND, SIZE)


def test_it_says_what_is_missing() -> None:
    gaps = Gaps(10, [(20, 30)], END)
    assert repr(gaps) == "missing [10-20, 30-], coming []"
