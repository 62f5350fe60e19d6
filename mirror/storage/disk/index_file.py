"""The database under the index: its tables, made and brought up to date, and opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import structlog

from ..owner import make
from ..sqlite_files import OtherVersion, copied, opening, set_aside

log = structlog.get_logger()

Rows = list[tuple[Any, ...]]  # the schema below says what is in them
Identity = tuple[int, int]  # device and inode

# The file is not what it was: every further use of it fails the same way.
DAMAGED = (apsw.CorruptError, apsw.NotADBError)

# What each version added to the one before: a file of an older one is brought up to date.
#
# `totals` is kept by triggers, so that no path through the code can forget to count. `block` is
# what the file system gives a file at least: sizes of content are counted in whole blocks.
# A content's rank is 0 for what refers to nothing, 1 for a manifest, 2 for an index: among equals
# in age, what needs others goes before what is needed. `guest`: see Index.
_SCHEMAS = (
    """
CREATE TABLE content (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used_at REAL NOT NULL, rank INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX content_by_use ON content (used_at, rank DESC);
CREATE TABLE needs (
    parent TEXT NOT NULL, child TEXT NOT NULL, PRIMARY KEY (parent, child)
) WITHOUT ROWID;
CREATE TABLE reserved (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, total INTEGER
) WITHOUT ROWID;
CREATE TABLE pins (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (bytes INTEGER NOT NULL, entries INTEGER NOT NULL, reserved INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
""",
    """
ALTER TABLE content ADD COLUMN guest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reserved ADD COLUMN guest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN block INTEGER NOT NULL DEFAULT 1;
ALTER TABLE totals ADD COLUMN guests INTEGER NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS needs_by_child ON needs (child);
CREATE INDEX guests_by_use ON content (used_at, rank DESC) WHERE guest;
DROP TRIGGER IF EXISTS content_in;
DROP TRIGGER IF EXISTS content_out;
DROP TRIGGER IF EXISTS reserved_in;
DROP TRIGGER IF EXISTS reserved_change;
DROP TRIGGER IF EXISTS reserved_out;
CREATE TRIGGER content_in AFTER INSERT ON content BEGIN
    UPDATE totals SET entries = entries + 1,
        bytes = bytes + (new.size + block - 1) / block * block,
        guests = guests + new.guest * ((new.size + block - 1) / block * block); END;
CREATE TRIGGER content_out AFTER DELETE ON content BEGIN
    UPDATE totals SET entries = entries - 1,
        bytes = bytes - (old.size + block - 1) / block * block,
        guests = guests - old.guest * ((old.size + block - 1) / block * block);
    DELETE FROM needs WHERE parent = old.digest; END;
CREATE TRIGGER reserved_in AFTER INSERT ON reserved BEGIN
    UPDATE totals SET reserved = reserved + new.size,
        guests = guests + new.guest * new.size; END;
CREATE TRIGGER reserved_change AFTER UPDATE ON reserved BEGIN
    UPDATE totals SET reserved = reserved - old.size + new.size,
        guests = guests - old.guest * old.size + new.guest * new.size; END;
CREATE TRIGGER reserved_out AFTER DELETE ON reserved BEGIN
    UPDATE totals SET reserved = reserved - old.size,
        guests = guests - old.guest * old.size; END;
""",
)

_VERSION = len(_SCHEMAS)

# Whenever the file system's block is not the one that was counted with: a new database, one of the
# first version, a store that was moved.
_COUNT_ANEW = """
UPDATE totals SET block = ?1,
    bytes = (SELECT coalesce(sum((size + ?1 - 1) / ?1 * ?1), 0) FROM content),
    guests = (SELECT coalesce(sum((size + ?1 - 1) / ?1 * ?1), 0) FROM content WHERE guest)
        + (SELECT coalesce(sum(size), 0) FROM reserved WHERE guest)
WHERE block <> ?1
"""

_BUSY_READER_MS = 250


@dataclass(frozen=True, slots=True)
class IndexFile:
    """Two connections on one database: who reads never waits for who writes. `identity` is None
    where it is in the memory of this process alone."""

    writer: apsw.Connection
    reader: apsw.Connection
    identity: Identity | None

    def close(self, *, force: bool = False) -> None:
        self.reader.close(force=force)
        self.writer.close(force=force)


def rows(db: apsw.Connection, query: str, *values: str | int | float) -> Rows:
    return db.execute(query, values).fetchall()


def open_file(path: Path, block: int, busy_ms: int, damaged: Identity | None = None) -> IndexFile:
    """Opens or makes the database. What is none of ours, or is the `damaged` one, is set aside and
    begun anew. A write waits for another process's for `busy_ms` milliseconds; with 0 nothing is
    waited for here.

    Raises apsw.Error, OSError.
    """
    with opening(path, waits=busy_ms > 0):
        if damaged is not None and identity_of(path) == damaged:
            set_aside(path, "damaged")
        try:
            writer = _prepared(path, block, busy_ms)
        except (*DAMAGED, apsw.SQLError, OtherVersion) as error:
            set_aside(path, str(error))
            writer = _prepared(path, block, busy_ms)
        try:
            reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            reader.set_busy_timeout(_BUSY_READER_MS)
            return IndexFile(writer, reader, identity_of(path))
        except BaseException:
            writer.close()
            raise


def open_copy(path: Path, block: int) -> IndexFile:
    """What the database holds, as far as it can be read, in memory."""
    writer, reader = copied(path, lambda db: _bring_up_to_date(db, block))
    return IndexFile(writer, reader, None)


def identity_of(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepared(path: Path, block: int, busy_ms: int) -> apsw.Connection:
    make(path)
    db = apsw.Connection(str(path))
    try:
        db.set_busy_timeout(busy_ms)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        _bring_up_to_date(db, block)
    except BaseException:
        db.close()
        raise
    return db


def _bring_up_to_date(db: apsw.Connection, block: int) -> None:
    """Raises OtherVersion for a database of a later one."""
    db.execute("BEGIN IMMEDIATE")  # also proves that nobody holds the file for good
    [(version,)] = rows(db, "PRAGMA user_version")
    if not isinstance(version, int) or not 0 <= version <= _VERSION:
        raise OtherVersion(f"made by another version ({version})")
    for schema in _SCHEMAS[version:]:
        db.execute(schema)
    if version < _VERSION:
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute(_COUNT_ANEW, (block,))
    db.execute("COMMIT")
