"""What the registry's errors say, and in which words."""

import inspect
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import errors
from mirror.oci.errors import (
    BlobUnknown,
    DigestInvalid,
    NameInvalid,
    RangeInvalid,
    RateLimited,
    RegistryError,
    TagInvalid,
    Unavailable,
    quoted,
    render,
)

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RegistryError)
]


def test_an_error_is_rendered_as_the_specification_says():
    document = json.loads(render(BlobUnknown("no such blob"), "an-id"))
    assert document == {
        "errors": [
            {
                "code": "BLOB_UNKNOWN",
                "message": "no such blob",
                "detail": {"request_id": "an-id"},
            }
        ]
    }


@given(st.text(max_size=200))
def test_any_message_is_rendered_and_read_back(message):
    body = render(Unavailable(message), "an-id")
    assert body.isascii()
    assert json.loads(body)["errors"][0]["message"] == message


@pytest.mark.parametrize("kind", ALL)
def test_each_error_has_a_code_of_the_grammar_and_an_error_status(kind):
    assert re.fullmatch(r"[A-Z_]+", kind.code)
    assert 400 <= kind.status < 600
    assert kind.__doc__ or kind.__mro__[1].__doc__


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (NameInvalid("A"), "NAME_INVALID", 400),
        (TagInvalid("?"), "TAG_INVALID", 400),
        (DigestInvalid("x"), "DIGEST_INVALID", 400),
        (RangeInvalid(5), "RANGE_INVALID", 416),
        (errors.Denied(""), "DENIED", 403),
        (errors.Unsupported(""), "UNSUPPORTED", 405),
        (errors.NameUnknown(""), "NAME_UNKNOWN", 404),
        (errors.ManifestUnknown(""), "MANIFEST_UNKNOWN", 404),
        (BlobUnknown(""), "BLOB_UNKNOWN", 404),
        (Unavailable(""), "UNAVAILABLE", 503),
        (RateLimited(""), "TOOMANYREQUESTS", 503),
        (errors.Untrustworthy(""), "MANIFEST_INVALID", 502),
        (RegistryError(""), "UNKNOWN", 500),
    ],
)
def test_the_table(error, code, status):
    assert (error.code, error.status) == (code, status)


def test_an_error_says_when_to_ask_again_only_where_that_is_known():
    assert RateLimited("later", retry_after=3.5).retry_after == 3.5
    assert Unavailable("gone").retry_after is None


def test_a_range_error_names_the_size():
    assert RangeInvalid(1234).size == 1234
    assert "1234" in RangeInvalid(1234).message


@given(st.text(max_size=300))
def test_quoted_text_is_printable_ascii_but_for_the_ellipsis_and_bounded(text):
    shown = quoted(text)
    assert shown.removesuffix("…").isascii()
    assert shown.isprintable()
    assert shown.endswith("…") == (len(text) > 80)
    assert len(shown) <= 80 * len("\\U0001f600") + len("''…")
