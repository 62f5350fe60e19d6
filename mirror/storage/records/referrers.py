"""The lists of referrers that upstreams gave: a SQLite database beside the content.

Local even where the tag memory is shared: the signatures that a list names are kept here, too.
Losing it costs one ask a subject, and needs the upstream for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import apsw
import structlog

from ...clock import Clock
from ...contracts.records import ReferrerList
from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.reference import Repository
from ...threads import Threads, aside
from ..shared_database import SharedDatabase
from ..sqlite_files import Schema, rows

log = structlog.get_logger()

# `size` is what a row counts for. `body` is the last column: what is before it is read without it.
_TABLES = """
CREATE TABLE lists (id INTEGER PRIMARY KEY, registry TEXT NOT NULL, repository TEXT NOT NULL,
    subject TEXT NOT NULL, entries INTEGER NOT NULL, checked_at REAL NOT NULL,
    size INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (registry, repository, subject));
"""

_PUT = """
INSERT OR REPLACE INTO lists (registry, repository, subject, entries, checked_at, size, body)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_FIND = """
SELECT body, entries, checked_at FROM lists WHERE registry = ? AND repository = ? AND subject = ?
"""
_FORGET = "DELETE FROM lists WHERE registry = ? AND repository = ? AND subject = ?"

# Empty lists go first: of them there can be as many as there are digests. Then those that were not
# asked about for longest.
_TOO_MANY = """
DELETE FROM lists WHERE id IN (SELECT id FROM (
    SELECT id, sum(size) OVER ({partition} ORDER BY entries = 0, checked_at DESC, id
        ROWS UNBOUNDED PRECEDING) AS bytes FROM lists) WHERE bytes > ?)
"""

_ROW = 512  # bytes that a row counts for, besides its list

_SCHEMA = Schema((_TABLES,), lambda db: rows(db, _FIND, "", "", ""))

# Milliseconds that a write waits for another process's (see Patience).
_BUSY_MS = 1000


@dataclass(frozen=True, slots=True)
class ReferrerBounds:
    """In bytes: of one list, of all those of a repository, of a registry, and of all; and after how
    many that were written the oldest beyond these are removed."""

    one: int = 1 << 20
    repository: int = 4 << 20
    registry: int = 16 << 20
    total: int = 32 << 20
    tidy_every: int = 256 << 10


class ReferrerRecords:
    """ReferrerLists (see contracts). Several processes may share the file; each opens it."""

    def __init__(self, path: Path, clock: Clock, bounds: ReferrerBounds | None = None) -> None:
        """Opens or makes the database. Never fails (see SharedDatabase)."""
        self._database = SharedDatabase(path, _SCHEMA, _BUSY_MS, clock, what="referrers")
        self._bounds = bounds or ReferrerBounds()
        self._written = 0
        self._well = True
        self._threads = Threads(1, "referrers")

    async def get(self, repository: Repository, subject: Digest) -> ReferrerList | None:
        try:
            return await self._threads.run(self._get, repository, subject)
        except (apsw.Error, OSError, RuntimeError) as error:  # RuntimeError: it was closed
            self._failed(error)
            return None

    async def put(self, repository: Repository, subject: Digest, kept: ReferrerList) -> None:
        try:
            await self._threads.run(self._put, repository, subject, kept)
        except (apsw.Error, OSError, RuntimeError) as error:
            self._failed(error)

    async def remove(self, repository: Repository, subjects: Sequence[Digest]) -> None:
        keys = [_key(repository, subject) for subject in subjects]
        try:
            await self._threads.run(self._database.write, lambda db: db.executemany(_FORGET, keys))
        except (apsw.Error, OSError, RuntimeError) as error:
            self._failed(error)

    async def close(self) -> None:
        await aside(self._threads.close)
        self._database.close()

    def _failed(self, error: Exception) -> None:
        if self._well:  # said once, not by each ask
            log.warning("referrers_cannot_be_kept", reason=f"{type(error).__name__}: {error}")
        self._well = False

    # From here on: on the thread.

    def _get(self, repository: Repository, subject: Digest) -> ReferrerList | None:
        for body, entries, checked_at in self._database.scan(_FIND, *_key(repository, subject)):
            if (
                isinstance(body, bytes)
                and isinstance(entries, int)
                and isinstance(checked_at, float)
            ):
                return ReferrerList(body, entries, checked_at)
        return None

    def _put(self, repository: Repository, subject: Digest, kept: ReferrerList) -> None:
        key = _key(repository, subject)
        if len(kept.data) > self._bounds.one:
            log.info("referrers_not_kept", repository=str(repository), bytes=len(kept.data))
            self._database.write(lambda db: db.execute(_FORGET, key))
            return
        size = len(kept.data) + _ROW
        values = (*key, kept.count, kept.checked_at, size, kept.data)
        self._database.write(lambda db: db.execute(_PUT, values))
        self._written += size
        if self._written >= self._bounds.tidy_every:
            self._written = 0
            self._tidy()
        self._well = True

    def _tidy(self) -> None:
        with contextlib.suppress(apsw.BusyError):  # the next one will do it
            for partition, most in (
                ("PARTITION BY registry, repository", self._bounds.repository),
                ("PARTITION BY registry", self._bounds.registry),
                ("", self._bounds.total),
            ):
                with self._database.transaction() as db:
                    db.execute(_TOO_MANY.format(partition=partition), (most,))


def _key(repository: Repository, subject: Digest) -> tuple[str, str, str]:
    return repository.registry, repository.name, str(subject)
