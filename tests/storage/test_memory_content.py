"""The store in memory that tests use does what a store has to do."""

from __future__ import annotations

import pytest

from ..fakes import MemoryContent
from .content_contract import ContentContract


@pytest.fixture
def store() -> MemoryContent:
    return MemoryContent(max_bytes=1000)


class TestMemoryContent(ContentContract):
    """The contract."""
