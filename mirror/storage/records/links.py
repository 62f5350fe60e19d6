"""Which repositories have shown which digests: a SQLite database beside the content.

Local even where the tag memory is shared: a link is about content that is here. Losing it costs
one HEAD a digest and repository, and needs the upstream for it. So of too many those go first whose
content is not here, which needs the upstream anyway; and those of the repository that has most, so
that what is shown through one pushes out nothing of the others.
"""

from __future__ import annotations

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
from ..shares import ByRepository, surplus_of_repositories
from ..sqlite_files import AGAIN, OtherVersion, Patience, copied, opened

log = structlog.get_logger()

_VERSION = 2

# Repositories by number: their names, up to 255 characters long, are in each link only once.
_SCHEMA = """
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE links (digest BLOB NOT NULL, repository INTEGER NOT NULL, seen_at INTEGER NOT NULL,
    PRIMARY KEY (digest, repository)) WITHOUT ROWID;
CREATE INDEX links_of_repository ON links (repository, seen_at);
"""

# What a file of version 1 holds: the newest of it, within what opening it may take.
_FROM_1 = """
INSERT INTO repositories (name) SELECT DISTINCT repository FROM old;
INSERT INTO links SELECT old.digest, repositories.id, old.seen_at
    FROM old JOIN repositories ON repositories.name = old.repository
    ORDER BY old.seen_at DESC LIMIT 200000;
DROP TABLE old;
"""

