"""Conditional and partial requests (RFC 9110, 13 and 14): pure words.

Content named by a digest has the strongest validator there is, so its ETag is the digest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...oci.digest import Digest
from ...oci.ranges import ByteRange, parse_range

_ENTITY_TAG = re.compile(r'"([\x21\x23-\x7e\x80-\xff]*)"', re.ASCII)


def etag(digest: Digest) -> str:
    return f'"{digest}"'


def not_modified(if_none_match: Sequence[str], digest: Digest) -> bool:
    """Whether the client has this already: weak comparison, in any of the header's lines
    (RFC 9110, 13.1.2), so that a W/ before the tag is of no account."""
    return any(
        line.strip(" \t") == "*" or str(digest) in _ENTITY_TAG.findall(line)
        for line in if_none_match
    )


def asked(range_header: str | None, if_range: str | None, digest: Digest) -> ByteRange | None:
    """The part that is asked for of content whose size is not known yet, None for the whole: a
    Range counts only where If-Range, when there is one, names this very content (strong comparison;
    a date never does)."""
    if if_range is not None and if_range.strip(" \t") != etag(digest):
        return None
    return parse_range(range_header, None)


def wanted(
    range_header: str | None, if_range: str | None, digest: Digest, size: int | None
) -> ByteRange | None:
    """As `asked`: the part to send of content of this size. Raises RangeInvalid."""
    if if_range is not None and if_range.strip(" \t") != etag(digest):
        return None
    # Without the size there is no Content-Range that all clients read: the whole is a right answer.
    return None if size is None else parse_range(range_header, size)
