"""Retry-After: in seconds or as a date, and never for ever."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.retry import MAX_RETRY_AFTER, parse_http_date, parse_retry_after

# RFC 9110, 5.6.7: one instant in its three forms.
INSTANT = 784_111_777.0
FORMS = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("120", 120), (" 5\t", 5), ("007", 7), ("86400", 86_400), ("0" * 5000 + "9", 9)],
)
def test_seconds_are_read(value, seconds):
    assert parse_retry_after(value, INSTANT) == seconds


@pytest.mark.parametrize("form", FORMS)
def test_a_date_is_read_in_each_form_and_counted_from_now(form):
    assert parse_http_date(form) == INSTANT
    assert parse_retry_after(form, INSTANT - 30) == 30


def test_a_date_is_gmt_wherever_this_host_stands(monkeypatch):
    monkeypatch.setenv("TZ", "XYZ-7")
    time.tzset()
    try:
        assert [parse_http_date(form) for form in FORMS] == [INSTANT] * 3
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_date_that_has_passed_means_now():
    assert parse_retry_after(FORMS[0], INSTANT + 30) == 0


@pytest.mark.parametrize(
    "value", ["86401", "9" * 10, "9" * 400, "9" * 10_000, "Fri, 31 Dec 9999 23:59:59 GMT"]
)
def test_no_wait_is_longer_than_a_day(value):
    assert parse_retry_after(value, INSTANT) == MAX_RETRY_AFTER


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "-5",
        "+5",
        "1.5",
        "1e3",
        "inf",
        "nan",
        "5s",
        "5, 6",
        "\u0665",
        "\u00b2",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT" + " " * 50 + "x",
        "Sun, 06 Nov 199\u0664 08:49:37 GMT",
    ],
)
def test_what_is_malformed_says_nothing(value):
    assert parse_retry_after(value, INSTANT) is None


@given(
    st.text(max_size=60) | st.text("0123456789", max_size=60) | st.sampled_from(FORMS),
    st.floats(-1e12, 1e12),
)
def test_any_value_gives_a_wait_within_bounds_or_none(value, now):
    seconds = parse_retry_after(value, now)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER
