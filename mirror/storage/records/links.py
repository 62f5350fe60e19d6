"""Which repositories have shown which digests: a SQLite database beside the content.

Local even where the tag memory is shared: a link is about content that is here. Losing it costs
one HEAD a digest and repository, and needs the upstream for it. So of too many those go first whose
content is not here, which needs the upstream anyway; and those of the repository that has most, so
that what is shown through one pushes out nothing of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import structlog

from ...clock import Clock
from ...oci.digest import Digest
from ...oci.reference import Repository
from ...threads import Threads, aside
from ..shared_database import SharedDatabase
from ..shares import ByRepository, surplus_of_repositories
from ..sqlite_files import Schema, rows

log = structlog.get_logger()

# What each version added to the one before. Repositories by number: their names, up to 255
# characters long, are in each link only once. Of a file of the first version comes the newest,
# within what opening it may take.
_VERSIONS = (
    """
CREATE TABLE links (digest BLOB NOT NULL, repository TEXT NOT NULL, seen_at INTEGER NOT NULL,
    PRIMARY KEY (digest, repository)) WITHOUT ROWID;
CREATE INDEX links_by_age ON links (seen_at);
""",
    """
DROP INDEX links_by_age;
ALTER TABLE links RENAME TO old;
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE links (digest BLOB NOT NULL, repository INTEGER NOT NULL, seen_at INTEGER NOT NULL,
    PRIMARY KEY (digest, repository)) WITHOUT ROWID;
CREATE INDEX links_of_repository ON links (repository, seen_at);
INSERT INTO repositories (name) SELECT DISTINCT repository FROM old;
INSERT INTO links SELECT old.digest, repositories.id, old.seen_at
    FROM old JOIN repositories ON repositories.name = old.repository
    ORDER BY old.seen_at DESC LIMIT 200000;
