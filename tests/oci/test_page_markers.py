"""Where a tag list goes on, in the registry's words: they come back as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.errors import BadRequest, TagInvalid
from mirror.oci.page_markers import MAX_QUERY, PageMarker, can_be_marked, read_marker
from mirror.oci.reference import parse_tag

FIRST = PageMarker.first("quay.io", "next_page=gAAAA%3D&n=50")

queries = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"),
    min_size=1,
    max_size=200,
).filter(can_be_marked)


@given(queries)
def test_a_marker_comes_back_as_it_was(query):
    marker = PageMarker.first("quay.io", query)
    assert read_marker(str(marker)) == marker
    following = marker.following(query + "1")
    assert read_marker(str(following)) == following


def test_a_marker_is_no_tag_and_a_tag_no_marker():
    with pytest.raises(TagInvalid):
        parse_tag(str(FIRST))
    assert read_marker("7.2-alpine") is None
    assert read_marker(None) is None


def test_the_longest_query_fits_into_a_requests_line():
    marker = PageMarker.first("quay.io", "a" * MAX_QUERY)
    for page in range(20_000):
        marker = marker.following("a" * MAX_QUERY) if page > 19_990 else marker
    assert len(str(marker)) < 6800
    assert not can_be_marked("a" * (MAX_QUERY + 1))


@pytest.mark.parametrize(
    "text",
    [
        "~",
        "~a",
        str(FIRST)[:-1] + "*",
        str(FIRST) + "\n",
        "~" + "0" * 8 + ".0." + "0" * 8 + ".YT0x",
        "~" + "0" * 8 + ".1." + "0" * 8 + ".A",
        "~" + "0" * 8 + ".1." + "0" * 8 + "." + "YWFh" * 3000,
        str(PageMarker("0" * 8, 1, "0" * 8, "a b")),
        str(PageMarker("0" * 8, 1, "0" * 8, "a\r\nX: y")),
        str(PageMarker("0" * 8, 1, "0" * 8, "a#b")),
        str(PageMarker("0" * 8, 1, "0" * 8, "a=%0d%0aX:+y")),
    ],
)
def test_what_a_client_made_up_is_refused(text):
    with pytest.raises(BadRequest):
        read_marker(text)


@pytest.mark.parametrize(
    "query", ["ns=ghcr.io", "a=1&ns=ghcr.io", "a=1;ns=x", "n%73=x", "NS=x", "a&ns", "?ns=x"]
)
def test_no_marker_names_another_registry(query):
    with pytest.raises(BadRequest):
        read_marker(str(PageMarker.first("quay.io", query)))


@pytest.mark.parametrize("query", ["n=50&last=7", "answers=1", "token=ns=1", "n=1&sns=1"])
def test_other_words_may_stand_in_one(query):
    assert can_be_marked(query)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("before", [0, 1, 5, 40])
def test_a_circle_is_found_out(length, before):
    asked = [f"way={number}" for number in range(before)]
    asked += [f"round={number % length}" for number in range(5 * length + 3 * before + 2)]
    marker = PageMarker.first("quay.io", asked[0])
    for number, query in enumerate(asked[1:], 2):
        if marker.was_before(query):
            assert query.startswith("round")
            assert number <= 4 * (length + before) + 2
            return
        marker = marker.following(query)
    raise AssertionError("never found")


def test_a_straight_list_is_no_circle():
    marker = PageMarker.first("quay.io", "page=0")
    for number in range(1, 5000):
        assert not marker.was_before(f"page={number}")
        marker = marker.following(f"page={number}")
