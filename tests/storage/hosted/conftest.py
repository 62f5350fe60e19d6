"""Hosted records on each engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.opening import open_at, open_in
from tests.postgres import Postgres, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """The name of a database with the tables, and nothing in them."""
    name = postgres.make()
    opened = open_at(postgres.url(name), None, Clock())
    opened.engine.dispose()
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        opened = open_in(tmp_path, Clock(), sync=False)
        yield opened
        await opened.close()
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.make(request.getfixturevalue("template"))
    opened = open_at(server.url(name), None, Clock())
    yield opened
    await opened.close()
    server.drop(name)
