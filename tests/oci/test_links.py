"""The Link header: where a list goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.links import MAX_LINE, MAX_LINES, next_target


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ('</v2/x/tags/list?last=7&n=2>; rel="next"', "/v2/x/tags/list?last=7&n=2"),
        ("<https://r.example/x?last=7>; rel=next", "https://r.example/x?last=7"),
        ("<x>;rel=next", "x"),
        ('<x> ; REL = "NEXT"', "x"),
        ('<x>; rel="prev next"', "x"),
        ('<x>; title="a, b; rel=prev"; rel="next"', "x"),
        (r'<x>; title="say \"hi\", <y>"; rel="next"', "x"),
        ("<x>; anchor; rel=next", "x"),
        ('<x>;; rel="next"', "x"),
        ('<first>; rel="prev", <second>; rel="next"', "second"),
        ('<first>; rel="help";, <second>; rel="next", <third>; rel=next', "second"),
        ('nonsense, <x>; rel="next"', "x"),
        ('"quoted, <y>; rel=next", <x>; rel="next"', "x"),
        (', , <x>; rel="next",', "x"),
        ("</a,b?last=c,d>; rel=next", "/a,b?last=c,d"),
        ("<x>; rel=next; rel=prev", "x"),
    ],
)
def test_the_link_that_leads_to_the_next_page_is_found(line, target):
    assert next_target([line]) == target


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        '</x>; rel="prev"',
        "</x>",
        "<x; rel=next",
        "x>; rel=next",
        '<x>; rel="nextpage"',
        '<x>; rel="prev"; rel="next"',
        '<x>; title="rel=next"',
        '<x>; title="; rel=next',
        '<x>, rel="next"',
        '<>; rel="next"',
    ],
)
def test_what_does_not_lead_to_a_next_page_is_left_out(line):
    assert next_target([line]) is None


def test_several_lines_are_read_in_order():
    assert next_target(['<a>; rel="prev"', '<b>; rel="next"', '<c>; rel="next"']) == "b"


def test_lines_have_a_bound():
    good = '<x>; rel="next"'
    assert next_target([f'<a>; title="{"a" * MAX_LINE}"; rel=next', good]) == "x"
    assert next_target(["<x>"] * MAX_LINES + [good]) is None


targets = st.text(st.characters(codec="ascii", exclude_characters="<>"), min_size=1, max_size=30)
names = st.text("abcXYZ019!#$*", min_size=1, max_size=8).filter(lambda name: name.lower() != "rel")
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
links = st.tuples(targets, st.lists(st.tuples(names, values), max_size=3), st.booleans())


@given(st.lists(links, max_size=4))
def test_what_is_written_by_the_grammar_is_read_back(written):
    def quote(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    line = ", ".join(
        f"<{target}>"
        + "".join(f"; {name}={quote(value)}" for name, value in parameters)
        + ('; rel="next"' if is_next else "")
        for target, parameters, is_next in written
    )
    expected = next((target for target, _, is_next in written if is_next), None)
    assert next_target([line]) == expected


@given(st.lists(st.text(max_size=60) | st.text('a<>";=,\\ rel', max_size=60), max_size=4))
def test_any_lines_give_a_target_that_stands_in_them_and_nothing_is_raised(lines):
    found = next_target(lines)
    assert found is None or any(f"<{found}>" in line for line in lines)
