"""Hosted records on each engine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.opening import open_at, open_in
from mirror.storage.records.hosted.tables import metadata
from tests.postgres import Postgres, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """The name of a database with the tables, and nothing in them between tests."""
    name = postgres.make()
    opened = open_at(postgres.url(name), None, Clock())
    opened.engine.dispose()
    return name


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `template`, of SQLite."""
    folder = tmp_path_factory.mktemp("records")
    open_in(folder, Clock(), sync=False).engine.dispose()
    return folder / "hosted.db"


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("file"), tmp_path)
        opened = open_in(tmp_path, Clock(), sync=False)
        yield opened
        await opened.close()
        return
    server: Postgres = request.getfixturevalue("postgres")
    opened = open_at(server.url(request.getfixturevalue("template")), None, Clock())
    yield opened
    await opened.close()
    # Cheaper than a database for each test.
    with opened.engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    opened.engine.dispose()
