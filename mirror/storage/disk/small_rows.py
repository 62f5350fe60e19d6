"""Small content as rows of one database: a file, a rename and two syncs each cost ten times as much
to write, and more to open.

A row is content as a file is, found by its digest and proven each time it is read; the account
(index.py) tells of both alike. What has to stay is a file always (see held.py): a database that is
damaged is set aside whole, and what is in it has to be fetched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apsw
import structlog

from ...clock import Clock
from ...contracts.content import ContentInMemory
from ...contracts.registry import Outcome
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.digest import Digest
from ..shared_database import SharedDatabase, beginning_with
from ..sqlite_files import DAMAGED, Identity, Rows, Schema, open_unwritable, rows

log = structlog.get_logger()

# Milliseconds that a write waits for another process's (see Patience).
_BUSY_MS = 2000

# Bytes in pages that have come free, and wait for what comes next. What is beyond is given back.
_SPARE = 256 << 10
_PAGE = 4096
_AT_ONCE = 1024  # pages: moving them is written to the log first

# In the order in which they come, and found by an index: with 4 KiB and more a row fills its pages
# whatever its neighbours are.
_VERSIONS = (
    """
CREATE TABLE small (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, came REAL NOT NULL, data BLOB NOT NULL
);
""",
)
_SCHEMA = Schema(
    _VERSIONS,
    lambda db: db.execute("SELECT digest, came, data FROM small LIMIT 0"),
    f"PRAGMA page_size = {_PAGE}; PRAGMA auto_vacuum = INCREMENTAL",
)

_ADD = "INSERT INTO small (digest, came, data) VALUES {} ON CONFLICT (digest) DO UPDATE SET {}"


class SmallRows:
    """Shared by all workers of a node. Each method may be called from any thread; `read` and
    `is_here` from the event loop too: they take some ten microseconds."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Never fails. Where the database cannot be written, its rows are read all the same."""
        self._database = SharedDatabase(
            path, _SCHEMA, _BUSY_MS, clock, what="small content", instead=open_unwritable
        )
        self._damaged: Identity | None = None
        self._database.open_for_reading()

    @property
    def identity(self) -> Identity | None:
        """Of the file; None where it cannot be written."""
        return self._database.identity

    def close(self) -> None:
        self._database.close()

    def read(self, digest: Digest) -> bytes | None:
        """The row as it is, not proven. Raises apsw.Error."""
        found = self._read("SELECT data FROM small WHERE digest = ?", str(digest))
        return found[0][0] if found else None

    def is_here(self, digest: Digest) -> bool:
        try:
            return bool(self._read("SELECT 1 FROM small WHERE digest = ?", str(digest)))
        except apsw.Error as error:
            log.warning("small_content_cannot_be_read", digest=str(digest), reason=str(error))
            return False

    def came(self, digest: Digest) -> float | None:
        """When it did, in seconds since the epoch; None: it is not here. Raises apsw.Error."""
        found = self._read("SELECT came FROM small WHERE digest = ?", str(digest))
        return found[0][0] if found else None

    def add(self, pieces: Sequence[tuple[Digest, bytes]], now: float, *, durable: bool) -> None:
        """All of these proven pieces, or none. Blocking; raises apsw.Error, OSError."""
        # In one statement: at each, the interpreter's lock is given away.
        values = [value for digest, data in pieces for value in (str(digest), now, data)]
        statement = _ADD.format(
            ", ".join(["(?, ?, ?)"] * len(pieces)), "came = excluded.came, data = excluded.data"
        )

        def add() -> None:
            with self._database.transaction(durable=durable) as db:
                db.execute(statement, values)

        self._mend()
        self._database.following(add)

    def remove(self, digest: Digest) -> float | None:
        """When it had come; None: it was not here, or nothing of it can be read. Its pages come
        free for other rows. Blocking; raises apsw.Error, OSError."""
        identity = None
        try:
            self._database.look()
            identity = self._database.identity
            if self.came(digest) is None:
                return None
            with self._database.transaction() as db:
                found = rows(db, "DELETE FROM small WHERE digest = ? RETURNING came", str(digest))
        except DAMAGED:
            self._damaged = identity
            return None
        return found[0][0] if found else None

    def give_back(self) -> None:
        """Gives the disk back what rows have left, but for a little. Blocking; raises OSError."""
        try:
            self._mend()
            self._database.look()
            with self._database.transaction() as db:
                [(free,)] = rows(db, "PRAGMA freelist_count")
                surplus = free - _SPARE // _PAGE
                if surplus <= 0:
                    return
                while surplus > 0:
                    db.execute(f"PRAGMA incremental_vacuum({min(surplus, _AT_ONCE)})").fetchall()
                    surplus -= _AT_ONCE
            self._database.checkpoint()
        except apsw.Error as error:  # a disk without room for the log, or somebody is writing
            log.warning("small_content_gives_nothing_back", reason=str(error))

    def forget_set_aside(self) -> None:
        """Removes a damaged database that has been set aside. Blocking; raises OSError."""
        self._database.remove_set_aside()

    def page(self, after: str, count: int) -> list[tuple[Digest, int]]:
        """Rows in the order of digests, after this one, with their sizes in bytes. Blocking; raises
        apsw.Error, OSError."""
        self._database.look()
        found = self._read(
            "SELECT digest, length(data) FROM small WHERE digest > ? ORDER BY digest LIMIT ?",
            after,
            count,
        )
        return [(Digest.parse(digest), size) for digest, size in found]

    def among(self, prefix: str) -> set[str]:
        """Digests that begin so. Blocking; raises apsw.Error, OSError."""
        self._database.look()
        return set(beginning_with(self._read, "small", prefix))

    # Inside.

    def _read(self, query: str, *values: str | float) -> Rows:
        identity = self._database.identity
        try:
            return self._database.read(query, *values)
        except DAMAGED:
            self._damaged = identity
            raise

    def _mend(self) -> None:
        """Begins anew where a read has found the file damaged."""
        damaged, self._damaged = self._damaged, None
        if damaged is not None:
            self._database.begin_anew(damaged)


def in_memory(row: bytes, digest: Digest, outcome: Outcome) -> ContentInMemory:
    """A row that is proven."""
    return ContentInMemory(row, Descriptor(OCTET_STREAM, digest, len(row)), outcome)
