"""WWW-Authenticate: what is read of it, whatever an upstream writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.challenges import MAX_CHALLENGES, MAX_LINE, MAX_LINES, Challenge, parse_challenges

HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/redis:pull"'
)


def read(*lines):
    return [(found.scheme, dict(found.parameters)) for found in parse_challenges(lines)]


def test_docker_hubs_challenge_is_read():
    assert read(HUB) == [
        (
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/redis:pull",
            },
        )
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Basic", [("basic", {})]),
        ("Basic realm=simple", [("basic", {"realm": "simple"})]),
        ('Basic realm=""', [("basic", {"realm": ""})]),
        ('BASIC ReAlM="Mixed Case"', [("basic", {"realm": "Mixed Case"})]),
        ('Basic realm = "a" , charset\t=\tUTF-8', [("basic", {"realm": "a", "charset": "UTF-8"})]),
        ('Bearer realm="a,b", scope="c, Basic realm=d"',
         [("bearer", {"realm": "a,b", "scope": "c, Basic realm=d"})]),
        (r'Bearer realm="say \"hi\", \\ or \a"', [("bearer", {"realm": r'say "hi", \ or a'})]),
        ('Basic realm="a", Bearer realm="b", scope="c"',
         [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "scope": "c"})]),
        ('Basic, Bearer realm="b"', [("basic", {}), ("bearer", {"realm": "b"})]),
        ('Negotiate, Basic realm="a"', [("negotiate", {}), ("basic", {"realm": "a"})]),
        ("Negotiate YWJj==, Basic", [("negotiate", {}), ("basic", {})]),
        ("Negotiate a/b+c~d, Basic", [("negotiate", {}), ("basic", {})]),
        ("NTLM TlRMTVNTUAAC", [("ntlm", {})]),
        (", ,Basic realm=a, ,service=b,,", [("basic", {"realm": "a", "service": "b"})]),
        ('Basic ,realm="a"', [("basic", {"realm": "a"})]),
        ('Bearer realm="a", realm="b", REALM="c"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="a", Bearer realm="b"',
         [("bearer", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        ("", []),
        (" ,\t, ", []),
    ],
)  # fmt: skip
def test_well_formed_challenges_are_read(line, expected):
    assert read(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # A malformed parameter is left out alone.
        ('Bearer realm="a", scope=, service="b"', [("bearer", {"realm": "a", "service": "b"})]),
        ('Bearer realm=https://a/b, service="b"', [("bearer", {"service": "b"})]),
        ('Bearer realm="a"x, service="b"', [("bearer", {"service": "b"})]),
        ('Bearer realm="a" scope="c", service="b"', [("bearer", {"service": "b"})]),
        ('Bearer realm="caf\u00e9, x", service="b"', [("bearer", {"service": "b"})]),
        ('Bearer realm="a\r\nX: y", service="b"', [("bearer", {"service": "b"})]),
        ('Bearer realm="a\0", service="\ud800", scope="c"', [("bearer", {"scope": "c"})]),
        ('Bearer realm="a\\\n", scope="c"', [("bearer", {"scope": "c"})]),
        # A malformed scheme takes with it what belongs to it.
        ('Basic realm="a", B@d realm="x", service="y"', [("basic", {"realm": "a"})]),
        ('Basic realm="a", B@d realm="x", Bearer scope="y"',
         [("basic", {"realm": "a"}), ("bearer", {"scope": "y"})]),
        ('Basic Bearer realm="x", service="y"', [("basic", {})]),
        ('Negotiate abc def, service="y"', [("negotiate", {})]),
        ('Basic realm="a", Negotiate abc, service="y"',
         [("basic", {"realm": "a"}), ("negotiate", {})]),
        ('"quoted, scheme" realm="x", service="y"', []),
        ('realm="of nobody", service="y"', []),
        ('="x"', []),
        # A quote that never closes takes the rest of the line.
        ('Bearer realm="a", service="b, scope="c"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="a\\"', [("bearer", {})]),
        ('Bearer "', [("bearer", {})]),
    ],
)  # fmt: skip
def test_what_cannot_be_parsed_is_left_out(line, expected):
    assert read(line) == expected


def test_several_lines_are_read_in_order_and_each_stands_alone():
    assert read('Basic realm="a', 'service="b"', HUB, "Basic") == [
        ("basic", {}),
        *read(HUB),
        ("basic", {}),
    ]


def test_a_line_too_long_is_left_out_whole_and_the_others_are_read():
    long = 'Bearer realm="' + "a" * MAX_LINE + '"'
    assert read(long, HUB) == read(HUB)


def test_only_so_many_lines_are_read():
    assert len(read(*["Basic"] * 1000)) == MAX_LINES


def test_only_so_many_challenges_are_read():
    assert len(read("Basic," * 1000, "Basic," * 1000)) == MAX_CHALLENGES


words = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
quotable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
challenges = st.lists(
    st.tuples(words, st.dictionaries(words.map(str.lower), quotable, max_size=4)), max_size=4
)


@given(challenges)
def test_what_is_written_by_the_grammar_is_read_back(written):
    def quote(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    line = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quote(value)}" for name, value in parameters.items())
        for scheme, parameters in written
    )
    assert read(line) == [(scheme.lower(), parameters) for scheme, parameters in written]


@given(st.lists(st.text(max_size=60) | st.text('ab="\\, \t@', max_size=60), max_size=4))
def test_any_lines_give_challenges_of_ascii_words_and_nothing_is_raised(lines):
    for challenge in parse_challenges(lines):
        assert isinstance(challenge, Challenge)
        assert challenge.scheme.isascii()
        assert challenge.scheme == challenge.scheme.lower() != ""
        for name, value in challenge.parameters.items():
            assert name == name.lower() != ""
            assert (name + value).replace("\t", " ").isprintable()
            assert (name + value).isascii()


@pytest.mark.parametrize(
    "piece",
    [
        '"',
        "\\",
        '\\"',
        'a="',
        'a="\\',
        "a=",
        "a ",
        " ",
        ",",
        "a,",
        '",',
        "=",
        'a="b"',
        '"a"',
        "a=b ",
    ],
)
def test_hostile_repetition_as_long_as_a_line_may_be_is_read_to_its_end(piece):
    """Matching that backtracks exponentially would never come back."""
    line = "Basic, " + piece * ((MAX_LINE - 7) // len(piece))
    assert read(*[line] * MAX_LINES)[0][0] == "basic"
