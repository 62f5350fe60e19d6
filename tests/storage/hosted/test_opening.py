"""Hosted records as they are opened, lost and found again."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mirror.clock import Clock
from mirror.contracts.hosted import Visibility
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.storage.records.hosted import database as database_module
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.opening import RecordsUnusable, open_at, open_in, trouble_at
from mirror.storage.records.hosted.repositories import RepositoryRecords
from mirror.storage.records.hosted.tables import metadata
from tests.postgres import Postgres, running
from tests.waiting import eventually

NOW = 1_000_000.0

Open = Callable[[], Database]


@pytest.fixture(params=["sqlite", "postgresql"])
async def opens(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens one database again and again; there is none yet."""
    if request.param == "sqlite":
        yield lambda: open_in(tmp_path, Clock(), sync=False)
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.make()
    yield lambda: open_at(server.url(name), None, Clock())
    server.drop(name)


async def test_the_migrations_make_the_tables(database: Database) -> None:
    def differences(connection: object) -> list[object]:
        context = MigrationContext.configure(
            connection,  # type: ignore[arg-type]
            opts={"compare_type": True},
        )
        return list(compare_metadata(context, metadata))

    assert await database.read(differences) == []


async def test_several_open_it_at_once(opens: Open) -> None:
    opened: list[Database] = []
    threads = [threading.Thread(target=lambda: opened.append(opens())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(opened) == 4
    for number, database in enumerate(opened):
        await RepositoryRecords(database).create(f"a/{number}", Visibility.PUBLIC, NOW, "ann")
    assert await RepositoryRecords(opened[0]).repository("a/3") is not None
    for database in opened:
        await database.close()


async def test_records_of_a_newer_version_are_refused(
    opens: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opens()

    def age(connection: object) -> None:
        connection.exec_driver_sql(  # type: ignore[attr-defined]
            "UPDATE alembic_version SET version_num = '9999'"
        )

    await database.write(age)
    await database.close()
    with pytest.raises(RecordsUnusable, match=r"newer version of this program \(9999\): run that"):
        opens()


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "hosted.db").write_bytes(b"no database" * 999)
    with pytest.raises(RecordsUnusable, match="not a database"):
        open_in(tmp_path, Clock())
    with pytest.raises(RecordsUnusable, match="write postgresql://"):
        open_at("here", None, Clock())
    with pytest.raises(RecordsUnusable, match="write postgresql://"):
        open_at("mysql://me@there/x", None, Clock())


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    database = open_in(tmp_path, Clock())
    database.engine.dispose()
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_write_ends_where_another_process_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY", 0.05)
    database = open_in(tmp_path, Clock())
    records = RepositoryRecords(database)
    await records.create("a/b", Visibility.PUBLIC, NOW, "ann")
    with contextlib.closing(sqlite3.connect(tmp_path / "hosted.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await records.create("a/c", Visibility.PUBLIC, NOW, "ann")
        assert await records.repository("a/b") is not None
    await records.create("a/c", Visibility.PUBLIC, NOW, "ann")
    await database.close()
    with pytest.raises(Unavailable):
        await records.repository("a/b")


async def test_postgresql_goes_and_comes_back() -> None:
    with running() as server:
        address = server.url(server.make())
        server.stop()
        # A mirror starts while it is away.
        database = open_at(address, None, Clock())
        records = RepositoryRecords(database)
        with pytest.raises(Unavailable):
            await records.repository("a/b")
        server.start()

        async def is_there() -> bool:
            with contextlib.suppress(Unavailable):
                return await records.repository("a/b") is None
            return False

        await eventually(is_there, seconds=30)
        await records.create("a/b", Visibility.PUBLIC, NOW, "ann")
        await records.add_blob("a/b", Digest.of(b"x"), 5, NOW, "ann")
        server.stop()
        begun = time.monotonic()
        for _ in range(20):
            with pytest.raises(Unavailable):
                await records.repository("a/b")
            with pytest.raises(Unavailable):
                await records.add_blob("a/b", Digest.of(b"y"), 5, NOW, "ann")
        assert time.monotonic() - begun < 20
        server.start()

        async def is_back() -> bool:
            with contextlib.suppress(Unavailable):
                return await records.repository("a/b") is not None
            return False

        await eventually(is_back, seconds=30)
        await records.add_blob("a/b", Digest.of(b"y"), 5, NOW, "ann")
        assert await records.usage("a") == 10
        # Connections that were cut meanwhile are made anew, within one ask.
        server.stop()
        server.start()
        await records.add_blob("a/b", Digest.of(b"z"), 5, NOW, "ann")
        assert await records.blob("a/b", Digest.of(b"z")) == 5
        await database.close()


async def test_what_is_refused_is_not_done_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_in(tmp_path, Clock(), sync=False)
    records = RepositoryRecords(database)
    with monkeypatch.context() as few:
        few.setattr(database_module, "_MOST_WAITING", 0)
        with pytest.raises(Unavailable):
            await records.add_blob("team/refused", Digest.of(b"a"), 1, 1.0, "ann")
    await records.add_blob("team/taken", Digest.of(b"a"), 1, 1.0, "ann")
    assert await records.repository("team/refused") is None
    await database.close()


async def test_why_a_database_cannot_be_asked_is_told_without_the_password(
    postgres: Postgres, template: str
) -> None:
    url = postgres.url(template)
    assert trouble_at(url, None) == ""
    gone = trouble_at("postgresql://me@127.0.0.1:1/records", "a password")
    assert "Connection refused" in gone
    assert "a password" not in gone
