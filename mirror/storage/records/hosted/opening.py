"""Hosted records opened: the database found or made, and its tables brought up to date."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from ....clock import Clock
from ...owner import make, make_folder
from ...sqlite_files import opening
from .database import BUSY_MS, Database, begin

log = structlog.get_logger()

VERSION = "0002"
"""Of the tables that this program reads: the newest in migrations/versions."""

_FILE = "hosted.db"
_LOG_BYTES = 16 << 20
_CACHE_KIB = 8 << 10

_CONNECT = 5  # seconds
_STATEMENT_MS = 10_000
_LOCK_MS = 5_000
_IDLE_MS = 30_000
_MIGRATING_MS = 600_000
_LOCK = 0x6D6972726F72  # of PostgreSQL's advisory locks: whoever brings the tables up to date


class RecordsUnusable(Exception):
    """The records cannot be opened, in words for whoever runs the mirror."""


def open_in(folder: Path, clock: Clock, *, sync: bool = True) -> Database:
    """The database in this folder, made if there is none. Several processes may open it. With
    `sync` what was written is on the disk when a write returns. Blocking. Raises RecordsUnusable.
    """
    path = folder / _FILE
    try:
        make_folder(folder)
        with opening(path):
            make(path)
            engine = _sqlite(path, sync)
            try:
                _bring_up_to_date(engine, str(path))
            except SQLAlchemyError as error:
                raise _unusable(engine, str(path), error) from error
            except RecordsUnusable:
                engine.dispose()
                raise
    except OSError as error:
        raise RecordsUnusable(f"{path} cannot be opened: {error.strerror or error}") from error
    return Database(engine, clock, readers=2, writers=1)


def open_at(address: str, password: str | None, clock: Clock) -> Database:
    """The PostgreSQL database at `postgresql://user@host:port/database`, which has to exist. Where
    it cannot be reached now, it is opened when it can: a mirror starts without its engines.
    Blocking. Raises RecordsUnusable."""
    engine, shown = _engine_at(address, password)

    def later() -> None:
        try:
            _bring_up_to_date(engine, shown)
        except RecordsUnusable as error:
            raise SQLAlchemyError(str(error)) from error

    try:
        _bring_up_to_date(engine, shown)
    except OperationalError as error:
        log.warning("records_unavailable", database=shown, reason=str(error.orig).strip())
        return Database(engine, clock, readers=2, writers=2, prepare=later)
    except SQLAlchemyError as error:
        raise _unusable(engine, shown, error) from error
    except RecordsUnusable:
        engine.dispose()
        raise
    return Database(engine, clock, readers=2, writers=2)


def trouble_at(address: str, password: str | None) -> str:
    """Why the PostgreSQL database there cannot be asked now, in its own words; "" where it can.
    Blocking. Raises RecordsUnusable."""
    engine, _ = _engine_at(address, password)
    try:
        with engine.connect():
            return ""
    except SQLAlchemyError as error:
        said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        return said.strip().splitlines()[0]
    finally:
        engine.dispose()


def _engine_at(address: str, password: str | None) -> tuple[Engine, str]:
    """With the address as it may be shown. Raises RecordsUnusable."""
    try:
        url: URL | None = make_url(address)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres"):
        raise RecordsUnusable(
            "the address of the records is none of PostgreSQL: write postgresql://user@host/database"
        )
    if password is not None:
        url = url.set(password=password)
    shown = url.render_as_string(hide_password=True)
    try:
        return _postgresql(url), shown
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise RecordsUnusable(
            f"{shown} takes a library that is not installed: install registry-mirror[postgres]"
        ) from error


def _sqlite(path: Path, sync: bool) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000},
        max_overflow=-1,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun here, not guessed by the driver
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    return engine


def _postgresql(url: URL) -> Engine:
    """Every wait on it has an end: to connect, for a lock, for a statement, for a peer that is
    gone."""
    options = {
        "statement_timeout": _STATEMENT_MS,
        "lock_timeout": _LOCK_MS,
        "idle_in_transaction_session_timeout": _IDLE_MS,
    }
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": _CONNECT,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            "application_name": "registry-mirror",
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        },
        isolation_level="READ COMMITTED",
        pool_size=4,
        max_overflow=2,
        pool_pre_ping=True,
        pool_timeout=_CONNECT,
    )


def _unusable(engine: Engine, shown: str, error: SQLAlchemyError) -> RecordsUnusable:
    engine.dispose()
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return RecordsUnusable(f"the records in {shown} cannot be opened: {said.strip()}")


def _bring_up_to_date(engine: Engine, shown: str) -> None:
    """Raises SQLAlchemyError, RecordsUnusable."""
    with engine.connect() as connection:
        if _version(connection) == VERSION:  # the most usual: Alembic is not needed
            return
        connection.rollback()
        begin(connection)
        with _alone(connection):
            version = _version(connection)
            if version != VERSION:
                _migrate(connection, version, shown)
            connection.commit()


@contextlib.contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """One process at a time, until the transaction ends. (Those that open a file of SQLite have its
    lock.)"""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = {_MIGRATING_MS}"))
        connection.execute(text(f"SET LOCAL statement_timeout = {_MIGRATING_MS}"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    yield


def _version(connection: Connection) -> str | None:
    """None for a database without tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar()
    return version


def _migrate(connection: Connection, version: str | None, shown: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise RecordsUnusable(
            f"the records in {shown} are of a newer version of this program ({version}): run that "
            "version, or restore a backup that was made with this one"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, VERSION)
    log.info("records_brought_up_to_date", database=shown, version=VERSION)
