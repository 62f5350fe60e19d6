"""The file under the embedded tag memory: made, checked, set aside when it is of no use.

Nothing here is for the event loop, but for `TagDatabase.read`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import apsw

from .database_files import opening, set_aside

_VERSION = 1

_SCHEMA = f"""
CREATE TABLE tags (key TEXT PRIMARY KEY, record BLOB NOT NULL, expires_at REAL NOT NULL)
    WITHOUT ROWID;
CREATE INDEX tags_by_expiry ON tags (expires_at);
PRAGMA user_version = {_VERSION};
"""

_SELECT = "SELECT record FROM tags WHERE key = ? AND expires_at > ?"

# Milliseconds that a write waits for another process's: above the fsync of a busy disk, and below
# what a pull would notice as a hang.
_BUSY_MS = 1000

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

    def read(self, key: str, now: float) -> bytes | None:
        """Microseconds. Raises BusyError at once rather than wait."""
        return _read(self.reader, key, now)

    def read_waiting(self, key: str, now: float) -> bytes | None:
        return _read(self.writer, key, now)

    def put(self, key: str, data: bytes, expires_at: float) -> None:
        self.writer.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (key, data, expires_at))

    def delete(self, key: str) -> None:
        self.writer.execute("DELETE FROM tags WHERE key = ?", (key,))

    def tidy(self, now: float, max_rows: int, batch: int) -> None:
        """Removes at most `batch` rows that are over, and as many of those beyond `max_rows`."""
        self.writer.execute(
            "DELETE FROM tags WHERE key IN "
            "(SELECT key FROM tags WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
            (now, batch),
        )
        self.writer.execute(
            "DELETE FROM tags WHERE key IN (SELECT key FROM tags ORDER BY expires_at "
            "LIMIT max(0, min(?, (SELECT count(*) FROM tags) - ?)))",
            (batch, max_rows),
        )
        with contextlib.suppress(FileNotFoundError):  # in memory there is none
            if os.stat(f"{self.writer.filename}-wal").st_size > _MAX_LOG_BYTES:
                self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


def open_or_begin_anew(path: Path, damaged: TagDatabase | None = None) -> TagDatabase:
    """The database at `path`, made if there is none, begun anew if it is of no use.

    `damaged` is a database that was found so in use: it is not tried again. Raises apsw.Error or
    OSError when no file can be had there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = path.parent.resolve() / path.name  # SQLITE_OPEN_NOFOLLOW minds links in parents too
    with opening(path):
        if damaged is not None and damaged.is_at(path):
            set_aside(path, "damaged")
        try:
            return _open(path)
        except _NOT_THE_FILE:
            raise
        except apsw.Error as error:
            set_aside(path, str(error))
            return _open(path)


def in_memory() -> TagDatabase:
    """A database that ends with this process. Its name is what its two connections share."""
    uri = f"file:/tags-{uuid.uuid4()}?vfs=memdb"
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    writer = apsw.Connection(uri, flags=flags)
    writer.set_busy_timeout(_BUSY_MS)
    writer.execute(_SCHEMA)
    return TagDatabase(apsw.Connection(uri, flags=flags), writer, None)


def _open(path: Path) -> TagDatabase:
    with contextlib.suppress(FileExistsError):
        # Made here only for its mode. One that is there must not be opened but by SQLite: closing
        # any descriptor of it would drop the locks that this process holds on it (POSIX fcntl).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    writer = _connect(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        _prepare(writer)
        database = TagDatabase(_connect(path, apsw.SQLITE_OPEN_READONLY), writer, _identity(path))
        database.read("", 0.0)  # the table is there, and of our shape
    except Exception:
        writer.close()
        raise
    return database


def _prepare(writer: apsw.Connection) -> None:
    """Not a check of every page: what is damaged deep within is found when it is used."""
    writer.set_busy_timeout(_BUSY_MS)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA synchronous = NORMAL")
    writer.execute(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
    with contextlib.closing(writer.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")  # also proves that nobody holds the file for good
        version = cursor.execute("PRAGMA user_version").fetchall()[0][0]
        if version == 0:
            cursor.execute(_SCHEMA)
        elif version != _VERSION:
            raise _Unusable(f"made by another version of this program ({version})")
        cursor.execute("COMMIT")


def _connect(path: Path, mode: int) -> apsw.Connection:
    return apsw.Connection(str(path), flags=mode | apsw.SQLITE_OPEN_NOFOLLOW)


def _read(connection: apsw.Connection, key: str, now: float) -> bytes | None:
    for (record,) in connection.execute(_SELECT, (key, now)).fetchall():
        return bytes(record) if isinstance(record, bytes) else b""
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
