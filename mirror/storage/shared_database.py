"""A SQLite database that several processes share, and that outlives what happens to its file."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import apsw
import structlog

from ..clock import Clock
from .sqlite_files import (
    DAMAGED,
    LOG_BYTES,
    Connections,
    Identity,
    Patience,
    Rows,
    Schema,
    identity_of,
    open_copy,
    open_file,
    remove_set_aside,
    rows,
)

log = structlog.get_logger()

T = TypeVar("T")

AGAIN = 5.0
"""Seconds after which a database that could not be opened is tried again, by the next write."""


def beginning_with(read: Callable[..., Rows], table: str, prefix: str) -> Iterator[str]:
    """All digests of a table that begin so, in pages: other reads have their turn between them."""
    query = f"SELECT digest FROM {table} WHERE digest > ? AND digest < ? ORDER BY digest LIMIT 500"  # noqa: S608
    after, end = prefix, f"{prefix}g"  # behind each hexadecimal digit
    while page := read(query, after, end):
        for (digest,) in page:
            yield digest
        after = page[-1][0]


class SharedDatabase:
    """Opened after forking: a SQLite connection does not survive a fork.

    Where no file can be opened, what it holds is read into the memory of this process alone, until
    a write finds that it can be. A file that is found damaged in use is set aside and begun anew;
    one that another process has set aside is left for its successor.

    Each method may be called from any thread. Errors of the database (`apsw.Error`) are the
    caller's to survive.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        busy_ms: int,
        clock: Clock,
        *,
        what: str,
        instead: Callable[[Path, Schema], Connections] = open_copy,
    ) -> None:
        """Never fails. A write waits for other processes' for `busy_ms` milliseconds (see
        Patience). `what` it holds, in a word for the log: `index`, `tags` … `instead`: opens what
        there is where the file cannot be written."""
        self._path = path
        self._schema = schema
        self._busy_ms = busy_ms
        self._clock = clock
        self._what = what
        self._writing = threading.RLock()
        self._reading = threading.Lock()
        self.fault: apsw.Error | OSError | None = None
        """Why the file could not be opened."""
        self.forget_patience()
        try:
            self._open = open_file(path, schema, busy_ms)
        except (apsw.Error, OSError) as error:
            log.error("database_kept_in_memory_only", what=what, path=str(path), reason=str(error))
            self._open = instead(path, schema)
            self.fault = error
        self._again_at = clock.monotonic() + AGAIN

    @property
    def identity(self) -> Identity | None:
        """Of the file; None while the database is in memory."""
        return self._open.identity

    def forget_patience(self) -> None:
        """Lets the next write wait, whether the last one did so in vain or not."""
        self._patience = Patience(self._busy_ms)

    def open_for_reading(self) -> None:
        """Opens the connection for reading now: later there may be no descriptors left for it."""
        with contextlib.suppress(apsw.Error):
            self.read("SELECT 1 FROM sqlite_schema LIMIT 1")

    def read(self, query: str, *values: str | bytes | float) -> Rows:
        """By a connection of its own: in microseconds, whatever other threads do meanwhile."""
        with self._reading:
            return rows(self._open.reader, query, *values)

    def scan(self, query: str, *values: str | bytes | float) -> Rows:
        """As `read`, for what looks at many rows: by the connection for writing."""
        with self._writing:
            return rows(self._open.writer, query, *values)

    def snapshot(self, work: Callable[[apsw.Connection], T]) -> T:
        """What `work` reads, all of one moment. Reads wait for it."""
        with self._reading:
            db = self._open.reader
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.execute("ROLLBACK")

    def write(self, work: Callable[[apsw.Connection], T]) -> T:
        """Does `work` as one transaction: once more, on a new database, where the one that it was
        begun on is found damaged. Raises apsw.Error, OSError, and what `work` raises; then nothing
        is written."""

        def transact() -> T:
            with self.transaction() as db:
                return work(db)

        return self.following(transact)

    def following(self, work: Callable[[], T]) -> T:
        """Does `work`, which reads and writes here, on the database that others find under its
        name; once more, on a new one, where it is found damaged."""
        with self._writing:
            self.look()
            identity = self.identity
            try:
                return work()
            except DAMAGED:
                self.begin_anew(identity)
                return work()

    def begin_anew(self, damaged: Identity | None) -> None:
        """Sets this database aside, which was found damaged, unless it was begun anew meanwhile.
        Blocking; raises apsw.Error, OSError."""
        self._open_again(damaged, damaged=True)

    def remove_set_aside(self) -> None:
        """Blocking; raises OSError."""
        remove_set_aside(self._path)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[apsw.Connection]:
        """A transaction on the database as it is, with the connection to write by. `durable`: when
        it has ended it is on the disk, with all before it; else a moment later."""
        with self._writing:
            db = self._open.writer
            if durable:
                db.execute("PRAGMA synchronous = FULL")
            try:
                with self._patience.writing(db):
                    db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:  # a full disk may have ended it already
                    db.execute("ROLLBACK")
                if durable:
                    db.execute("PRAGMA synchronous = NORMAL")

    def look(self, *, now: bool = False) -> None:
        """Goes on with the file that is there by now, where this is in memory (tried every few
        seconds, or `now`), or is a file that others do not find any more. Blocking. Raises
        apsw.Error, OSError where a file was lost and none can be had."""
        if self.identity is not None:
            if identity_of(self._path) != self.identity:
                self._open_again(self.identity, damaged=False)
            return
        if not now and self._clock.monotonic() < self._again_at:
            return
        try:
            self._open_again(None, damaged=False)
        except (apsw.Error, OSError) as error:
            log.error("database_kept_in_memory_only", what=self._what, reason=str(error))
            self._again_at = self._clock.monotonic() + AGAIN
        else:
            self.fault = None
            log.info("database_opened_again", what=self._what)

    def cut_log(self) -> None:
        """Cuts the write-ahead log back, which grows as long as there is always a reader. Does
        nothing while another process reads or writes."""
        with contextlib.suppress(OSError, apsw.BusyError), self._writing:  # in memory there is none
            if os.stat(f"{self._path}-wal").st_size > LOG_BYTES:
                self._open.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def checkpoint(self) -> None:
        """Writes what the write-ahead log has into the database, whose file ends where it ends from
        then on; as far as nobody reads what was before. Raises apsw.Error."""
        with self._writing:
            self._open.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def close(self) -> None:
        with self._writing, self._reading:
            self._open.close()

    def _open_again(self, unwanted: Identity | None, damaged: bool) -> None:
        """In the place of the `unwanted` one; where another thread has done so, it is done."""
        with self._writing:
            if self.identity != unwanted:
                return
            # One that could not be opened before is not waited for again.
            busy_ms = 0 if unwanted is None else self._busy_ms
            opened = open_file(self._path, self._schema, busy_ms, unwanted if damaged else None)
            with self._reading:  # and not while the file is opened, which may take seconds
                before, self._open = self._open, opened
            before.close()
