"""The account of what is on the disk: sizes, last use, and who needs whom.

One SQLite database beside the content, shared by all workers. It is a memory, not the truth: the
files are. A row without a file is a miss; a file without a row is rehashed before it is trusted.
Losing the database loses the order of eviction, nothing else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog

from ..interfaces import Entry, StoreFull, Usage
from ..oci.digest import Digest
from ..threads import Threads, aside
from .coming import Coming
from .database_files import opening, set_aside

log = structlog.get_logger()

Rows = list[tuple[Any, ...]]  # the schema below says what is in them
Identity = tuple[int, int]

_VERSION = 1

# The file is not what it was: every further use of it fails the same way.
_DAMAGED = (apsw.CorruptError, apsw.NotADBError)

# `totals` is kept by triggers, so that no path through the code can forget to count.
# A content's rank is 0 for what refers to nothing, 1 for a manifest, 2 for an index: among equals
# in age, what needs others goes before what is needed.
_SCHEMA = """
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
CREATE TRIGGER content_in AFTER INSERT ON content BEGIN
    UPDATE totals SET bytes = bytes + new.size, entries = entries + 1; END;
CREATE TRIGGER content_out AFTER DELETE ON content BEGIN
    UPDATE totals SET bytes = bytes - old.size, entries = entries - 1;
    DELETE FROM needs WHERE parent = old.digest; END;
CREATE TRIGGER reserved_in AFTER INSERT ON reserved BEGIN
    UPDATE totals SET reserved = reserved + new.size; END;
CREATE TRIGGER reserved_change AFTER UPDATE ON reserved BEGIN
    UPDATE totals SET reserved = reserved - old.size + new.size; END;
CREATE TRIGGER reserved_out AFTER DELETE ON reserved BEGIN
    UPDATE totals SET reserved = reserved - old.size; END;