_SEEN = """
SELECT seen_at FROM links JOIN repositories ON id = repository WHERE digest = ? AND name = ?
"""

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

    @classmethod
    def open(
        cls,
        path: Path,
        clock: Clock,
        is_here: Callable[[Digest], bool] = lambda digest: False,
        most_bytes: int = MOST_BYTES,
    ) -> LinkRecords:
        """Opens or makes the database. Never fails: one that is of no use is set aside, and where
        no file can be opened, what is in it is read into the memory of this process alone, until
        the disk allows more. `is_here` tells, on a thread, whether this content is in the store."""
        away = None
        try:
            writer, reader = _open_file(path, _BUSY_MS)
        except (apsw.Error, OSError) as error:
            log.error("links_kept_in_memory_only", path=str(path), reason=str(error))
            writer, reader = copied(path, _prepare)
            away = path
        return cls(writer, reader, clock, is_here, most_bytes, away)

    def __init__(
        self,
        writer: apsw.Connection,
        reader: apsw.Connection,
        clock: Clock,
        is_here: Callable[[Digest], bool],
        most_bytes: int,
        away: Path | None = None,
    ) -> None:
        """`away`: the file that could not be opened, in the place of which these are."""
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._is_here = is_here
        self._most_bytes = most_bytes
        self._away = away
        self._again_at = clock.monotonic() + AGAIN
        self._patience = Patience(_BUSY_MS)
        # When each was seen. The next addition that succeeds takes them along.
        self._unwritten: ByRepository[int] = ByRepository(_MOST_UNWRITTEN)
        self._added = 0
        self._well = True
        self._threads = Threads(1, "links")

    async def add(self, repository: Repository, digests: Sequence[Digest]) -> None:
        now = int(self._clock.wall())
        await self._write({f"{repository}:{digest.hex}": now for digest in digests})

    async def seen(self, repository: Repository, digest: Digest) -> float | None:
        row = self._unwritten.get(f"{repository}:{digest.hex}")
        if row is None:
            row = self._first(_SEEN, (_key(digest), str(repository)))
        return None if row is None else float(row)

    async def is_shown(self, digest: Digest) -> bool:
        if any(key.endswith(f":{digest.hex}") for key, _ in self._unwritten.items()):
            return True
        row = self._first("SELECT 1 FROM links WHERE digest = ? LIMIT 1", (_key(digest),))
        return row is not None

    async def close(self) -> None:
        if self._unwritten:
            # There is no later: this one waits, also for the workers that end together with it.
            self._patience = Patience(_BUSY_MS)
            await self._write({})
        await aside(self._threads.close)
        self._reader.close()
        self._writer.close()

    async def _write(self, new: Mapping[str, int]) -> None:
        """These, and what could not be written before, all by `repository:hex`."""
        late = dict(self._unwritten.items())
        try:
            await self._threads.run(self._add, {**late, **new})
        except (apsw.Error, RuntimeError) as error:  # RuntimeError: it was closed
            for key, seen_at in new.items():
                self._unwritten[key] = seen_at
            self._failed(error)
            return
        for key, seen_at in late.items():
            if self._unwritten.get(key) == seen_at:
                self._unwritten.pop(key)

    def _first(self, query: str, values: tuple[bytes | str, ...]) -> int | None:
        try:
            for (value,) in self._reader.execute(query, values).fetchall():
                return value if isinstance(value, int) else None
        except apsw.Error as error:
            self._failed(error)
        return None

    # From here on: on the thread.

    def _open_again(self, path: Path) -> None:
        """Goes on with the file, if it can be opened by now."""
        if self._clock.monotonic() < self._again_at:
            return
        try:
            self._writer, self._reader = _open_file(path, busy_ms=0)
        except (apsw.Error, OSError):
            self._again_at = self._clock.monotonic() + AGAIN
        else:
            self._away = None

    def _add(self, links: Mapping[str, int]) -> None:
        if self._away is not None:
            self._open_again(self._away)
        rows: dict[str, list[tuple[bytes, int]]] = {}
        for key, seen_at in links.items():
            repository, _, digits = key.rpartition(":")
            rows.setdefault(repository, []).append((bytes.fromhex(digits), seen_at))
        with self._patience.writing(self._writer), self._writer:
            for repository, seen in rows.items():
                self._insert(repository, seen)
        before, self._added = self._added, self._added + len(links)
        if before // _TIDY_EVERY != self._added // _TIDY_EVERY:
            with contextlib.suppress(apsw.BusyError):  # the next one will do it
                self._tidy()
        self._well = True

    def _insert(self, repository: str, seen: Sequence[tuple[bytes, int]]) -> None:
        self._writer.execute("INSERT OR IGNORE INTO repositories (name) VALUES (?)", (repository,))
        [(number,)] = self._writer.execute(
            "SELECT id FROM repositories WHERE name = ?", (repository,)
        ).fetchall()
        self._writer.executemany(
            "INSERT OR REPLACE INTO links VALUES (?, ?, ?)",
            [(key, number, seen_at) for key, seen_at in seen],
        )

    def _tidy(self) -> None:
        used = _bytes_used(self._writer)
        if used <= self._most_bytes:
            return
        part = 1 - self._most_bytes / used + _TIDY_PART
        rows = self._writer.execute(
            "SELECT name, id, count(*) FROM links JOIN repositories ON id = repository GROUP BY id"
        ).fetchall()
        numbers = {str(name): number for name, number, _ in rows}
        counts = {str(name): int(count) for name, _, count in rows}  # type: ignore[arg-type]
        left = int(sum(counts.values()) * part)
        # Those who have most first; where that is not enough, whoever has any.
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
        self._writer.execute(
            "DELETE FROM repositories WHERE id NOT IN (SELECT repository FROM links)"
        )

    def _forget(self, repository: Any, keys: Sequence[bytes]) -> None:
        """A transaction of its own: in one with the search for them, which looks at many files, it
        would fail (SQLITE_BUSY_SNAPSHOT) whenever another process has written meanwhile."""
        if keys:
            with self._writer:
                self._writer.executemany(
                    "DELETE FROM links WHERE digest = ? AND repository = ?",
                    [(key, repository) for key in keys],
                )

    def _oldest(self, repository: Any, is_here: bool) -> Iterator[bytes]:
        """Its links to what is in the store, or is not, the longest unseen first."""
        after: tuple[Any, ...] = (-1, b"")
        while True:
            rows = self._writer.execute(
                "SELECT seen_at, digest FROM links WHERE repository = ? "
                "AND (seen_at, digest) > (?, ?) ORDER BY seen_at, digest LIMIT ?",
                (repository, *after, _SLICE),
            ).fetchall()
            if not rows:
                return
            for _, key in rows:
                if isinstance(key, bytes) and self._is_here(_digest(key)) == is_here:
                    yield key
            after = rows[-1]

    def _failed(self, error: Exception) -> None:
        if self._well:  # said once, not by each pull
            log.warning("links_cannot_be_kept", reason=f"{type(error).__name__}: {error}")
        self._well = False


def _bytes_used(db: apsw.Connection) -> int:
    """Of the file; what was deleted is used again."""
    pages, unused, size = (
        int(db.pragma(name)) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - unused) * size


def _key(digest: Digest) -> bytes:
    """As bytes: half as long. The algorithms' lengths tell them apart."""
    return bytes.fromhex(digest.hex)


def _digest(key: bytes) -> Digest:
    return Digest("sha512" if len(key) == 64 else "sha256", key.hex())


def _open_file(path: Path, busy_ms: int) -> tuple[apsw.Connection, apsw.Connection]:
    """To write and to read. Raises apsw.Error, OSError."""
    writer = opened(path, _prepare, busy_ms)
    return writer, apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)


def _prepare(db: apsw.Connection) -> None:
    """Makes the tables, or brings them up to date."""
    db.execute("BEGIN IMMEDIATE")
    [(version,)] = db.execute("PRAGMA user_version").fetchall()
    if version == 1:
        db.execute("DROP INDEX links_by_age; ALTER TABLE links RENAME TO old")
    elif version not in (0, _VERSION):
        raise OtherVersion(f"made by another version of this program ({version})")
    if version != _VERSION:
        db.execute(_SCHEMA)
        db.execute(_FROM_1 if version == 1 else "")
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")
    if version == 1:
        db.execute("VACUUM")
    db.execute(_SEEN, (b"", "")).fetchall()
