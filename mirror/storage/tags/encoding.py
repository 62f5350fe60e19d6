"""How a tag record is written down: small JSON, read back with distrust."""

from __future__ import annotations

import json
import math
from typing import Any

from ...contracts.tags import KnownTag, TagRecord
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid, NameInvalid, TagInvalid
from ...oci.reference import Repository, parse_name, parse_tag

_VERSION = 1

# Ten times the longest record of ours: what is larger is not even parsed.
_MAX_BYTES = 8192


def tag_key(repository: Repository, tag: str) -> str:
    """`registry/name:tag`. No two tags share a key: a registry has no `/`, a name no `:`, and a tag
    neither."""
    return f"{repository}:{tag}"


def read_tag_key(key: str) -> tuple[Repository, str] | None:
    """What `tag_key` made the key of; None for a key that it never made.

    >>> read_tag_key("localhost:5000/a/b:7")
    (Repository(registry='localhost:5000', name='a/b'), '7')
    """
    place, _, tag = key.rpartition(":")
    registry, _, name = place.partition("/")
    try:
        return Repository(registry, parse_name(name)), parse_tag(tag)
    except (NameInvalid, TagInvalid):
        return None


def known_tag(key: str, data: bytes) -> KnownTag | None:
    """The record that `encode` wrote under this key, and its tag; None for anything else."""
    place, record = read_tag_key(key), decode(key, data)
    return None if place is None or record is None else KnownTag(*place, record)


def encode(key: str, record: TagRecord) -> bytes:
    """The record as JSON. It names its own key, so that it can never pass for another tag's."""
    descriptor = record.descriptor
    return json.dumps(
        {
            "version": _VERSION,
            "tag": key,
            "checked_at": record.checked_at,
            "descriptor": None
            if descriptor is None
            else {
                "mediaType": descriptor.media_type,
                "digest": str(descriptor.digest),
                "size": descriptor.size,
            },
        },
        separators=(",", ":"),
    ).encode()


def decode(key: str, data: bytes) -> TagRecord | None:
    """The record that `encode` wrote under this key; None for anything else whatsoever."""
    if len(data) > _MAX_BYTES:
        return None
    try:
        fields = json.loads(data)
        if fields["version"] != _VERSION or fields["tag"] != key:
            return None
        descriptor = fields["descriptor"]
        return TagRecord(
            descriptor=None if descriptor is None else _descriptor(descriptor),
            checked_at=_time(fields["checked_at"]),
        )
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, DigestInvalid):
        return None


def _descriptor(fields: dict[str, Any]) -> Descriptor:
    media_type, digest, size = fields["mediaType"], fields["digest"], fields["size"]
    # It becomes a response header: nothing that could end the line, or not be sent at all.
    if not (isinstance(media_type, str) and media_type.isascii() and media_type.isprintable()):
        raise ValueError(media_type)
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError(size)
    return Descriptor(media_type, Digest.parse(str(digest)), size)


def _time(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(value)
    return float(value)  # type: ignore[arg-type]
