"""SQLite files that several processes open, and that are begun anew when they are of no use."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import apsw
import structlog

from .owner import give, make

log = structlog.get_logger()

AGAIN = 5.0
"""Seconds after which a database that could not be opened is tried again, by whoever needs it."""

_OPENING_LIMIT = 5.0  # seconds to wait for another process that opens the same database
_MEMORY_BUSY_MS = 1000
_LOG_BYTES = 4 << 20  # to which a write-ahead log is cut back
_NO_LOG = bytes((1, 1))  # in a database's header: written and read without a write-ahead log


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


def set_aside(path: Path, reason: str) -> None:
    """Renames the database to `….aside`, in place of an earlier one."""
    log.warning("database_set_aside", path=str(path), aside=f"{path}.aside", reason=reason)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.aside{suffix}")


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


class OtherVersion(apsw.Error):
    """A database of ours, but not one that this program reads."""


def opened(path: Path, prepare: Callable[[apsw.Connection], None], busy_ms: int) -> apsw.Connection:
    """Opens or makes the database at `path`, which is set aside and begun anew where it is of no
    use. `prepare` makes the tables, or brings them up to date; it raises OtherVersion. A write
    waits for another process's for `busy_ms` milliseconds; with 0 nothing is waited for here.

    Raises apsw.Error, OSError where no file can be had.
    """
    with opening(path, waits=busy_ms > 0):
        try:
            return _opened(path, prepare, busy_ms)
        except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError, OtherVersion) as error:
            set_aside(path, str(error))
            return _opened(path, prepare, busy_ms)


def _opened(
    path: Path, prepare: Callable[[apsw.Connection], None], busy_ms: int
) -> apsw.Connection:
    make(path)
    db = apsw.Connection(str(path))
    try:
        db.set_busy_timeout(busy_ms)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def copied(
    path: Path, prepare: Callable[[apsw.Connection], None]
) -> tuple[apsw.Connection, apsw.Connection]:
    """A database in memory with what the one at `path` holds, as far as that can be read: for a
    file system that takes no writes, where SQLite cannot even open its write-ahead log. To write
    and to read. `prepare` makes the tables, or brings them up to date; where it cannot, the copy
    begins empty."""
    # As it is; else (there is no -shm, and none can be made) without what its log has, which is
    # nothing after a clean end.
    for how in ("mode=ro", "immutable=1"):
        writer, reader = in_memory()
        try:
            _copy(f"file:{quote(str(path))}?{how}", writer)
            prepare(writer)
        except apsw.Error:
            reader.close()
            writer.close()
            continue
        return writer, reader
    writer, reader = in_memory()
    prepare(writer)
    return writer, reader


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


def in_memory() -> tuple[apsw.Connection, apsw.Connection]:
    """An empty database that ends with this process. Its name is what its two connections share."""
    uri = f"file:/{uuid.uuid4()}?vfs=memdb"
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    writer, reader = (apsw.Connection(uri, flags=flags) for _ in range(2))
    for connection in (writer, reader):
        connection.set_busy_timeout(_MEMORY_BUSY_MS)
    return writer, reader
