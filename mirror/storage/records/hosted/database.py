"""A database of hosted records: connections, each for one thread, and what is done on them.

SQLite has one writer, a thread that takes all writes that wait into one transaction: so one sync of
the disk is for all of them. PostgreSQL has some, and each write is a transaction of its own.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from ....clock import Clock
from ....oci.errors import Unavailable
from ....threads import Threads, aside

log = structlog.get_logger()

T = TypeVar("T")
Work = Callable[..., T]  # its first parameter is the Connection

_MOST_WAITING = 2_000
"""Of reads, and of writes: what comes beyond them is refused at once."""

_MOST_TOGETHER = 64
"""Writes in one transaction."""

_TRIES = 3
"""Of a write that the database took back for another one's sake (see `_TAKEN_BACK`)."""

_TAKEN_BACK = ("40001", "40P01")
"""PostgreSQL's states for a serialization failure, and for a deadlock."""

BUSY_MS = 10_000
"""For which what is asked of SQLite waits for other processes."""

_BUSY = 10.0  # seconds, as of a write
_LOOK = 0.001

_AWAY = 1.0
"""Seconds for which a database that could not be reached is not asked again."""


def begin(connection: Connection) -> None:
    """A transaction that writes. (Not by an event of SQLAlchemy: with one, each statement costs
    a third more.)"""
    if connection.dialect.name != "sqlite":
        return
    connection.begin()
    raw: Any = connection.connection.dbapi_connection
    # SQLite's own wait grows to 100 ms a look: of several processes that write much, one is passed
    # over for seconds.
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        for _ in range(int(_BUSY / _LOOK)):
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
            time.sleep(_LOOK)
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # its error is SQLAlchemy's
    finally:
        raw.execute(f"PRAGMA busy_timeout = {BUSY_MS}")


