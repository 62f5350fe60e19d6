"""A tag's record as JSON: what is written is read back, and garbage is nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.contracts.tags import TagRecord
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.storage.tags.encoding import decode, encode, tag_key

from .tag_contract import REDIS, found, missing

KEY = tag_key(REDIS, "7")


def written(**changes: Any) -> bytes:
    """A good record's JSON with some fields changed; `descriptor__x` is a field within."""
    fields = json.loads(encode(KEY, found()))
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            fields[outer][inner] = value
        else:
            fields[outer] = value
    return json.dumps(fields).encode()


@pytest.mark.parametrize("record", [found(), found(size=None), found(size=0), missing()])
def test_what_is_written_is_read_back(record: TagRecord) -> None:
    assert decode(KEY, encode(KEY, record)) == record


def test_the_unchanged_json_of_these_tests_is_good() -> None:
    assert decode(KEY, written()) == found()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"\x00\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b"[" * 8000,
        b'{"a":' * 1500,
        written(version=2),
        written(version=None),
        written(tag="docker.io/library/redis:8"),
        written(descriptor="sha256:0"),
        written(descriptor=[]),
        written(descriptor__digest="sha256:xyz"),
        written(descriptor__digest=7),
        written(descriptor__mediaType="text/html\r\nSet-Cookie: x"),
        written(descriptor__mediaType="text/hütte"),
        written(descriptor__mediaType=None),
        written(descriptor__size=-1),
        written(descriptor__size=1.5),
        written(descriptor__size=True),
        written(descriptor__size="1"),
        written(checked_at="now"),
        written(checked_at=None),
        written(checked_at=True),
        written(checked_at=float("nan")),
        written(checked_at=float("inf")),
        written(checked_at=10**400),
        written(padding="x" * 10_000),
    ],
)
def test_f46_what_is_none_of_ours_is_no_record(data: bytes) -> None:
    assert decode(KEY, data) is None


@given(st.binary(max_size=300))
def test_f46_no_bytes_raise(data: bytes) -> None:
    assert decode(KEY, data) is None


@given(
    size=st.one_of(st.none(), st.integers(0, 2**63)),
    checked_at=st.floats(allow_nan=False, allow_infinity=False),
    content=st.binary(max_size=10),
)
def test_every_record_survives(size: int | None, checked_at: float, content: bytes) -> None:
    record = TagRecord(Descriptor("a/b", Digest.of(content), size), checked_at)
    assert decode(KEY, encode(KEY, record)) == record
