"""The file under the embedded tag memory: made, checked, set aside when it is of no use.

Nothing here is for the event loop, but for the reads (`record_of` and its like).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import apsw

from ...contracts.tags import TagEvent, TagRecord
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ..owner import make, make_folder
from ..shares import surplus_of_repositories
from ..sqlite_files import copied, opening, set_aside
from .encoding import encode
from .history_bounds import KEPT, MOST, MOST_FORGOTTEN, names_of_forgotten

# What each version added to the one before: a file of an older one is brought up to date.
_SCHEMAS = (
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

_VERSION = len(_SCHEMAS)

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

BUSY_MS = 1000
"""Milliseconds that a write waits for another process's (see Patience): above the fsync of a busy
disk, and below what a pull would notice as a hang."""

# The write-ahead log is cut back beyond this. It grows while somebody reads all the time.
_MAX_LOG_BYTES = 4 << 20

# The file is not what it was: every further use of it fails the same way.
DAMAGED = (apsw.CorruptError, apsw.NotADBError)

# The file may be good, but nothing can be done with it now: to set it aside would not help.
_NOT_THE_FILE = (apsw.FullError, apsw.IOError, apsw.NoMemError)


class _Unusable(apsw.Error):
    """A database, but none that this program can use."""


@dataclass(frozen=True, slots=True)
class TagDatabase:
    """Two connections on one database: the event loop's never waits for the thread's."""

    reader: apsw.Connection
    writer: apsw.Connection
    identity: tuple[int, int] | None  # device and inode; None in memory

    def is_at(self, path: Path) -> bool:
        """Whether this is the database that others find under the name."""
        return self.identity == _identity(path)

    def put(self, key: str, record: TagRecord, expires_at: float) -> None:
        """Remembers the record, then notes in the history what it says. Between the two a crash
        costs an event that is noted with the next record."""
        self.writer.execute(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (key, encode(key, record), expires_at)
        )
        said = None if record.descriptor is None else str(record.descriptor.digest)
        names = {"key": key, "said": said, "at": record.checked_at, "most": MOST}
        # One statement or the other, each of one piece: another process may note meanwhile.
        self.writer.execute(_SAID_AGAIN, names)
        self.writer.execute(_SAID_ANEW, names)
        if self.writer.changes():
            self.writer.execute(_NO_MORE_THAN_MOST, names)

    def delete(self, key: str) -> None:
        self.writer.execute("DELETE FROM tags WHERE key = ?", (key,))

    def freeze(self, key: str, digest: Digest) -> None:
        self.writer.execute("INSERT OR REPLACE INTO frozen VALUES (?, ?)", (key, str(digest)))

    def unfreeze(self, key: str) -> bool:
        deleted = "DELETE FROM frozen WHERE key = ? RETURNING 1"
        return bool(self.writer.execute(deleted, (key,)).fetchall())

    def tidy(self, now: float, max_rows: int, batch: int) -> None:
        """Removes of each table at most `batch` rows that are over, and as many of those beyond
        `max_rows`: of the repositories that have most, those that would end first. Where that is
        history, it is noted that there was more."""
        for table, row, end, over in (
            ("tags", "key", "expires_at", now),
            ("history", "id", "last_seen", now - KEPT),
        ):
            self.writer.execute(
                f"DELETE FROM {table} WHERE {row} IN "  # noqa: S608 (all words of ours)
                f"(SELECT {row} FROM {table} WHERE {end} <= ? ORDER BY {end} LIMIT ?)",
                (over, batch),
            )
            for repository, count in self._too_many(table, end, max_rows, batch).items():
                self.writer.execute(
                    f"DELETE FROM {table} WHERE {row} IN (SELECT {row} FROM {table} "  # noqa: S608
                    f"WHERE repository = ? ORDER BY {end} LIMIT ?)",
                    (repository, count),
                )
                if table == "history":
                    self._note_forgotten(repository, now)
        self.writer.execute("DELETE FROM forgotten WHERE forgotten_at <= ?", (now - KEPT,))
        with contextlib.suppress(FileNotFoundError):  # in memory there is none
            if os.stat(f"{self.writer.filename}-wal").st_size > _MAX_LOG_BYTES:
                self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _too_many(self, table: str, end: str, max_rows: int, batch: int) -> Mapping[str, int]:
        """How many rows each repository has to give up."""
        [(count,)] = self.writer.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
        if not isinstance(count, int) or count <= max_rows:
            return {}
        counts = {
            str(repository): int(rows)
            for repository, rows in self.writer.execute(
                # Of those that have equally many, those give up that would end first.
                f"SELECT repository, count(*) FROM {table} GROUP BY repository "  # noqa: S608
                f"ORDER BY max({end}) DESC"
            )
        }
        return surplus_of_repositories(counts, min(batch, count - max_rows))

    def _note_forgotten(self, repository: str, now: float) -> None:
        names = names_of_forgotten(repository)
        [(count,)] = self.writer.execute("SELECT count(*) FROM forgotten").fetchall()
        known = self.writer.execute("SELECT 1 FROM forgotten WHERE name = ?", names[:1]).fetchall()
        room = known or (isinstance(count, int) and count < MOST_FORGOTTEN)
        name = names[0] if room else names[1]
        self.writer.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", (name, now))

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


# Reads take microseconds. By a database's `reader` they raise BusyError rather than wait.


def record_of(connection: apsw.Connection, key: str, now: float) -> bytes | None:
    select = "SELECT record FROM tags WHERE key = ? AND expires_at > ?"
    for (record,) in connection.execute(select, (key, now)).fetchall():
        return bytes(record) if isinstance(record, bytes) else b""
    return None


def records_after(
    connection: apsw.Connection, after: str, now: float, limit: int
) -> list[tuple[str, bytes]]:
    """Keys and their records, in the order of keys. Not in microseconds: those that are over and
    not yet removed are passed by."""
    select = "SELECT key, record FROM tags WHERE key > ? AND expires_at > ? ORDER BY key LIMIT ?"
    found = connection.execute(select, (after, now, limit)).fetchall()
    return [
        (str(key), bytes(record) if isinstance(record, bytes) else b"") for key, record in found
    ]


def history_of(connection: apsw.Connection, key: str) -> tuple[TagEvent, ...]:
    select = "SELECT digest, first_seen, last_seen FROM history WHERE key = ? ORDER BY id DESC"
    rows = connection.execute(select, (key,)).fetchall()
    return tuple(event for row in rows if (event := _event(*row)) is not None)


def has_forgotten(connection: apsw.Connection, repository: str) -> bool:
    """`repository` as in a key, up to its last colon."""
    names = names_of_forgotten(repository)
    select = "SELECT 1 FROM forgotten WHERE name IN (?, ?) LIMIT 1"
    return bool(connection.execute(select, names).fetchall())


def frozen_of(connection: apsw.Connection, key: str) -> Digest | None:
    for (digest,) in connection.execute(
        "SELECT digest FROM frozen WHERE key = ?", (key,)
    ).fetchall():
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


def open_or_begin_anew(path: Path, damaged: TagDatabase | None = None) -> TagDatabase:
    """The database at `path`, made if there is none, begun anew if it is of no use.

    `damaged` is a database that was found so in use: it is not tried again. Raises apsw.Error or
    OSError when no file can be had there.
    """
    make_folder(path.parent)
    path = path.parent.resolve() / path.name  # SQLITE_OPEN_NOFOLLOW minds links in parents too
    with opening(path):
        if damaged is not None and damaged.is_at(path):
            set_aside(path, "damaged")
        try:
            return _open(path)
        except _NOT_THE_FILE:
            raise
        except apsw.Error as error:
            if isinstance(error, apsw.CantOpenError) and stat.S_ISREG(path.lstat().st_mode):
                raise  # the files beside it cannot be made
            set_aside(path, str(error))
            return _open(path)


def in_memory(path: Path) -> TagDatabase:
    """A database that ends with this process, with what the one at `path` holds, as far as that can
    be read."""
    writer, reader = copied(path, _bring_up_to_date)
    return TagDatabase(reader, writer, None)


def _open(path: Path) -> TagDatabase:
    make(path)
    writer = _connect(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        _prepare(writer)
        database = TagDatabase(_connect(path, apsw.SQLITE_OPEN_READONLY), writer, _identity(path))
        record_of(database.reader, "", 0.0)  # the tables are there, and of our shape
        history_of(database.reader, "")
        frozen_of(database.reader, "")
        has_forgotten(database.reader, "")
    except Exception:
        writer.close()
        raise
    return database


def _prepare(writer: apsw.Connection) -> None:
    """Not a check of every page: what is damaged deep within is found when it is used."""
    writer.set_busy_timeout(BUSY_MS)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA synchronous = NORMAL")
    writer.execute(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
    _bring_up_to_date(writer)


def _bring_up_to_date(writer: apsw.Connection) -> None:
    with contextlib.closing(writer.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")  # also proves that nobody holds the file for good
        version = cursor.execute("PRAGMA user_version").fetchall()[0][0]
        if not isinstance(version, int) or not 0 <= version <= _VERSION:
            raise _Unusable(f"made by another version of this program ({version})")
        for schema in _SCHEMAS[version:]:
            cursor.execute(schema)
        cursor.execute(f"PRAGMA user_version = {_VERSION}")
        cursor.execute("COMMIT")


def _connect(path: Path, mode: int) -> apsw.Connection:
    return apsw.Connection(str(path), flags=mode | apsw.SQLITE_OPEN_NOFOLLOW)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
