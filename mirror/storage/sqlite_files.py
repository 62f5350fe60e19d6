"""SQLite files that several processes open: made, brought up to date, locked meanwhile, and set
aside and begun anew where they are of no use."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import structlog

from .owner import give, make, make_folder

log = structlog.get_logger()

Rows = list[tuple[Any, ...]]  # the schema says what is in them
Identity = tuple[int, int]  # device and inode

# The file is not what it was: every further use of it fails the same way.
DAMAGED = (apsw.CorruptError, apsw.NotADBError)

# The file may be good, but nothing can be done with it now: to set it aside would not help, or lose
# what is in it.
_NOT_THE_FILE = (apsw.BusyError, apsw.FullError, apsw.IOError, apsw.NoMemError)

LOG_BYTES = 4 << 20
"""To which a write-ahead log is cut back."""

_OPENING_LIMIT = 5.0  # seconds to wait for another process that opens the same database
_BUSY_READER_MS = 250
_MEMORY_BUSY_MS = 1000
_SUFFIXES = ("", "-wal", "-shm")  # of the files of one database
_NO_LOG = bytes((1, 1))  # in a database's header: written and read without a write-ahead log


class OtherVersion(apsw.Error):
    """A database of ours, but not one that this program reads."""


@dataclass(frozen=True, slots=True)
class Schema:
    """`versions`: what each version added to the one before, the first to nothing. `check` is done
    at each opening, within its transaction: it finds out whether the tables are of our shape.
    `begins`: what has to be set in a file that has nothing yet."""

    versions: Sequence[str]
    check: Callable[[apsw.Connection], object]
    begins: str = ""


class Connections:
    """Two on one database: a read never waits for a write. `identity` is None where the database
    is in the memory of this process alone. That for reading is opened when it is used first: of
    some databases it never is."""

    def __init__(
        self,
        writer: apsw.Connection,
        open_reader: Callable[[], apsw.Connection],
        identity: Identity | None,
    ) -> None:
        self.writer = writer
        self.identity = identity
        self._open_reader = open_reader
        self._reader: apsw.Connection | None = None

    @property
    def reader(self) -> apsw.Connection:
        """Not for several threads at once. Raises apsw.Error."""
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close(force=True)
        self.writer.close(force=True)


def rows(db: apsw.Connection, query: str, *values: Any) -> Rows:
    return db.execute(query, values).fetchall()


def open_file(
    path: Path, schema: Schema, busy_ms: int, damaged: Identity | None = None
) -> Connections:
    """Opens or makes the database. One that is of no use (it is none, or of another version, or the
    `damaged` one) is set aside and begun anew. A write waits for another process's for `busy_ms`
    milliseconds; with 0 nothing is waited for here.

    Raises apsw.Error, OSError where no file can be had, or somebody else has it locked.
    """
    make_folder(path.parent)
    path = path.parent.resolve() / path.name  # SQLITE_OPEN_NOFOLLOW minds links in parents too
    with opening(path, waits=busy_ms > 0):
        if damaged is not None and identity_of(path) == damaged:
            _set_aside(path, "damaged")
        try:
            return _open(path, schema, busy_ms)
        except _NOT_THE_FILE:
            raise
        except apsw.Error as error:
            if isinstance(error, apsw.CantOpenError) and stat.S_ISREG(path.lstat().st_mode):
                raise  # the files beside it cannot be made
            _set_aside(path, str(error))
        return _open(path, schema, busy_ms)


def open_copy(path: Path, schema: Schema) -> Connections:
    """A database in memory with what the one at `path` holds, as far as that can be read: for a
    file system that takes no writes, where SQLite cannot even open its write-ahead log. Where it
    cannot be brought up to date, the copy begins empty."""
    # As it is; else (there is no -shm, and none can be made) without what its log has, which is
    # nothing after a clean end.
    for how in ("mode=ro", "immutable=1"):
        copy = _in_memory()
        try:
            _copy(f"file:{quote(str(path))}?{how}", copy.writer)
            _bring_up_to_date(copy.writer, schema)
        except apsw.Error:
            copy.close()
            continue
        return copy
    empty = _in_memory()
    _bring_up_to_date(empty.writer, schema)
    return empty


def open_unwritable(path: Path, schema: Schema) -> Connections:
    """The database at `path` for reading alone, as `open_copy` where it may be too large for
    memory; each write raises apsw.ReadOnlyError. One that cannot be read is empty."""
    for how in ("mode=ro", "immutable=1"):
        with contextlib.suppress(apsw.Error):
            return _reading(f"file:{quote(str(path))}?{how}")
    empty = _in_memory()
    _bring_up_to_date(empty.writer, schema)
    empty.writer.execute("PRAGMA query_only = true")
    return empty


def identity_of(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class Patience:
    """How long the writes of a database wait for other processes': `busy_ms` milliseconds. Where
    that was not enough, somebody holds the database, and no write waits until one went through."""

    def __init__(self, busy_ms: int) -> None:
        self._busy_ms = busy_ms
        self._in_vain = False

    @contextlib.contextmanager
    def writing(self, db: apsw.Connection) -> Iterator[None]:
        """Lets BusyError through, by which it is known."""
        db.set_busy_timeout(0 if self._in_vain else self._busy_ms)
        try:
            yield
        except apsw.BusyError:
            self._in_vain = True
            raise
        self._in_vain = False


@contextlib.contextmanager
def opening(path: Path, *, waits: bool = True) -> Iterator[None]:
    """One process at a time: else one sets aside what the other has just begun.

    Raises OSError.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        give(lock, path.parent)
        deadline = time.monotonic() + (_OPENING_LIMIT if waits else 0)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _set_aside(path: Path, reason: str) -> None:
    """Renames the database to `….aside`, in place of an earlier one."""
    log.warning("database_set_aside", path=str(path), aside=f"{path}.aside", reason=reason)
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.aside{suffix}")


