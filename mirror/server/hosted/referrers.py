"""Lists of referrers in pages ("Listing Referrers"): pure.

A client reads a page as the index that it is, and takes no larger one than a manifest may be.
"""

from __future__ import annotations

import json

LARGEST = 2 << 20
"""Bytes of a page: half of what a manifest may have."""


def page(listed: bytes, last: str | None, count: int | None) -> tuple[bytes, str | None]:
    """Of an index whose manifests are in the order of their digests: those after the digest `last`,
    as many as one page has, and at most `count`; with the marker of the next page, None at the end.
    """
    if last is None and count is None and len(listed) <= LARGEST:
        return listed, None
    index = json.loads(listed)
    found = [each for each in index["manifests"] if last is None or each["digest"] > last]
    shown: list[object] = []
    size = 0
    for each in found[:count]:
        size += len(json.dumps(each)) + 2
        if shown and size > LARGEST:
            break
        shown.append(each)
    marker = found[len(shown) - 1]["digest"] if 0 < len(shown) < len(found) else None
    return json.dumps({**index, "manifests": shown}).encode(), marker
