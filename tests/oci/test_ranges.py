"""Range and Content-Range: which bytes are meant."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import ranges as module
from mirror.oci.errors import RangeInvalid
from mirror.oci.ranges import ByteRange, ContentRange, format_range, format_unsatisfied, parse_range

from .attempts import attempt

NINES = "9" * 10_000  # int() itself refuses more than 4300 digits

sizes = st.integers(0, 2**50)
byte_ranges = st.builds(
    lambda start, length: ByteRange(start, None if length is None else start + length),
    st.integers(0, 2**50),
    st.none() | st.integers(1, 2**50),
)
range_like = st.text("bytes=0123456789-, *\t", max_size=40) | st.text(max_size=40)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (-1, 5), (5, 5), (5, 4), (0, 0)])
def test_no_range_is_empty_or_begins_before_the_content(start, stop):
    with pytest.raises(ValueError):
        ByteRange(start, stop)


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-19", 10, 20),
        ("bytes=99-", 99, 100),
        ("bytes=0-", 0, 100),
        ("bytes=50-100", 50, 100),
        ("bytes=50-1000000", 50, 100),
        (f"bytes=50-{NINES}", 50, 100),
        ("bytes=-1", 99, 100),
        ("bytes=-100", 0, 100),
        ("bytes=-101", 0, 100),
        (f"bytes=-{NINES}", 0, 100),
        ("bytes=007-008", 7, 9),
        (f"bytes={'0' * 5000}7-", 7, 100),
        ("BYTES=1-2", 1, 3),
        ("  bytes=1-2  ", 1, 3),
        ("bytes= 1-2 ,", 1, 3),
        ("bytes=, ,1-2", 1, 3),
    ],
)
def test_a_single_range_lies_within_the_content(header, start, stop):
    assert parse_range(header, 100) == ByteRange(start, stop)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=a-b",
        "bytes=1",
        "bytes=1--2",
        "bytes=--1",
        "bytes=-1-",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=1 -2",
        "bytes=1.0-2",
        "bytes=0x1-2",
        "bytes=\u0661-\u0662",
        "bytes=\u00b2-",
        "bytes:1-2",
        "bytes 1-2/3",
        "items=1-2",
        "=1-2",
        "1-2",
        "byte\u017f=1-2",
    ],
)
def test_what_is_no_byte_range_is_answered_with_the_whole(header):
    assert parse_range(header, 100) is None
    assert parse_range(header, None) is None


def test_a_range_that_ends_before_it_begins_is_malformed_rather_than_unsatisfiable():
    assert parse_range("bytes=5-4", 100) is None
    assert parse_range("bytes=500-4", 100) is None
    assert parse_range("bytes=5-4", None) is None


@pytest.mark.parametrize("header", ["bytes=0-0,2-2", "bytes=0-0,-1", "bytes=" + "0-," * 5000])
def test_several_ranges_are_answered_with_the_whole(header):
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    "header", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={NINES}-", "bytes=-000"]
)
def test_a_range_without_a_byte_of_the_content_is_unsatisfiable(header):
    with pytest.raises(RangeInvalid) as caught:
        parse_range(header, 100)
    assert caught.value.size == 100


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-5", "bytes=-5", "bytes=-0"])
def test_an_empty_content_asked_from_its_beginning_is_answered_whole(header):
    assert parse_range(header, 0) is None


def test_an_empty_content_has_no_second_byte():
    with pytest.raises(RangeInvalid):
        parse_range("bytes=1-", 0)


def test_without_a_size_a_range_is_as_it_was_asked():
    assert parse_range("bytes=10-", None) == ByteRange(10)
    assert parse_range("bytes=10-19", None) == ByteRange(10, 20)


def test_without_a_size_a_suffix_is_answered_with_the_whole():
    assert parse_range("bytes=-5", None) is None


def test_without_a_size_a_huge_position_stays_a_file_offset():
    found = parse_range(f"bytes={NINES}-{NINES}", None)
    assert found is not None
    assert 10**18 <= found.start < found.stop < 2**63


@given(range_like, st.none() | st.integers(0, 200))
def test_any_header_gives_a_range_within_the_content_the_whole_or_416(header, size):
    found = attempt(RangeInvalid, parse_range, header, size)
    if isinstance(found, RangeInvalid):
        assert found.size == size
    elif found is not None and size is not None:
        assert 0 <= found.start < found.stop <= size


@given(byte_ranges)
def test_what_is_asked_is_what_a_server_understands(byte_range):
    assert parse_range(format_range(byte_range), None) == byte_range


@given(byte_ranges, st.integers(1, 2**51))
def test_a_size_clamps_the_end_and_decides_whether_there_is_a_beginning(byte_range, size):
    header = format_range(byte_range)
    if byte_range.start >= size:
        with pytest.raises(RangeInvalid):
            parse_range(header, size)
    else:
        stop = size if byte_range.stop is None else min(byte_range.stop, size)
        assert parse_range(header, size) == ByteRange(byte_range.start, stop)


@given(st.integers(1, 2**50), st.integers(1, 2**50))
def test_a_suffix_is_the_last_bytes_however_many_there_are(length, size):
    assert parse_range(f"bytes=-{length}", size) == ByteRange(max(0, size - length), size)


@given(byte_ranges.filter(lambda r: r.stop is not None), st.none() | st.integers(0, 2**50))
def test_a_content_range_is_read_as_it_was_written(byte_range, behind):
    total = None if behind is None else byte_range.stop + behind
    written = ContentRange(byte_range.start, byte_range.stop, total)
    assert ContentRange.parse(str(written)) == written


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 0-9/100", ContentRange(0, 10, 100)),
        ("bytes 0-0/1", ContentRange(0, 1, 1)),
        ("bytes 5-9/*", ContentRange(5, 10, None)),
        (" Bytes 5-9/10\t", ContentRange(5, 10, 10)),
    ],
)
def test_a_content_range_is_read(header, expected):
    assert ContentRange.parse(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes */100",
        "bytes */*",
        "bytes 0-9",
        "bytes 0-9/",
        "bytes 0-9/9",  # the part is longer than the whole
        "bytes 9-0/100",
        "bytes 0-/100",
        "bytes -9/100",
        "bytes=0-9/100",
        "bytes  0-9/100",
        "bytes 0 - 9 / 100",
        "items 0-9/100",
        "bytes 0-9/100, bytes 10-19/100",
        "bytes 0-9/100\n",
        "bytes 0-9/1\u0660\u0660",
        "byte\u017f 0-9/100",
        f"bytes 0-9/{NINES}",
        f"bytes {NINES}-{NINES}/*",
    ],
)
def test_what_does_not_say_which_bytes_come_is_no_content_range(header):
    assert ContentRange.parse(header) is None


@given(st.text("bytes 0123456789-/*", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_content_range_or_none(text):
    found = ContentRange.parse(text)
    if found is not None:
        assert 0 <= found.start < found.stop <= (found.total or 2**63)
        assert ContentRange.parse(str(found)) == found


def test_a_content_range_that_contradicts_itself_cannot_be_made():
    for start, stop, total in [(0, 0, 5), (-1, 3, 5), (3, 2, 5), (0, 6, 5)]:
        with pytest.raises(ValueError):
            ContentRange(start, stop, total)


def test_a_416_names_the_size_and_is_no_part():
    assert format_unsatisfied(7) == "bytes */7"
    assert ContentRange.parse(format_unsatisfied(7)) is None
