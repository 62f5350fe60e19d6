"""When entries run: windows over midnight, clocks put forward and back, what was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.sync.schedule import Plan, Window, begins, due, ends, opening

BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = 3600.0, 86400.0

windows = st.builds(
    Window,
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from([UTC, BERLIN, ZoneInfo("America/St_Johns"), ZoneInfo("Australia/Lord_Howe")]),
)
moments = st.floats(1.6e9, 2.0e9)
plans = st.builds(Plan, st.floats(60, 30 * DAY), st.none() | windows)


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def clock(time: float, zone: ZoneInfo = BERLIN) -> str:
    return datetime.fromtimestamp(time, zone).strftime("%Y-%m-%d %H:%M")


def test_a_window_over_midnight_is_one_window() -> None:
    night = Window(22 * 60, 5 * 60, BERLIN)
    for now in ("2026-01-10 23:00", "2026-01-11 04:59"):
        begin, end = opening(night, at(now))
        assert (clock(begin), clock(end)) == ("2026-01-10 22:00", "2026-01-11 05:00")
    assert clock(opening(night, at("2026-01-11 05:00"))[0]) == "2026-01-11 22:00"


def test_a_window_in_the_hour_that_is_left_out_begins_an_hour_later_and_is_as_long() -> None:
    begin, end = opening(Window(120, 180, BERLIN), at("2026-03-29 00:00"))
    assert (clock(begin), end - begin) == ("2026-03-29 03:00", HOUR)


def test_a_window_in_the_hour_that_comes_twice_opens_once() -> None:
    window = Window(120, 150, BERLIN)
    begin, end = opening(window, at("2026-10-25 00:00"))
    assert end - begin == HOUR / 2
    assert opening(window, end)[0] - end > 20 * HOUR


def test_a_daily_run_begins_with_its_window_each_day_also_when_clocks_change() -> None:
    plan = Plan(DAY, Window(60, 300, BERLIN))
    now = due(plan, None, None, at("2026-03-20 12:00"))
    days = []
    for _ in range(12):
        days.append(clock(now))
        now = due(plan, now, None, now + 600)
    assert days == [
        f"{(datetime(2026, 3, 21) + timedelta(days=day)):%Y-%m-%d} 01:00" for day in range(12)
    ]


def test_what_was_missed_is_made_up_for_once_within_the_window() -> None:
    plan = Plan(6 * HOUR, Window(60, 300, BERLIN))
    back = at("2026-01-20 12:00")
    first = due(plan, at("2026-01-10 01:00"), None, back)
    assert clock(first) == "2026-01-21 01:00"
    assert due(Plan(HOUR), back - 100 * HOUR, None, back) == back


def test_a_run_that_was_stopped_by_its_window_goes_on_with_the_next() -> None:
    plan = Plan(7 * DAY, Window(60, 300, BERLIN))
    stopped = at("2026-01-10 05:00")
    assert clock(due(plan, at("2026-01-10 01:00"), stopped, stopped)) == "2026-01-11 01:00"
    assert clock(due(plan, at("2026-01-10 01:00"), None, stopped)) == "2026-01-17 01:00"


def test_a_last_run_in_the_future_by_a_clock_that_was_wrong_holds_up_nothing() -> None:
    assert due(Plan(HOUR), 2.0e9, None, 1.9e9) == 1.9e9


def test_no_window_no_end() -> None:
    assert ends(Plan(HOUR), 1.9e9) is None


@given(plan=plans, last=st.none() | moments, goes_on=st.none() | moments, now=moments)
def test_a_run_is_never_due_in_the_past_nor_outside_of_its_window(
    plan: Plan, last: float | None, goes_on: float | None, now: float
) -> None:
    found = due(plan, last, goes_on, now)
    assert found >= now
    if plan.window is not None:
        begin, end = opening(plan.window, found)
        assert begin <= found < end


@given(plan=plans, last=moments, now=moments, share=st.floats(0, 1))
def test_a_run_begins_within_five_minutes_and_before_its_window_ends(
    plan: Plan, last: float, now: float, share: float
) -> None:
    when = due(plan, last, None, now)
    begin = begins(plan, when, share)
    assert when <= begin <= when + 300
    end = ends(plan, begin)
    assert end is None or begin < end


@given(plan=plans, last=moments, ran=st.floats(0, DAY))
def test_two_runs_are_almost_a_period_apart(plan: Plan, last: float, ran: float) -> None:
    following = due(plan, last, None, last + ran)
    assert following >= min(last + ran, last + 0.9 * plan.every) - 1e-3
    if plan.window is None:
        assert following == max(last + ran, last + plan.every)


@given(window=windows, now=moments)
def test_windows_follow_each_other_and_open_each_day(window: Window, now: float) -> None:
    begin, end = opening(window, now)
    assert now < end
    assert 0 < end - begin <= DAY + HOUR
    following, _ = opening(window, end)
    assert end <= following or window.length == DAY
    assert following - begin < 2 * DAY


@pytest.mark.parametrize(("start", "stop", "length"), [(0, 0, DAY), (60, 300, 4 * HOUR)])
def test_a_window_with_one_time_for_both_is_a_whole_day(
    start: int, stop: int, length: float
) -> None:
    assert Window(start, stop).length == length