def remove_set_aside(path: Path) -> None:
    """What was set aside of the database at `path`, if anything was. Raises OSError."""
    for suffix in _SUFFIXES:
        Path(f"{path}.aside{suffix}").unlink(missing_ok=True)


def _open(path: Path, schema: Schema, busy_ms: int) -> Connections:
    make(path)
    writer = _connect(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        writer.set_busy_timeout(busy_ms)
        writer.execute(schema.begins)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        _bring_up_to_date(writer, schema)
        return Connections(writer, functools.partial(_connect_reader, path), identity_of(path))
    except BaseException:
        writer.close()
        raise


def _connect_reader(path: Path) -> apsw.Connection:
    reader = _connect(path, apsw.SQLITE_OPEN_READONLY)
    reader.set_busy_timeout(_BUSY_READER_MS)
    return reader


def _connect(path: Path, mode: int) -> apsw.Connection:
    return apsw.Connection(str(path), flags=mode | apsw.SQLITE_OPEN_NOFOLLOW)


def _bring_up_to_date(db: apsw.Connection, schema: Schema) -> None:
    """Not a check of every page: what is damaged deep within is found when it is used."""
    db.execute("BEGIN IMMEDIATE")  # also proves that no other process holds the file for good
    [(version,)] = rows(db, "PRAGMA user_version")
    if not isinstance(version, int) or not 0 <= version <= len(schema.versions):
        raise OtherVersion(f"made by another version of this program ({version})")
    for step in schema.versions[version:]:
        db.execute(step)
    if version < len(schema.versions):
        db.execute(f"PRAGMA user_version = {len(schema.versions)}")
    schema.check(db)
    db.execute("COMMIT")


def _reading(uri: str) -> Connections:
    """Raises apsw.Error."""

    def connect() -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(uri, flags=flags)
        connection.set_busy_timeout(_BUSY_READER_MS)
        # Tells why it cannot be read.
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        return connection

    return Connections(connect(), connect, None)


def _copy(uri: str, to: apsw.Connection) -> None:
    """Raises apsw.Error."""
    source = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        source.execute("SELECT 1 FROM sqlite_schema").fetchall()  # tells why it cannot be read
        content = source.serialize("main")
    finally:
        source.close()
    if not content:
        return
    image = apsw.Connection(":memory:")
    try:
        image.deserialize("main", content[:18] + _NO_LOG + content[20:])
        with to.backup("main", image, "main") as backup:
            backup.step()
    finally:
        image.close()


def _in_memory() -> Connections:
    """An empty database that ends with this process. Its name is what its two connections share."""
    uri = f"file:/{uuid.uuid4()}?vfs=memdb"
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE

    def connect() -> apsw.Connection:
        connection = apsw.Connection(uri, flags=flags)
        connection.set_busy_timeout(_MEMORY_BUSY_MS)
        return connection

    return Connections(connect(), connect, None)
