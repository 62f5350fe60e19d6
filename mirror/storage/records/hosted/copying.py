"""All hosted records as lines of JSON, which either engine gives and takes.

The first line says of which version they are; each other is a row, `[table, values]`, tables in an
order in which each refers to earlier ones only; the last one says how many rows there were, so that
a copy which was cut is known. Bytes are base64 within an object.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Generator, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, func, insert, literal_column, select, text

from ....contracts.hosted import CopyRefused
from ....threads import aside
from .database import Database, begin
from .tables import contents, metadata

_KIND = "hosted records"
_VERSION = "0001"  # of what a copy has: it may be older than that of the tables
_TOGETHER = 500  # rows in one statement, or one piece of a copy
_LONGEST = 64 << 20  # bytes of one line

_COPIED = [table for table in metadata.sorted_tables if table is not contents]
_TABLES = {table.name: table for table in _COPIED}


class RecordsCopy:
    """Copies of all records of one database (RecordCopies in contracts)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def dump(self) -> AsyncIterator[bytes]:
        """All records as of one moment, some lines at a time."""
        lines = await self._database.aside(_lines)
        try:
            while piece := await self._database.aside(lambda _: next(lines, b"")):
                yield piece
        finally:
            await aside(lines.close)

    async def restore(self, lines: AsyncIterator[bytes]) -> int:
        """Takes in a copy, whose bytes may be cut anywhere, where there are no records; how many
        rows it has. All of it, or nothing: raises CopyRefused."""
        taking = _Taking(self._database)
        try:
            await self._database.aside(taking.begin)
            async for piece in lines:
                await self._database.aside(partial(taking.take, piece))
            return await self._database.aside(taking.end)
        except BaseException:
            await aside(taking.give_up)
            raise


def _snapshot(database: Database) -> Connection:
    """A connection that sees the records as of now, whatever is written meanwhile."""
    connection = database.connect()
    if database.engine.dialect.name == "postgresql":
        return connection.execution_options(isolation_level="REPEATABLE READ")
    connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    connection.exec_driver_sql("BEGIN")
    return connection


def _lines(database: Database) -> Generator[bytes, None, None]:
    connection = _snapshot(database)
    # Begun here: in the moment of the call.
    connection.execute(select(func.count()).select_from(_TABLES["namespaces"])).scalar()
    return _written(connection)


def _written(connection: Connection) -> Generator[bytes, None, None]:
    total = 0
    try:
        yield _line({"kind": _KIND, "version": _VERSION})
        for table in _COPIED:
            streamed = connection.execution_options(yield_per=_TOGETHER)
            rows = streamed.execute(select(table).order_by(*table.primary_key.columns))
            for some in rows.mappings().partitions(_TOGETHER):
                total += len(some)
                yield b"".join(_line([table.name, _plain(row)]) for row in some)
        yield _line({"rows": total})
    finally:
        connection.invalidate()
        connection.close()


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _plain(row: Mapping[Any, Any]) -> dict[str, object]:
    return {
        str(name): {"base64": base64.b64encode(value).decode()}
        if isinstance(value, (bytes, memoryview))
        else value
        for name, value in row.items()
    }


class _Taking:
    """One copy on its way in, in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._rest = b""
        self._table: Table | None = None
        self._waiting: list[dict[str, object]] = []
        self._has_begun = False
        self._total = 0
        self._promised: int | None = None

    def begin(self, database: Database) -> None:
        self._connection = connection = database.connect()
        begin(connection)
        if database.engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        for table in _COPIED:
            if connection.execute(select(literal_column("1")).select_from(table).limit(1)).first():
                raise CopyRefused(
                    "there are records already: restore into an empty folder or database"
                )

    def take(self, piece: bytes, _: Database) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST:
            raise CopyRefused("this is no copy of hosted records: a line has no end")
        for line in lines:
            try:
                value = json.loads(line)
                self._take(value)
            except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
                raise CopyRefused(f"this is no copy of hosted records: {error}") from error

    def end(self, _: Database) -> int:
        self._flush()
        if self._rest or self._promised != self._total:
            raise CopyRefused("the copy is not whole: it ends before its last line")
        connection = self._opened()
        if connection.dialect.name == "postgresql":
            _count_on(connection)
        connection.commit()
        connection.close()
        self._connection = None
        return self._total

    def give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _opened(self) -> Connection:
        if self._connection is None:
            raise CopyRefused("the copy was given up")
        return self._connection

    def _take(self, value: Any) -> None:
        if not self._has_begun:
            if value["kind"] != _KIND:
                raise ValueError("its first line says something else")
            if value["version"] != _VERSION:
                raise CopyRefused(
                    f"the copy is of version {value['version']}, and this program takes "
                    f"{_VERSION}: restore it with the program that wrote it, then start this one"
                )
            self._has_begun = True
        elif isinstance(value, dict):
            self._promised = value["rows"]
        else:
            name, row = value
            table = _TABLES[name]
            if table is not self._table or len(self._waiting) >= _TOGETHER:
                self._flush()
                self._table = table
            self._waiting.append({column.name: _read(row[column.name]) for column in table.columns})
            self._total += 1

    def _flush(self) -> None:
        if self._table is not None and self._waiting:
            self._opened().execute(insert(self._table), self._waiting)
        self._waiting = []


def _read(value: Any) -> Any:
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value


def _count_on(connection: Connection) -> None:
    """Numbers that PostgreSQL gives from now on follow those that were taken in."""
    for table in _COPIED:
        column = table.autoincrement_column
        if column is not None:
            connection.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), "  # noqa: S608
                    f"(SELECT coalesce(max({column.name}), 1) FROM {table.name}))"
                )
            )
