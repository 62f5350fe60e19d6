"""The states of a fill: one table, one way through it."""

from __future__ import annotations

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.pullthrough.fills.fill import Fill
from mirror.pullthrough.fills.states import NEXT, FillState, WrongState

from ..fakes import REDIS

LAST = {state for state, following in NEXT.items() if not following}


def in_state(state: FillState) -> Fill:
    """A fill that came to this state by ways that are allowed."""
    ways: dict[FillState, list[FillState]] = {FillState.BEGUN: []}
    for _ in NEXT:
        for before, way in list(ways.items()):
            for after in NEXT[before]:
                ways.setdefault(after, [*way, after])
    fill = Fill(Digest.of(b"walked"), REDIS, first_byte=1)
    for step in ways[state]:
        fill.enter(step)
    return fill


@pytest.mark.parametrize("after", FillState)
@pytest.mark.parametrize("before", FillState)
def test_a_fill_enters_what_the_table_allows_and_nothing_else(
    before: FillState, after: FillState
) -> None:
    fill = in_state(before)
    assert fill.state is before
    if after in NEXT[before]:
        fill.enter(after)
        assert fill.state is after
    else:
        with pytest.raises(WrongState, match="cannot be"):
            fill.enter(after)
        assert fill.state is before


def test_every_state_is_in_the_table_and_leads_to_an_end() -> None:
    assert set(NEXT) == set(FillState)
    ends = set(LAST)
    for _ in NEXT:
        ends |= {state for state, following in NEXT.items() if following & ends}
    assert ends == set(FillState)


@pytest.mark.parametrize("state", FillState)
def test_a_fill_is_over_in_the_states_that_nothing_follows(state: FillState) -> None:
    assert in_state(state).is_over == (state in LAST)


@pytest.mark.parametrize("state", sorted(set(FillState) - LAST - {FillState.PROVEN}))
def test_what_is_not_proven_can_fail_at_any_time(state: FillState) -> None:
    fill = in_state(state)
    fill.fail(Unavailable("away"))
    assert fill.error is not None


def test_what_is_proven_stays_good_to_who_reads_it() -> None:
    fill = in_state(FillState.PROVEN)
    fill.fail(Unavailable("away"))
    assert (fill.state, fill.error) == (FillState.UNCACHED, None)


def test_a_fill_says_where_it_is() -> None:
    fill = in_state(FillState.DOWNLOADING)
    fill.size = 100
    assert "downloading, 0 of 100 bytes, 0 readers" in repr(fill)
