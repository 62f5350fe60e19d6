"""Which repositories have shown which digests: a SQLite database beside the content.

Local even where the tag memory is shared: a link is about content that is here. Losing it costs
one HEAD a digest and repository, and needs the upstream for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import apsw
import structlog

from ..interfaces import Clock
from ..oci.digest import Digest
from ..oci.reference import Repository
from ..threads import Threads, aside
from .database_files import opening, set_aside

log = structlog.get_logger()

_VERSION = 1

_SCHEMA = f"""
CREATE TABLE links (digest BLOB NOT NULL, repository TEXT NOT NULL, seen_at INTEGER NOT NULL,
    PRIMARY KEY (digest, repository)) WITHOUT ROWID;
CREATE INDEX links_by_age ON links (seen_at);
PRAGMA user_version = {_VERSION};
"""

# Milliseconds that a write waits for another process's.
_BUSY_MS = 1000

# Rows beyond the bound are removed every so many additions, the longest unseen first.
_TIDY_EVERY = 1024


class LinkRecords:
    """Links (see interfaces). Several processes may share the file; open it after forking."""

    @classmethod
    def open(cls, path: Path, clock: Clock, max_rows: int = 1_000_000) -> LinkRecords:
        """Opens or makes the database. Never fails: one that is of no use is set aside, and where
        no file can be had, the memory is this process's alone."""
        try:
            with opening(path):
                try:
                    writer = _open(str(path))
                except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError, _OtherVersion) as error:
                    set_aside(path, str(error))
                    writer = _open(str(path))
            return cls(
                writer, apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY), clock, max_rows
            )
        except (apsw.Error, OSError) as error:
            log.warning("links kept in memory only", path=str(path), reason=str(error))
            writer = _open(":memory:")
            return cls(writer, writer, clock, max_rows)

    def __init__(
        self, writer: apsw.Connection, reader: apsw.Connection, clock: Clock, max_rows: int
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._max_rows = max_rows
        self._added = 0
        self._well = True
        self._threads = Threads(1, "links")

    async def add(self, repository: Repository, digests: Sequence[Digest]) -> None:
        now = int(self._clock.wall())
        rows = [(_key(digest), str(repository), now) for digest in digests]
        try:
            await self._threads.run(self._add, rows)
        except (apsw.Error, RuntimeError) as error:  # RuntimeError: it was closed
            self._failed(error)

    async def seen(self, repository: Repository, digest: Digest) -> float | None:
        row = self._first(
            "SELECT seen_at FROM links WHERE digest = ? AND repository = ?",
            (_key(digest), str(repository)),
        )
        return None if row is None else float(row)

    async def is_shown(self, digest: Digest) -> bool:
        row = self._first("SELECT 1 FROM links WHERE digest = ? LIMIT 1", (_key(digest),))
        return row is not None

    async def close(self) -> None:
        await aside(self._threads.close)
        self._reader.close()
        self._writer.close()

    def _first(self, query: str, values: tuple[bytes | str, ...]) -> int | None:
        try:
            for (value,) in self._reader.execute(query, values).fetchall():
                return value if isinstance(value, int) else None
        except apsw.Error as error:
            self._failed(error)
        return None

    def _add(self, rows: list[tuple[bytes, str, int]]) -> None:
        with self._writer:
            self._writer.executemany("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", rows)
        before, self._added = self._added, self._added + len(rows)
        if before // _TIDY_EVERY != self._added // _TIDY_EVERY:
            self._tidy()
        self._well = True

    def _tidy(self) -> None:
        with contextlib.suppress(apsw.BusyError):  # the next one will do it
            self._writer.execute(
                "DELETE FROM links WHERE (digest, repository) IN "
                "(SELECT digest, repository FROM links ORDER BY seen_at "
                "LIMIT max(0, (SELECT count(*) FROM links) - ?))",
                (self._max_rows,),
            )

    def _failed(self, error: Exception) -> None:
        if self._well:  # said once, not by each pull
            log.warning("links cannot be kept", reason=f"{type(error).__name__}: {error}")
        self._well = False


def _key(digest: Digest) -> bytes:
    """As bytes: half as long. The algorithms' lengths tell them apart."""
    return bytes.fromhex(digest.hex)


def _open(path: str) -> apsw.Connection:
    if path != ":memory:":
        with contextlib.suppress(FileExistsError):  # made here only for its mode
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    db = apsw.Connection(path)
    try:
        db.set_busy_timeout(_BUSY_MS)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.execute("BEGIN IMMEDIATE")
        [(version,)] = db.execute("PRAGMA user_version").fetchall()
        if version == 0:
            db.execute(_SCHEMA)
        elif version != _VERSION:
            raise _OtherVersion(f"made by another version of this program ({version})")
        db.execute("COMMIT")
        db.execute("SELECT digest, repository, seen_at FROM links LIMIT 1").fetchall()
    except BaseException:
        db.close()
        raise
    return db


class _OtherVersion(Exception):
    """A database of ours, but not one that this program reads."""