"""

# Also for a database made without it, which is good otherwise.
_FASTER = "CREATE INDEX IF NOT EXISTS needs_by_child ON needs (child)"

# Whoever is used, all that it needs is used with it, down to the layers: so a child is never older
# than a parent that stays, and evicting the oldest first never breaks an image that stays.
_TOUCH = """
WITH RECURSIVE used (digest) AS (
    VALUES (?2) UNION SELECT child FROM needs JOIN used ON parent = used.digest
)
UPDATE content SET used_at = ?1 WHERE used_at < ?1 AND digest IN (SELECT digest FROM used)
"""

_PINNED = """
WITH RECURSIVE pinned (digest) AS (
    SELECT digest FROM pins UNION SELECT child FROM needs JOIN pinned ON parent = pinned.digest
)
"""

_EVICTABLE = """
SELECT (SELECT bytes FROM totals) - coalesce(sum(size), 0) FROM content
WHERE digest IN (SELECT digest FROM pinned)
"""

_OLDEST = """
SELECT digest, size, used_at FROM content WHERE digest NOT IN (SELECT digest FROM pinned)
ORDER BY used_at, rank DESC LIMIT ?
"""

T = TypeVar("T")


class Index:
    """Not for the event loop, but for `size`, `is_needed`, `usage` and `oldest`, which are a few
    microseconds.

    Every method may be called from any thread. Errors of the database (`apsw.Error`) are the
    caller's to survive.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._path = path
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._writer, self._reader, self.identity = _open(path)

    def is_current(self, identity: Identity | None) -> bool:
        """Whether this is the database that others find under its name."""
        return _identity(self._path) == identity

    def open_again(self, unwanted: Identity | None, damaged: bool) -> None:
        """Goes on with the database that is at the path now, or begins one, in the place of the
        `unwanted`; where another thread has done so, it is done. `damaged`: it was found so in use,
        and is set aside if it is still there.

        Raises apsw.Error, OSError.
        """
        with self._lock, self._reading:
            if self.identity != unwanted:
                return
            old = self._writer, self._reader
            self._writer, self._reader, self.identity = _open(
                self._path, unwanted if damaged else None
            )
            for connection in old:
                connection.close(force=True)

    def close(self) -> None:
        with self._lock, self._reading:
            self._reader.close()
            self._writer.close()

    def size(self, digest: Digest) -> int | None:
        """The recorded size in bytes, None when there is no record."""
        rows = self._read("SELECT size FROM content WHERE digest = ?", str(digest))
        return rows[0][0] if rows else None

    def is_needed(self, digest: Digest) -> bool:
        """Whether any content that is recorded needs this."""
        return bool(self._read("SELECT 1 FROM needs WHERE child = ? LIMIT 1", str(digest)))

    def usage(self) -> Usage:
        [(content, entries, reserved)] = self._read("SELECT bytes, entries, reserved FROM totals")
        return Usage(content, entries, reserved, self.max_bytes)

    def entries(self, after: str = "", count: int = 500) -> list[Entry]:
        """A page of the content in the order of digests, for scans that must not hold a lock."""
        return _entries(
            self._read(
                "SELECT digest, size, used_at FROM content WHERE digest > ? "
                "ORDER BY digest LIMIT ?",
                after,
                count,
            )
        )

    def add(
        self,
        digest: Digest,
        size: int,
        now: float,
        needs: Sequence[Digest] = (),
        came: Coming | None = None,
    ) -> None:
        """Records content that is visible now; the reservation ends of what `came`."""
        with self._write() as db:
            _forget(db, digest, came or Coming(digest))
            _add(db, digest, size, now, needs)

    def admit(self, digest: Digest, size: int, now: float, needs: Sequence[Digest]) -> None:
        """As `add`, for content that will be visible in a moment: it needs no reservation.

        Raises StoreFull as `reserve`.
        """
        with self._write() as db:
            _forget(db, digest, Coming(digest))
            [(content, reserved)] = _rows(db, "SELECT bytes, reserved FROM totals")
            if content + reserved + size > self.max_bytes:
                raise StoreFull(content + reserved + size - self.max_bytes)
            _add(db, digest, size, now, needs)

    def remove(self, digest: Digest) -> None:
        with self._write() as db:
            db.execute("DELETE FROM content WHERE digest = ?", (str(digest),))

    def touch(self, uses: Iterable[tuple[Digest, float]]) -> None:
        """Notes when content, and with it all that it needs, was last used."""
        with self._write() as db:
            db.executemany(_TOUCH, [(when, str(digest)) for digest, when in uses])

    def reserve(self, coming: Coming, size: int, total: int | None) -> None:
        """Sets aside `size` bytes in all for what is coming, which will have `total` when whole.

        Raises StoreFull, with the bytes that are missing, when they do not fit beside what is
        there: evict, and ask again.
        """
        with self._write() as db:
            [(held,)] = _rows(
                db, "SELECT coalesce(max(size), 0) FROM reserved WHERE digest = ?", str(coming)
            )
            [(content, reserved)] = _rows(db, "SELECT bytes, reserved FROM totals")
            wanted = content + reserved - held + size
            if size > held and wanted > self.max_bytes:
                raise StoreFull(wanted - self.max_bytes)
            db.execute(
                "INSERT INTO reserved VALUES (?1, ?2, ?3) "
                "ON CONFLICT (digest) DO UPDATE SET size = ?2, total = coalesce(?3, total)",
                (str(coming), size, total),
            )

    def release(self, coming: Coming) -> None:
        """Gives a reservation back."""
        with self._write() as db:
            db.execute("DELETE FROM reserved WHERE digest = ?", (str(coming),))

    def announced(self, coming: Coming) -> int | None:
        """The size of the whole of what is being written, None when it is not known."""
        rows = self._read("SELECT total FROM reserved WHERE digest = ?", str(coming))
        return rows[0][0] if rows else None

    def reservations(self) -> list[Coming]:
        rows = self._read("SELECT digest FROM reserved")
        found = [Coming.named(*name.split(":", 1)) for (name,) in rows]
        return [coming for coming in found if coming is not None]

    def evictable(self) -> int:
        """Bytes of content that is not pinned."""
        [(size,)] = self._read(_PINNED + _EVICTABLE)
        return int(size)

    def oldest(self, count: int = 64) -> list[Entry]:
        """The least recently used content, what needs others before what is needed; without what
        is pinned."""
        return _entries(self._read(_PINNED + _OLDEST, count))

    def pin(self, name: str, digest: Digest | None) -> None:
        """Keeps this content, and all that it needs, whatever its age; in place of what was kept
        under this name. None: keeps nothing under it any more."""
        with self._write() as db:
            if digest is None:
                db.execute("DELETE FROM pins WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO pins VALUES (?, ?)", (name, str(digest)))

    def pins(self) -> dict[str, Digest]:
        rows = self._read("SELECT name, digest FROM pins")
        return {name: Digest.parse(digest) for name, digest in rows}

    def _read(self, query: str, *values: str | int) -> Rows:
        with self._reading:
            return _rows(self._reader, query, *values)

    @contextlib.contextmanager
    def _write(self) -> Iterator[apsw.Connection]:
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:  # a full disk may have ended it already
                    self._writer.execute("ROLLBACK")


