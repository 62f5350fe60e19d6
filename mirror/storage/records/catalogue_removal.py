"""What goes with an image, in the tables of the catalogue: what no image that stays needs. For a
thread; on a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import apsw

from ...contracts.catalogue import Leaving, Piece, Removal
from ...oci.reference import ImageReference
from .catalogue_walk import IS_IMAGE, digest_of

_ROOT = """
SELECT id, content.digest, size, media_type FROM images JOIN content ON id = images.digest
WHERE name = ?
"""
_CHILDREN = """
SELECT id, content.digest, size, media_type FROM needs JOIN content ON id = child WHERE parent = ?
"""
_PARENTS = "SELECT parent FROM needs WHERE child = ?"
_IMAGES = f"SELECT name, repository FROM images WHERE digest = ? AND {IS_IMAGE}"  # noqa: S608

# Pieces of one image; and pieces that are looked at above one of them, before it is taken for
# needed: far above what images have.
_MOST = 20_000


class RemovalWalk:
    def __init__(self, db: apsw.Connection, leaving: Leaving) -> None:
        self._db = db
        self._gone = leaving.names
        # By repository; "" for all of them. A popular layer has thousands of manifests above it,
        # which are looked at once, and not for each image.
        self._unneeded = leaving.unneeded

    def pieces(self, image: ImageReference) -> Sequence[Piece]:
        """What it is made of, what needs others first; nothing of an image that is not known."""
        return [piece for _, piece in self._below(image)]

    def removal(self, image: ImageReference) -> Removal | None:
        below = self._below(image)
        if not below:
            return None
        repository = str(image.repository)
        pieces, shared, unshown = list[Piece](), list[Piece](), list[Piece]()
        for number, piece in below:
            (shared if self._is_needed(number, "") else pieces).append(piece)
            if not self._is_needed(number, repository):
                unshown.append(piece)
        return Removal(image, pieces, shared, unshown)

    def _below(self, image: ImageReference) -> list[tuple[int, Piece]]:
        """Each once, by its number; level by level, so that what needs others comes first."""
        found: dict[int, Piece] = {}
        level = self._pieces(_ROOT, str(image))
        while level:
            below: list[tuple[int, Piece]] = []
            for number, piece in level:
                # Again, when it is needed by what was found later: it comes behind that.
                is_new = found.pop(number, None) is None
                if is_new and piece.media_type and len(found) + len(below) < _MOST:
                    below += self._pieces(_CHILDREN, number)
                found[number] = piece
            level = below
        return list(found.items())

    def _pieces(self, query: str, value: str | int) -> list[tuple[int, Piece]]:
        return [
            (number, Piece(digest_of(key), size, media_type))
            for number, key, size, media_type in islice(self._db.execute(query, (value,)), _MOST)
        ]

    def _is_needed(self, number: int, repository: str) -> bool:
        """Whether an image needs this that stays; of this repository, where one is named. What has
        more above it than can be looked at is taken for needed."""
        unneeded = self._unneeded.setdefault(repository, set())
        seen: set[int] = set()
        ahead = [number]
        while ahead:
            piece = ahead.pop()
            if piece in seen or piece in unneeded:
                continue
            seen.add(piece)
            if len(seen) > _MOST:
                return True
            for name, place in self._rows(_IMAGES, piece):
                if name not in self._gone and repository in ("", place):
                    return True
            ahead += [parent for (parent,) in self._rows(_PARENTS, piece)]
        unneeded |= seen
        return False

    def _rows(self, query: str, number: int) -> Any:
        return self._db.execute(query, (number,))
