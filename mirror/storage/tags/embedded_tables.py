"""The tables under the embedded tag memory: what is written to them, and read from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import apsw

from ...contracts.tags import TagEvent, TagRecord
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ..shares import surplus_of_repositories
from ..sqlite_files import Rows, Schema, rows
from .encoding import encode
from .history_bounds import KEPT, MOST, MOST_FORGOTTEN, names_of_forgotten

_VERSIONS = (
    """
CREATE TABLE tags (key TEXT PRIMARY KEY, record BLOB NOT NULL, expires_at REAL NOT NULL)
    WITHOUT ROWID;
CREATE INDEX tags_by_expiry ON tags (expires_at);
""",
    """
CREATE TABLE history (id INTEGER PRIMARY KEY, key TEXT NOT NULL, digest TEXT,
    first_seen REAL NOT NULL, last_seen REAL NOT NULL);
CREATE INDEX history_by_key ON history (key, id);
CREATE INDEX history_by_age ON history (last_seen);
CREATE TABLE frozen (key TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
""",
    # A key up to its last colon, behind which is the tag: `rtrim` takes off whatever is no colon.
    """
ALTER TABLE tags ADD COLUMN repository TEXT AS (rtrim(key, replace(key, ':', ''))) VIRTUAL;
ALTER TABLE history ADD COLUMN repository TEXT AS (rtrim(key, replace(key, ':', ''))) VIRTUAL;
CREATE INDEX tags_of_repository ON tags (repository, expires_at);
CREATE INDEX history_of_repository ON history (repository, last_seen);
CREATE TABLE forgotten (name TEXT PRIMARY KEY, forgotten_at REAL NOT NULL) WITHOUT ROWID;
""",
)

_SAID_AGAIN = """
UPDATE history SET first_seen = min(first_seen, :at), last_seen = :at
WHERE id = (SELECT max(id) FROM history WHERE key = :key) AND digest IS :said
"""

# `IS NOT` takes NULL for a value, and a history that is not there for NULL.
_SAID_ANEW = """
INSERT INTO history (key, digest, first_seen, last_seen) SELECT :key, :said, :at, :at
WHERE (SELECT digest FROM history WHERE key = :key ORDER BY id DESC LIMIT 1) IS NOT :said
"""

_NO_MORE_THAN_MOST = """
DELETE FROM history WHERE key = :key AND id <=
    (SELECT id FROM history WHERE key = :key ORDER BY id DESC LIMIT 1 OFFSET :most)
"""

Read = Callable[..., Rows]
"""`read` or `scan` of a SharedDatabase."""


def put(db: apsw.Connection, key: str, record: TagRecord, expires_at: float) -> None:
    """Remembers the record, and notes in the history what it says."""
    db.execute(
        "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (key, encode(key, record), expires_at)
    )
    said = None if record.descriptor is None else str(record.descriptor.digest)
    names = {"key": key, "said": said, "at": record.checked_at, "most": MOST}
    db.execute(_SAID_AGAIN, names)
    db.execute(_SAID_ANEW, names)
    if db.changes():
        db.execute(_NO_MORE_THAN_MOST, names)


def delete(db: apsw.Connection, key: str) -> None:
    db.execute("DELETE FROM tags WHERE key = ?", (key,))


def freeze(db: apsw.Connection, key: str, digest: Digest) -> None:
    db.execute("INSERT OR REPLACE INTO frozen VALUES (?, ?)", (key, str(digest)))


def unfreeze(db: apsw.Connection, key: str) -> bool:
    return bool(rows(db, "DELETE FROM frozen WHERE key = ? RETURNING 1", key))


def tidy(db: apsw.Connection, now: float, max_rows: int, batch: int) -> None:
    """Removes of each table at most `batch` rows that are over, and as many of those beyond
    `max_rows`: of the repositories that have most, those that would end first. Where that is
    history, it is noted that there was more."""
    for table, row, end, over in (
        ("tags", "key", "expires_at", now),
        ("history", "id", "last_seen", now - KEPT),
    ):
        db.execute(
            f"DELETE FROM {table} WHERE {row} IN "  # noqa: S608 (all words of ours)
            f"(SELECT {row} FROM {table} WHERE {end} <= ? ORDER BY {end} LIMIT ?)",
            (over, batch),
        )
        for repository, count in _too_many(db, table, end, max_rows, batch).items():
            db.execute(
                f"DELETE FROM {table} WHERE {row} IN (SELECT {row} FROM {table} "  # noqa: S608
                f"WHERE repository = ? ORDER BY {end} LIMIT ?)",
                (repository, count),
            )
            if table == "history":
                _note_forgotten(db, repository, now)
    db.execute("DELETE FROM forgotten WHERE forgotten_at <= ?", (now - KEPT,))


def _too_many(
    db: apsw.Connection, table: str, end: str, max_rows: int, batch: int
) -> Mapping[str, int]:
    """How many rows each repository has to give up."""
    [(count,)] = rows(db, f"SELECT count(*) FROM {table}")  # noqa: S608
    if count <= max_rows:
        return {}
    counts = {
        str(repository): int(number)
        for repository, number in db.execute(
            # Of those that have equally many, those give up that would end first.
            f"SELECT repository, count(*) FROM {table} GROUP BY repository "  # noqa: S608
            f"ORDER BY max({end}) DESC"
        )
    }
    return surplus_of_repositories(counts, min(batch, count - max_rows))


def _note_forgotten(db: apsw.Connection, repository: str, now: float) -> None:
    names = names_of_forgotten(repository)
    [(count,)] = rows(db, "SELECT count(*) FROM forgotten")
    known = rows(db, "SELECT 1 FROM forgotten WHERE name = ?", names[0])
    name = names[0] if known or count < MOST_FORGOTTEN else names[1]
    db.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", (name, now))


def record_of(read: Read, key: str, now: float) -> bytes | None:
    for (record,) in read("SELECT record FROM tags WHERE key = ? AND expires_at > ?", key, now):
        return bytes(record) if isinstance(record, bytes) else b""
    return None


def records_after(read: Read, after: str, now: float, limit: int) -> list[tuple[str, bytes]]:
    """Keys and their records, in the order of keys. Not in microseconds: those that are over and
    not yet removed are passed by."""
    select = "SELECT key, record FROM tags WHERE key > ? AND expires_at > ? ORDER BY key LIMIT ?"
    return [
        (str(key), bytes(record) if isinstance(record, bytes) else b"")
        for key, record in read(select, after, now, limit)
    ]


def history_of(read: Read, key: str) -> tuple[TagEvent, ...]:
    select = "SELECT digest, first_seen, last_seen FROM history WHERE key = ? ORDER BY id DESC"
    return tuple(event for row in read(select, key) if (event := _event(*row)) is not None)


def has_forgotten(read: Read, repository: str) -> bool:
    """`repository` as in a key, up to its last colon."""
    select = "SELECT 1 FROM forgotten WHERE name IN (?, ?) LIMIT 1"
    return bool(read(select, *names_of_forgotten(repository)))


def frozen_of(read: Read, key: str) -> Digest | None:
    for (digest,) in read("SELECT digest FROM frozen WHERE key = ?", key):
        with contextlib.suppress(DigestInvalid):
            return Digest.parse(str(digest))
    return None


def _event(digest: object, first_seen: object, last_seen: object) -> TagEvent | None:
    """None for what is none of ours."""
    if not (isinstance(first_seen, float) and isinstance(last_seen, float)):
        return None
    try:
        return TagEvent(
            None if digest is None else Digest.parse(str(digest)), first_seen, last_seen
        )
    except DigestInvalid:
        return None


def _check(db: apsw.Connection) -> None:
    """The tables are there, and of our shape."""

    def read(query: str, *values: object) -> Rows:
        return rows(db, query, *values)

    record_of(read, "", 0.0)
    history_of(read, "")
    frozen_of(read, "")
    has_forgotten(read, "")


SCHEMA = Schema(_VERSIONS, _check)
