"""Hosted records on each engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.opening import open_in


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = open_in(tmp_path, Clock(), sync=False)
    yield opened
    await opened.close()