class Ledger:
    """The index off the event loop, with its faults survived: the files are the truth."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._threads = Threads(1, "index")  # what is asked of it comes in the order asked

    async def ask(self, work: Callable[..., T], *arguments: object) -> T:
        """Raises what `work`, a method of the index, does. An index that is damaged, or was set
        aside by another process, is begun anew."""
        return await self._threads.run(self._work, work, *arguments)

    async def note(self, work: Callable[..., None], *arguments: object) -> None:
        """As `ask`, but the database's faults are only told."""
        await self._threads.run(self.note_here, work, *arguments)

    async def here(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs `work`, which sees to the database's faults itself, on the index's thread."""
        return await self._threads.run(work, *arguments)

    def note_here(self, work: Callable[..., None], *arguments: object) -> None:
        """As `note`, in this thread, which is not the event loop's. Blocking."""
        try:
            self._work(work, *arguments)
        except (apsw.Error, OSError) as error:
            log.warning("index does not take a record", reason=str(error))

    async def close(self) -> None:
        await aside(self._threads.close)
        self.index.close()

    def _work(self, work: Callable[..., T], *arguments: object) -> T:
        identity = self.index.identity
        if not self.index.is_current(identity):
            self.index.open_again(identity, damaged=False)
            identity = self.index.identity
        try:
            return work(*arguments)
        except _DAMAGED:
            self.index.open_again(identity, damaged=True)
            return work(*arguments)


def _rows(db: apsw.Connection, query: str, *values: str | int) -> Rows:
    return db.execute(query, values).fetchall()


def _forget(db: apsw.Connection, digest: Digest, came: Coming) -> None:
    db.execute("DELETE FROM reserved WHERE digest = ?", (str(came),))
    db.execute("DELETE FROM content WHERE digest = ?", (str(digest),))


def _add(
    db: apsw.Connection, digest: Digest, size: int, now: float, needs: Sequence[Digest]
) -> None:
    ranks = [
        rank
        for child in needs
        for (rank,) in _rows(db, "SELECT rank FROM content WHERE digest = ?", str(child))
    ]
    rank = 1 + max(ranks, default=0) if needs else 0
    db.execute("INSERT INTO content VALUES (?, ?, ?, ?)", (str(digest), size, now, rank))
    if needs:
        db.executemany(
            "INSERT OR IGNORE INTO needs VALUES (?, ?)", [(str(digest), str(c)) for c in needs]
        )
        # An index comes before its manifests, and ranks above them all the same.
        db.execute(
            "UPDATE content SET rank = max(rank, ?2) "
            "WHERE digest IN (SELECT parent FROM needs WHERE child = ?1)",
            (str(digest), rank + 1),
        )
        db.execute(_TOUCH, (now, str(digest)))


def _entries(rows: Rows) -> list[Entry]:
    return [Entry(Digest.parse(digest), size, used_at) for digest, size, used_at in rows]


def _open(
    path: Path, damaged: Identity | None = None
) -> tuple[apsw.Connection, apsw.Connection, Identity | None]:
    """Opens the database to write and to read, and tells which file it is. What is none of ours,
    or is the `damaged` one, is set aside and begun anew."""
    with opening(path):
        if damaged is not None and _identity(path) == damaged:
            set_aside(path, "damaged")
        try:
            writer = _prepared(path)
        except (*_DAMAGED, apsw.SQLError, _OtherVersion) as error:
            set_aside(path, str(error))
            writer = _prepared(path)
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        reader.set_busy_timeout(250)
        return writer, reader, _identity(path)


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepared(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    try:
        db.set_busy_timeout(5000)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.execute("BEGIN IMMEDIATE")
        [(version,)] = _rows(db, "PRAGMA user_version")
        if version == 0:
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise _OtherVersion(f"made by another version ({version})")
        db.execute(_FASTER)
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


class _OtherVersion(Exception):
    """A database of ours, but not one that this program reads."""
