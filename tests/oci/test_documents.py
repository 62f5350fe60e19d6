"""JSON from strangers: one meaning, bounded, or refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.documents import MAX_DEPTH, MAX_VALUES, read_object
from mirror.oci.errors import Untrustworthy

from .attempts import attempt

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6), st.booleans())
def test_what_is_an_object_is_read(document, ascii_only):
    data = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        assert read_object(data) == document
    except Untrustworthy:
        with pytest.raises(UnicodeDecodeError):  # a surrogate, unescaped
            data.decode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"{}{}", "no JSON"),
        (b"<html><body>Please log in</body></html>", "no JSON"),
        (b"[]", "no object but a list"),
        (b"null", "no object but a NoneType"),
        (b'"text"', "no object but a str"),
        (b"5", "no object but a int"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": 1}'.encode("utf-16"), "no JSON"),
        ('{"a": 1}'.encode("utf-32"), "no JSON"),
        (b'{"a": "\xff"}', "no JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b"{'a': 1}", "no JSON"),
        (b'{"a": 1,}', "no JSON"),
        (b'{"a": 1, "a": 1}', "the key 'a' occurs twice"),
        (b'{"x": [{"b": 1, "a": 1, "\\u0061": 2}]}', "the key 'a' occurs twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
    ],
)
def test_what_is_no_strict_object_is_refused_with_the_reason(data, said):
    with pytest.raises(Untrustworthy) as caught:
        read_object(data)
    assert said in caught.value.message


def nested(depth):
    """An object of this depth, in both kinds of containers."""
    document = 0
    for level in range(depth):
        document = {"a": document} if level % 2 or level == depth - 1 else [document]
    return json.dumps(document).encode()


def test_depth_is_bounded_exactly():
    assert read_object(nested(MAX_DEPTH))
    with pytest.raises(Untrustworthy, match="deep"):
        read_object(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("piece", [b"[", b'{"a":', b'[{"a":'])
def test_bottomless_nesting_is_refused_and_not_recursed_into(piece):
    for count in (500, 20_000, 1_000_000):
        with pytest.raises(Untrustworthy):
            read_object(b'{"a":' + piece * count)


@pytest.mark.parametrize(("value", "cost"), [(b"0", 1), (b"[]", 2), (b"{}", 2)])
def test_more_values_than_any_manifest_has_are_refused_before_they_are_built(value, cost):
    most = MAX_VALUES // cost - 1
    assert read_object(b'{"a":[' + b",".join([value] * most) + b"]}")
    with pytest.raises(Untrustworthy, match="200000 values"):
        read_object(b'{"a":[' + b",".join([value] * (most + 2)) + b"]}")


def test_a_key_that_occurs_twice_among_very_many_is_found():
    """By looking each up once: comparing all with all would take minutes."""
    keys = b",".join(b'"%d":0' % i for i in range(150_000))
    with pytest.raises(Untrustworthy, match="'149999' occurs twice"):
        read_object(b"{" + keys + b',"149999":0}')


@given(st.binary(max_size=200) | st.text('{}[]",:ab1\\u0', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_are_refused(data):
    found = attempt(Untrustworthy, read_object, data)
    assert isinstance(found, dict) or found.message.isprintable()


def test_the_message_never_shows_the_bytes():
    with pytest.raises(Untrustworthy) as caught:
        read_object(b'{"token": "s3cret" oops')
    assert "s3cret" not in caught.value.message
