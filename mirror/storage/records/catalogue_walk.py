"""Along what refers to what, in the tables of the catalogue: down to what an image needs, up to
the images that need a piece of content. For a thread; on a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import apsw

from ...contracts.catalogue import NAMED
from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.manifests import INDEX_TYPES

# Of a manifest without a tag: no tag of its repository points there, and no manifest that the
# repository shows needs it.
IS_IMAGE = """
(images.tag IS NOT NULL
 OR NOT EXISTS (SELECT 1 FROM images AS other WHERE other.digest = images.digest
    AND other.repository = images.repository AND other.tag IS NOT NULL)
 AND NOT EXISTS (SELECT 1 FROM needs JOIN images AS other ON other.digest = needs.parent
    AND other.repository = images.repository WHERE needs.child = images.digest))
"""

_NODE = "SELECT size, media_type FROM content WHERE id = ?"
_CHILDREN = """
SELECT id, content.digest, size, media_type FROM needs JOIN content ON id = child WHERE parent = ?
"""
_PARENTS = "SELECT parent FROM needs WHERE child = ?"
_NAMES = f"SELECT name FROM images WHERE digest = ? AND {IS_IMAGE} ORDER BY name"  # noqa: S608

# Pieces that are looked at for one image, or for those that need one piece: far above what images
# have, and a bound for what strangers make up.
_MOST = 4096

_DEEPEST = 16  # steps up to an image: a layer, its manifest, an index are two

_MOST_KNOWN = 20_000  # pieces of which a page remembers the images that need them


@dataclass(frozen=True, slots=True)
class Sums:
    """See ImageEntry."""

    size: int
    own: int
    missing: Sequence[Digest]


class Walk:
    """For one page: what is known of a piece is not looked for again by its next image."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._owners: dict[int, tuple[str, ...]] = {}  # two of them at most

    def sums(self, name: str, number: int, digest: Digest) -> Sums:
        """Of the image with this name and this manifest."""
        [(size, media_type)] = self._rows(_NODE, number)
        if size is None:
            return Sums(0, 0, (digest,))
        sizes: dict[int, int] = {number: size}
        missing: set[Digest] = set()
        ahead = [(number, media_type)]
        while ahead and len(sizes) < _MOST:
            parent, media_type = ahead.pop()
            lacking, is_any_here = set(), False
            for child, key, size, kind in islice(self._db.execute(_CHILDREN, (parent,)), _MOST):
                if size is None:
                    lacking.add(digest_of(key))
                    continue
                is_any_here = True
                if child not in sizes:
                    sizes[child] = size
                    ahead.append((child, kind))
            if not (is_any_here and media_type in INDEX_TYPES):
                missing |= lacking
        own = sum(size for piece, size in sizes.items() if self._owned_by(piece) == (name,))
        return Sums(sum(sizes.values()), own, tuple(sorted(missing, key=key_of)))

    def needed_by(self, number: int) -> tuple[str, ...]:
        """Some of the images that need this, in the order of their names."""
        return tuple(sorted(self._needing(number, NAMED)))

    def _owned_by(self, number: int, depth: int = _DEEPEST) -> tuple[str, ...]:
        """The image that needs this; two of them, where there are several."""
        known = self._owners.get(number)
        if known is not None:
            return known
        if len(self._owners) >= _MOST_KNOWN:
            self._owners.clear()
        self._owners[number] = ()  # what refers to itself ends
        names = {str(name) for (name,) in islice(self._db.execute(_NAMES, (number,)), 2)}
        if depth:
            for (parent,) in islice(self._db.execute(_PARENTS, (number,)), _MOST):
                if len(names) >= 2:
                    break
                names.update(self._owned_by(parent, depth - 1))
        self._owners[number] = owners = tuple(sorted(names)[:2])
        return owners

    def _needing(self, number: int, most: int) -> set[str]:
        """Names of that many images, as soon as they are found: a popular layer has thousands."""
        names: set[str] = set()
        seen: set[int] = set()
        above: list[Iterator[Any]] = [iter([(number,)])]
        while above and len(seen) < _MOST:
            step = next(above[-1], None)
            if step is None:
                above.pop()
                continue
            (piece,) = step
            if piece in seen:
                continue
            seen.add(piece)
            for (name,) in self._db.execute(_NAMES, (piece,)):
                names.add(str(name))
                if len(names) == most:
                    return names
            above.append(iter(self._db.execute(_PARENTS, (piece,))))
        return names

    def _rows(self, query: str, number: int) -> list[Any]:
        return self._db.execute(query, (number,)).fetchall()


def key_of(digest: Digest) -> bytes:
    """As bytes: half as long. The algorithms' lengths tell them apart."""
    return bytes.fromhex(digest.hex)


def digest_of(key: object) -> Digest:
    assert isinstance(key, bytes)  # noqa: S101 - the column takes nothing else
    return Digest("sha512" if len(key) == 64 else "sha256", key.hex())
