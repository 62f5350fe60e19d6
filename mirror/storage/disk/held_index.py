"""What content has to stay, and what may go, in the account of the content (see index.py).

What removes content, and what has it stay, is done with its file while nobody else writes to the
database, in whichever process: nothing is removed behind a `hold` that has returned.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from ...oci.digest import Digest
from ..sqlite_files import rows
from .index import Index
from .ingest_key import PUSHED, PartialKey

_IS_KEPT = """
SELECT EXISTS (SELECT 1 FROM needs WHERE child = ?1) OR EXISTS
    (SELECT 1 FROM pins WHERE digest = ?1)
"""

# What was held later than now was so by a clock that was ahead, and stays so.
_HOLD = f"""
INSERT INTO content (digest, size, used_at, rank, held, source)
VALUES (?1, ?2, ?3, 0, ?3, '{PUSHED}')
ON CONFLICT (digest) DO UPDATE SET
    size = ?2, guest = 0, used_at = max(used_at, ?3), held = max(coalesce(held, ?3), ?3)
"""  # noqa: S608


class HeldIndex:
    """Of this index. Each method may be called from any thread that is not the event loop's, and
    raises apsw.Error, and what is done with the file raises."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def evict(self, digest: Digest, unlink: Callable[[], None]) -> int | None:
        """Has `unlink` remove the file of this content, and forgets it; its size, 0 where that was
        not recorded. None: it is held."""
        with self._index.database.transaction() as db:
            if _held(db, digest) is not None:
                return None
            unlink()
            return _remove(db, digest)

    def remove_unneeded(self, digest: Digest, unlink: Callable[[], None]) -> int | None:
        """As `evict`, if no content needs it that is recorded, nor it is pinned to stay. None: it
        stays, or is not recorded."""
        with self._index.database.transaction() as db:
            found = rows(db, "SELECT held FROM content WHERE digest = ?", str(digest))
            if found != [(None,)] or _is_kept(db, digest):
                return None
            unlink()
            return _remove(db, digest)

    def hold(
        self, digest: Digest, now: Callable[[], float], hold: Callable[[], int | None]
    ) -> int | None:
        """Has this content stay, if `hold`, which is to make its file such as stays, finds one and
        tells its size; that size. `now` is asked when nobody else writes any more: what was
        released meanwhile was held before."""
        with self._index.database.transaction() as db:
            size = hold()
            if size is not None:
                db.execute(_HOLD, (str(digest), size, now()))
            return size

    def hold_new(
        self,
        digest: Digest,
        size: int,
        now: Callable[[], float],
        came: PartialKey,
        place: Callable[[], None],
    ) -> None:
        """Has `place` give content its name, which stays from now on; the reservation ends of what
        `came`. Raises Exceeded where less is reserved, and there is no room for the rest."""
        with self._index.database.transaction() as db:
            [(reserved,)] = rows(
                db, "SELECT coalesce(max(size), 0) FROM reserved WHERE digest = ?", str(came)
            )
            if (taken := self._index.taken(size)) > reserved:
                self._index.refuse_more(db, taken, reserved, 0)
            place()
            db.execute("DELETE FROM reserved WHERE digest = ?", (str(came),))
            db.execute(_HOLD, (str(digest), size, now()))

    def release(
        self, digest: Digest, before: float, unlink: Callable[[], None], leave: Callable[[], None]
    ) -> int | None:
        """Has `unlink` remove the file of what was held last before that moment, and forgets it:
        its size. What is pinned, or needed, may be evicted from now on: `leave` is to make its file
        such. None: nothing was removed."""
        with self._index.database.transaction() as db:
            held = _held(db, digest)
            if held is None or held >= before:
                return None
            if _is_kept(db, digest):
                leave()
                db.execute("UPDATE content SET held = NULL WHERE digest = ?", (str(digest),))
                return None
            unlink()
            return _remove(db, digest)

    def let_go(self, digest: Digest, leave: Callable[[], None]) -> None:
        """Has `leave` make its file such as may be evicted."""
        with self._index.database.transaction() as db:
            leave()
            db.execute("UPDATE content SET held = NULL WHERE digest = ?", (str(digest),))

    def is_held(self, digest: Digest) -> bool:
        found = self._index.database.read("SELECT held FROM content WHERE digest = ?", str(digest))
        return bool(found) and found[0][0] is not None

    def held_page(self, before: float, after: str, count: int) -> list[tuple[Digest, int, float]]:
        """Of what was held last before that moment, in the order of digests, after this one: each
        with its size, and that time."""
        found = self._index.database.read(
            "SELECT digest, size, held FROM content "
            "WHERE held IS NOT NULL AND held < ? AND digest > ? ORDER BY digest LIMIT ?",
            before,
            after,
            count,
        )
        return [(Digest.parse(digest), size, held) for digest, size, held in found]


def _remove(db: apsw.Connection, digest: Digest) -> int:
    found = rows(db, "DELETE FROM content WHERE digest = ? RETURNING size", str(digest))
    return int(found[0][0]) if found else 0


def _held(db: apsw.Connection, digest: Digest) -> float | None:
    """When it was held last, None for what is not."""
    found = rows(db, "SELECT held FROM content WHERE digest = ?", str(digest))
    return found[0][0] if found else None


def _is_kept(db: apsw.Connection, digest: Digest) -> bool:
    """Whether content that is recorded needs it, or it is pinned."""
    [(kept,)] = rows(db, _IS_KEPT, str(digest))
    return bool(kept)