DROP TABLE old;
""",
)

_SEEN = """
SELECT seen_at FROM links JOIN repositories ON id = repository WHERE digest = ? AND name = ?
"""

_FORGET = """
DELETE FROM links WHERE digest = ? AND repository = (SELECT id FROM repositories WHERE name = ?)
"""

_SCHEMA = Schema(_VERSIONS, lambda db: rows(db, _SEEN, b"", ""))

# Milliseconds that a write waits for another process's (see Patience).
_BUSY_MS = 1000

_MOST_UNWRITTEN = 4096  # links that wait in memory for a file that takes none

MOST_BYTES = 64 << 20
"""Of one file, beside its journal: some 600,000 links."""

# The size is looked at every so many additions. When it is too much, this part more goes.
_TIDY_EVERY = 1024
_TIDY_PART = 1 / 16

_SLICE = 2000  # links that are read at once, to see which of them are of use here


class LinkRecords:
    """Links (see contracts). Several processes may share the file; open it after forking."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        is_here: Callable[[Digest], bool] = lambda digest: False,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Opens or makes the database. Never fails (see SharedDatabase). `is_here` tells, on a
        thread, whether this content is in the store."""
        self._database = SharedDatabase(path, _SCHEMA, _BUSY_MS, clock, what="links")
        self._database.open_for_reading()
        self._clock = clock
        self._is_here = is_here
        self._most_bytes = most_bytes
        # When each was seen. The next addition that succeeds takes them along.
        self._unwritten: ByRepository[int] = ByRepository(_MOST_UNWRITTEN)
        self._new: dict[str, int] = {}  # that are yet to be begun with
        self._next: asyncio.Future[None] | None = None
        self._last: asyncio.Future[None] | None = None
        self._added = 0
        self._well = True
        self._threads = Threads(1, "links")

    async def add(self, repository: Repository, digests: Sequence[Digest]) -> None:
        now = int(self._clock.wall())
        self._new |= {f"{repository}:{digest.hex}": now for digest in digests}
        # What comes while a transaction is written goes with the next.
        if self._next is None:
            self._next = asyncio.ensure_future(self._write_next(self._last))
        await asyncio.shield(self._next)

    async def remove(self, repository: Repository, digests: Sequence[Digest]) -> None:
        for digest in digests:
            self._unwritten.pop(f"{repository}:{digest.hex}")
        try:
            await self._threads.run(self._remove, repository, digests)
        except (apsw.Error, OSError, RuntimeError) as error:
            self._failed(error)

    async def seen(self, repository: Repository, digest: Digest) -> float | None:
        row = self._unwritten.get(f"{repository}:{digest.hex}")
        if row is None:
            row = self._first(_SEEN, (_key(digest), str(repository)))
        return None if row is None else float(row)

    async def seen_elsewhere(self, repository: Repository, digest: Digest) -> float | None:
        return None

    async def is_shown(self, digest: Digest) -> bool:
        if any(key.endswith(f":{digest.hex}") for key, _ in self._unwritten.items()):
            return True
        row = self._first("SELECT 1 FROM links WHERE digest = ? LIMIT 1", (_key(digest),))
        return row is not None

    async def close(self) -> None:
        await asyncio.gather(*filter(None, (self._last, self._next)))
        if self._unwritten:
            # There is no later: this one waits, also for the workers that end together with it.
            self._database.forget_patience()
            await self._write({})
        await aside(self._threads.close)
        self._database.close()

    async def _write_next(self, last: asyncio.Future[None] | None) -> None:
        if last is not None:
            await asyncio.wait([last])
        self._last, self._next = self._next, None
        new, self._new = self._new, {}
        await self._write(new)

    async def _write(self, new: Mapping[str, int]) -> None:
        """These, and what could not be written before, all by `repository:hex`."""
        late = dict(self._unwritten.items())
        try:
            await self._threads.run(self._add, {**late, **new})
        except (apsw.Error, OSError, RuntimeError) as error:  # RuntimeError: it was closed
            for key, seen_at in new.items():
                self._unwritten[key] = seen_at
            self._failed(error)
            return
        for key, seen_at in late.items():
            if self._unwritten.get(key) == seen_at:
                self._unwritten.pop(key)

    def _first(self, query: str, values: tuple[bytes | str, ...]) -> int | None:
        try:
            for (value,) in self._database.read(query, *values):
                return value if isinstance(value, int) else None
        except apsw.Error as error:
            self._failed(error)
        return None

    # From here on: on the thread.

    def _add(self, links: Mapping[str, int]) -> None:
        new: dict[str, list[tuple[bytes, int]]] = {}
        for key, seen_at in links.items():
            repository, _, digits = key.rpartition(":")
            new.setdefault(repository, []).append((bytes.fromhex(digits), seen_at))
        self._database.write(lambda db: _insert(db, new))
        before, self._added = self._added, self._added + len(links)
        if before // _TIDY_EVERY != self._added // _TIDY_EVERY:
            with contextlib.suppress(apsw.BusyError):  # the next one will do it
                self._tidy()
        self._well = True

    def _remove(self, repository: Repository, digests: Sequence[Digest]) -> None:
        keys = [(_key(digest), str(repository)) for digest in digests]
        for start in range(0, len(keys), _SLICE):
            with self._database.transaction() as db:
                db.executemany(_FORGET, keys[start : start + _SLICE])

    def _tidy(self) -> None:
        used = self._bytes_used()
        if used <= self._most_bytes:
            return
        part = 1 - self._most_bytes / used + _TIDY_PART
        found = self._database.scan(
            "SELECT name, id, count(*) FROM links JOIN repositories ON id = repository GROUP BY id"
        )
        numbers = {str(name): number for name, number, _ in found}
        counts = {str(name): int(count) for name, _, count in found}
        left = int(sum(counts.values()) * part)
        # The repositories that have most first; where that is not enough, all that have any.
        most_first = dict(sorted(counts.items(), key=lambda one: -one[1]))
        share = surplus_of_repositories(counts, left)
        for is_here, given in (
            (False, share),
            (False, most_first),
            (True, share),
            (True, most_first),
        ):
            for name, most in given.items():
                gone = list(islice(self._oldest(numbers[name], is_here), min(most, left)))
                self._forget(numbers[name], gone)
                left -= len(gone)
        with self._database.transaction() as db:
            db.execute("DELETE FROM repositories WHERE id NOT IN (SELECT repository FROM links)")

    def _forget(self, repository: Any, keys: Sequence[bytes]) -> None:
        """A transaction of its own: the search for them looks at many files, and other processes
        write meanwhile."""
        if keys:
            with self._database.transaction() as db:
                db.executemany(
                    "DELETE FROM links WHERE digest = ? AND repository = ?",
                    [(key, repository) for key in keys],
                )

    def _oldest(self, repository: Any, is_here: bool) -> Iterator[bytes]:
        """Its links to what is in the store, or is not, the longest unseen first."""
        after: tuple[Any, ...] = (-1, b"")
        while True:
            found = self._database.scan(
                "SELECT seen_at, digest FROM links WHERE repository = ? "
                "AND (seen_at, digest) > (?, ?) ORDER BY seen_at, digest LIMIT ?",
                repository,
                *after,
                _SLICE,
            )
            if not found:
                return
            for _, key in found:
                if isinstance(key, bytes) and self._is_here(_digest(key)) == is_here:
                    yield key
            after = found[-1]

    def _bytes_used(self) -> int:
        """Of the file; what was deleted is used again."""
        [(pages, unused, size)] = self._database.scan(
            "SELECT page_count, freelist_count, page_size "
            "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        return int((pages - unused) * size)

    def _failed(self, error: Exception) -> None:
        if self._well:  # said once, not by each pull
            log.warning("links_cannot_be_kept", reason=f"{type(error).__name__}: {error}")
        self._well = False


def _insert(db: apsw.Connection, links: Mapping[str, Sequence[tuple[bytes, int]]]) -> None:
    """Links by their repository."""
    for repository, seen in links.items():
        db.execute("INSERT OR IGNORE INTO repositories (name) VALUES (?)", (repository,))
        [(number,)] = rows(db, "SELECT id FROM repositories WHERE name = ?", repository)
        db.executemany(
            "INSERT OR REPLACE INTO links VALUES (?, ?, ?)",
            [(key, number, seen_at) for key, seen_at in seen],
        )


def _key(digest: Digest) -> bytes:
    """As bytes: half as long. The algorithms' lengths tell them apart."""
    return bytes.fromhex(digest.hex)


def _digest(key: bytes) -> Digest:
    return Digest("sha512" if len(key) == 64 else "sha256", key.hex())
