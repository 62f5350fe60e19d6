"""Content that nothing needs is removed, in small steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...oci.digest import Digest
from ...storage.disk.store import DiskContent

_AT_ONCE = 64  # pieces in one go: one transaction of the index


async def remove_unneeded(store: DiskContent, digests: Sequence[Digest]) -> Mapping[Digest, int]:
    """Removes what of this no other content needs, nor is pinned, and gives the sizes. Raises
    OSError, apsw.Error."""
    removed: dict[Digest, int] = {}
    left, before = list(digests), -1
    while left and len(left) != before:  # again, where something was named before its parent
        before = len(left)
        for start in range(0, before, _AT_ONCE):
            removed |= await store.purge(left[start : start + _AT_ONCE])
        left = [each for each in left if each not in removed and store.size(each) is not None]
    return removed
