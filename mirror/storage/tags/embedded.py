"""The tag memory of one node: a SQLite database, shared by the workers of one machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw
import structlog

from ...clock import Clock
from ...contracts.events import TagStoreFailed
from ...contracts.tags import TagEvent, TagListing, TagRecord, TagStoreError
from ...events import Events
from ...oci.digest import Digest
from ...oci.reference import Repository
from ...threads import Threads
from ..shared_database import SharedDatabase
from ..sqlite_files import DAMAGED
from . import embedded_tables as tables
from .encoding import decode, known_tag, tag_key
from .health import Health

log = structlog.get_logger()

T = TypeVar("T")

# Milliseconds that a write waits for another process's (see Patience): above the fsync of a busy
# disk, and below what a pull would notice as a hang.
_BUSY_MS = 1000

# A write waits at most this long, in seconds: its turn on the thread and the database's lock.
_WRITE_LIMIT = 2.0

# However long a record is to be kept, it is forgotten within ten years: a bound for nonsense.
_LONGEST = 10 * 365 * 86400.0

# Rows beyond their time or number are removed every so many writes, so many at once: the removal
# outruns the growth, and no single one holds the database's lock for long.
_TIDY_EVERY = 256
_TIDY_ROWS = 512


class EmbeddedTags:
    """A TagStore in one file. Survives a restart and `kill -9`; several processes may share it.

    Reads are a few microseconds and made in place; writes may wait for another process, so they
    are made on one thread. Open it after forking: a SQLite connection does not survive a fork.

    Expiry is by the wall clock, since it outlives the process. A clock set back makes records live
    that much longer, set ahead that much shorter: their age is for the reader to judge.
    """

    def __init__(self, path: Path, clock: Clock, events: Events, max_rows: int = 200_000) -> None:
        """Opens or makes the database. Never fails (see SharedDatabase).

        Beyond `max_rows` those of the registry, and of its repository, that has most are forgotten,
        the oldest first; so is history, of which it is remembered that there was more.
        """
        self._database = SharedDatabase(path, tables.SCHEMA, _BUSY_MS, clock, what="tags")
        self._database.open_for_reading()
        self._clock = clock
        self._events = events
        self._max_rows = max_rows
        self._writes = 0
        self._reading = Health("embedded", "read", events)
        self._writing = Health("embedded", "write", events)
        self._threads = Threads(1, "tags")
        self._closed = False

    @property
    def fault(self) -> Exception | None:
        """Why it is not in the file."""
        return self._database.fault

    async def get(self, repository: Repository, tag: str) -> TagRecord | None:
        """The record, if there is one and its time is not over. Raises TagStoreError."""
        key = tag_key(repository, tag)
        now = self._clock.wall()
        data = await self._read(lambda read: tables.record_of(read, key, now))
        return None if data is None else decode(key, data)

    async def put(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        """Remembers for `keep_for` seconds; for none, forgets. Raises TagStoreError."""
        if not keep_for > 0:
            await self.delete(repository, tag)
            return
        key = tag_key(repository, tag)
        expires_at = self._clock.wall() + min(keep_for, _LONGEST)
        await self._write("put", lambda db: tables.put(db, key, record, expires_at))

    async def delete(self, repository: Repository, tag: str) -> None:
        """Forgets. Raises TagStoreError."""
        key = tag_key(repository, tag)
        await self._write("delete", lambda db: tables.delete(db, key))

    async def page(self, after: str, limit: int) -> TagListing:
        """In the order of keys, each of which is a marker. Raises TagStoreError."""
        now = self._clock.wall()
        found = await self._scan(lambda read: tables.records_after(read, after, now, limit))
        tags = [tag for key, data in found if (tag := known_tag(key, data)) is not None]
        return TagListing(tags, found[-1][0] if len(found) == limit else None)

    async def history(self, repository: Repository, tag: str) -> Sequence[TagEvent]:
        """The newest first. Raises TagStoreError."""
        key = tag_key(repository, tag)
        return await self._read(lambda read: tables.history_of(read, key))

    async def has_forgotten(self, repository: Repository) -> bool:
        """Raises TagStoreError."""
        name = tag_key(repository, "")
        return await self._read(lambda read: tables.has_forgotten(read, name))

    async def freeze(self, repository: Repository, tag: str, digest: Digest) -> None:
        """Raises TagStoreError."""
        key = tag_key(repository, tag)
        await self._write("put", lambda db: tables.freeze(db, key, digest))

    async def unfreeze(self, repository: Repository, tag: str) -> bool:
        """Raises TagStoreError."""
        key = tag_key(repository, tag)
        return await self._write("delete", lambda db: tables.unfreeze(db, key))

    async def frozen(self, repository: Repository, tag: str) -> Digest | None:
        """Raises TagStoreError."""
        key = tag_key(repository, tag)
        return await self._read(lambda read: tables.frozen_of(read, key))

    async def close(self) -> None:
        """Ends what was begun, then closes the file. May be called again."""
        if self._closed:
            return
        self._closed = True
        await self._threads.run(self._database.close)
        self._threads.leave()

    async def _read(self, read: Callable[[tables.Read], T]) -> T:
        if self._closed:
            raise TagStoreError("closed")
        identity = self._database.identity
        try:
            found = read(self._database.read)
        except apsw.BusyError:  # another process recovers the log: not to be waited for in place
            found = await self._scan(read)
        except DAMAGED:
            await self._on_thread("get", lambda: self._database.begin_anew(identity))
            found = await self._scan(read)
        except apsw.Error as error:
            raise self._failed("get", error) from error
        self._reading.worked()
        return found

    async def _scan(self, read: Callable[[tables.Read], T]) -> T:
        """By the connection for writing: the event loop's is not held by a long read."""
        database = self._database
        return await self._on_thread("get", lambda: database.following(lambda: read(database.scan)))

    async def _write(self, operation: str, work: Callable[[apsw.Connection], T]) -> T:
        done = await self._on_thread(operation, lambda: self._apply(work))
        self._writing.worked()
        return done

    async def _on_thread(self, operation: str, work: Callable[[], T]) -> T:
        if self._closed:
            raise TagStoreError("closed")
        try:
            async with asyncio.timeout(_WRITE_LIMIT):
                return await self._threads.run(work)
        except (apsw.Error, OSError) as error:  # a TimeoutError is an OSError
            raise self._failed(operation, error) from error

    def _failed(self, operation: str, error: Exception) -> TagStoreError:
        reason = type(error).__name__
        self._events.emit(TagStoreFailed("embedded", operation))
        (self._reading if operation == "get" else self._writing).failed(reason)
        return TagStoreError(f"the embedded tag store failed to {operation}: {reason}: {error}")

    # From here on: on the thread.

    def _apply(self, work: Callable[[apsw.Connection], T]) -> T:
        done = self._database.write(work)
        if self._writes % _TIDY_EVERY == 0:
            with contextlib.suppress(apsw.BusyError), self._database.transaction() as db:
                tables.tidy(db, self._clock.wall(), self._max_rows, _TIDY_ROWS)
            self._database.cut_log()
        self._writes += 1
        return done
