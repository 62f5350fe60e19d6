"""What of the content is in the second tier too, in the account of the content (see index.py).

That content is not far yet is what its record says from its beginning, in the transaction that
makes it: no process that dies can forget that it was due. Content of guests, and what is held, is
not given to the second tier; nor is what was pushed: where it is let go, it is kept for all nodes
elsewhere, and what is deleted there is to be gone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...contracts.second_tier import Backlog, Due, FarStanding
from ...oci.digest import Digest
from .index import Index
from .ingest_key import PUSHED

# As the index `not_far` has it: SQLite takes it for no other words.
_MAY_BE_DUE = "far <> 1 AND NOT guest AND held IS NULL"
_IS_DUE = f"{_MAY_BE_DUE} AND source <> '{PUSHED}'"

# The sources of what is due, each found by one step in the index.
_SOURCES = f"""
WITH RECURSIVE found (source) AS (
    SELECT min(source) FROM content WHERE {_MAY_BE_DUE}
    UNION ALL
    SELECT (SELECT min(source) FROM content WHERE source > found.source AND {_MAY_BE_DUE})
    FROM found WHERE found.source IS NOT NULL
)
SELECT source FROM found WHERE source <> '{PUSHED}' LIMIT ?
"""  # noqa: S608

_DUE = f"""
SELECT digest, size, far, came, used_at FROM content WHERE source = ? AND {_IS_DUE}
ORDER BY came {{order}} LIMIT ?
"""  # noqa: S608

_MOST_SOURCES = 256


class FarIndex:
    """Of this index. Each method may be called from any thread and raises apsw.Error; `is_far` and
    `is_due` are for the event loop, too."""

    def __init__(self, index: Index) -> None:
        self._database = index.database

    def standing(self, digest: Digest) -> FarStanding | None:
        """None: it is not recorded here."""
        found = self._database.read("SELECT far FROM content WHERE digest = ?", str(digest))
        return FarStanding(found[0][0]) if found else None

    def is_due(self, digest: Digest) -> bool:
        return bool(
            self._database.read(
                f"SELECT 1 FROM content WHERE digest = ? AND {_IS_DUE}",  # noqa: S608
                str(digest),
            )
        )

    def note(self, digest: Digest, standing: FarStanding, now: float) -> None:
        """Nothing, where it is not recorded. Of what is far, `came` is when that was noted."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE content SET far = ?1, came = CASE ?1 WHEN 1 THEN ?2 ELSE came END "
                "WHERE digest = ?3",
                (standing.value, now, str(digest)),
            )

    def given(self, due: Due, now: float) -> None:
        """As FarRecords.given."""
        before = FarStanding.WRONG if due.is_wrong else FarStanding.NOT_YET
        with self._database.transaction() as db:
            db.execute(
                "UPDATE content SET far = 1, came = ? WHERE digest = ? AND far = ?",
                (now, str(due.digest), before.value),
            )

    def doubt(self, after: str, count: int, noted_before: float) -> str | None:
        """As FarRecords.doubt."""
        found = self._database.read(
            "SELECT digest, far = 1 AND came < ? FROM content WHERE digest > ? "
            "ORDER BY digest LIMIT ?",
            noted_before,
            after,
            count,
        )
        old = [(digest,) for digest, is_old in found if is_old]
        if old:
            with self._database.transaction() as db:
                db.executemany(
                    "UPDATE content SET far = 0, source = '', came = 0 WHERE digest = ?", old
                )
        return found[-1][0] if len(found) == count else None

    def sources(self) -> list[str]:
        """Those of what is due."""
        return [source for (source,) in self._database.read(_SOURCES, _MOST_SOURCES)]

    def due(
        self, source: str, newest: bool, passed_over: Collection[Digest], count: int
    ) -> Sequence[Due]:
        """Of this source, what came last or first, but for what is passed over."""
        query = _DUE.format(order="DESC" if newest else "ASC")
        found = self._database.read(query, source, count + len(passed_over))
        due = [
            Due(Digest.parse(digest), size, came, used, is_wrong=far == FarStanding.WRONG.value)
            for digest, size, far, came, used in found
        ]
        return [each for each in due if each.digest not in passed_over][:count]

    def backlog(self) -> Backlog:
        [(count, oldest)] = self._database.read(
            f"SELECT count(*), min(CASE WHEN source <> '' THEN came END) "  # noqa: S608
            f"FROM content INDEXED BY not_far WHERE {_IS_DUE}"
        )
        return Backlog(count, oldest)