class Database:
    """Raises Unavailable from all that is asked of it while the database cannot be had."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        readers: int,
        writers: int,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """`prepare` has to be done, and to have succeeded, before the first connection. It raises
        SQLAlchemyError."""
        self.engine = engine
        self._prepare = prepare
        self._preparing = threading.Lock()
        self.folder = Path(engine.url.database or "").parent  # of SQLite's file
        self._clock = clock
        self._reading = Threads(readers, "records_read")
        self._writing = Threads(writers, "records_write")
        self._together = engine.dialect.name == "sqlite"
        self._waiting: deque[_Write] = deque()
        self._asked = 0
        self._held = threading.local()
        self._open: list[_Held] = []
        self._away_until = 0.0
        self._well = True

    async def read(self, work: Work[T], *arguments: object) -> T:
        """What `work` returns, of statements that are each a transaction of its own."""
        return await self._ask(self._reading, self._read, work, arguments)

    async def write(self, work: Work[T], *arguments: object) -> T:
        """What `work` returns, when it is committed; where it raises, nothing of it is left."""
        if not self._together:
            return await self._ask(self._writing, self._write, work, arguments)
        write = _Write(work, arguments)
        self._waiting.append(write)
        try:
            result: T = await self._ask(self._writing, self._write_together, write)
            return result
        except BaseException:  # it was cancelled, or refused: it is not to be done by others' turns
            write.is_wanted = False
            raise

    async def aside(self, work: Callable[[Database], T]) -> T:
        """What `work` returns, which takes a connection of its own."""
        return await self._ask(self._reading, work, self)

    async def close(self) -> None:
        """When all that was asked for is done."""
        await aside(self._close)

    async def _ask(self, threads: Threads, work: Callable[..., T], *arguments: object) -> T:
        if self._asked >= _MOST_WAITING:
            raise Unavailable("too much is asked of the records at once", retry_after=1)
        self._asked += 1
        try:
            return await threads.run(work, *arguments)
        except DBAPIError as error:
            raise self._failed(error) from error
        except SQLAlchemyError as error:
            raise self._failed(error) from error
        except RuntimeError as error:
            raise Unavailable("the records are closed") from error
        finally:
            self._asked -= 1

    def _failed(self, error: SQLAlchemyError) -> Unavailable:
        # Not what was asked, which may hold secrets: only what the database said.
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        if self._well:  # told once, not by each ask
            log.warning("records_unavailable", reason=reason.strip())
        self._well = False
        return Unavailable("the records cannot be reached now", retry_after=1)

    # From here on: on the threads.

    def _read(self, work: Work[T], arguments: tuple[object, ...]) -> T:
        held = self._connected()
        try:
            try:
                return self._settled(work(held.reading(), *arguments))
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            held.drop()  # the database was begun anew, or the way to it
            return self._settled(work(held.reading(), *arguments))
        except BaseException:
            held.roll_back()
            raise

    def _write(self, work: Work[T], arguments: tuple[object, ...]) -> T:
        held = self._connected()
        tries = 0
        while True:
            tries += 1
            is_committing = False
            try:
                connection = held.writing()
                result = work(connection, *arguments)
                is_committing = True
                connection.commit()
                return self._settled(result)
            except DBAPIError as error:
                held.roll_back()
                lost = error.connection_invalidated and not is_committing
                taken_back = getattr(error.orig, "sqlstate", None) in _TAKEN_BACK
                if lost:
                    held.drop()
                if tries == _TRIES or not (lost or taken_back):
                    raise
            except BaseException:
                held.roll_back()
                raise

    def _write_together(self, write: _Write) -> Any:
        """The result of this write, which an earlier call may have made."""
        if not write.is_done:
            several: list[_Write] = []
            while self._waiting and len(several) < _MOST_TOGETHER:
                each = self._waiting.popleft()
                if each.is_wanted:
                    several.append(each)
            self._transact(several)
        if write.error is not None:
            raise write.error
        return write.result

    def _transact(self, several: list[_Write]) -> None:
        held = self._connected()
        try:
            connection = held.writing()
            for each in several:
                if len(several) == 1:
                    each.result = each.work(connection, *each.arguments)
                    continue
                savepoint = connection.begin_nested()
                try:
                    each.result = each.work(connection, *each.arguments)
                    savepoint.commit()
                except OperationalError:
                    raise  # also of all others: there is no room, or the file is damaged
                except Exception as error:
                    savepoint.rollback()
                    each.error = error
            connection.commit()
            self._settled(None)
        except Exception as error:
            held.roll_back()
            for each in several:
                each.error = each.error or error
        finally:
            for each in several:
                each.is_done = True

    def _settled(self, result: T) -> T:
        if not self._well:
            log.info("records_available")
            self._well = True
        return result

    def _connected(self) -> _Held:
        """This thread's."""
        held = getattr(self._held, "it", None)
        if held is None:
            held = self._held.it = _Held(self)
            self._open.append(held)
        return held

    def connect(self) -> Connection:
        """One more connection. Raises DBAPIError."""
        if self._clock.monotonic() < self._away_until:
            raise SQLAlchemyError("the database could not be reached a moment ago")
        try:
            with self._preparing:
                if self._prepare is not None:
                    self._prepare()
                    self._prepare = None
            return self.engine.connect()
        except SQLAlchemyError:
            self._away_until = self._clock.monotonic() + _AWAY
            raise

    def _close(self) -> None:
        self._reading.close()
        self._writing.close()
        for held in self._open:
            held.drop()
        self.engine.dispose()


class _Write:
    def __init__(self, work: Work[Any], arguments: tuple[object, ...]) -> None:
        self.work = work
        self.arguments = arguments
        self.is_wanted = True
        self.is_done = False
        self.result: Any = None
        self.error: Exception | None = None


class _Held:
    """The connection of one thread, made when it is needed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    def reading(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            )
        return self._connection

    def writing(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        begin(self._connection)
        return self._connection

    def roll_back(self) -> None:
        if self._connection is not None:
            try:
                self._connection.rollback()
            except SQLAlchemyError:
                self.drop()

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
            except SQLAlchemyError:
                pass
            finally:
                connection.close()
