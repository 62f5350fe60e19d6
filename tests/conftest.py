"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .seaweed import Seaweed, seaweed_running


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    """One for all: who freezes it, or ends it, has it run again. Whoever uses it is of the group
    `seaweed`, so that one process of pytest has it."""
    with seaweed_running() as server:
        yield server
