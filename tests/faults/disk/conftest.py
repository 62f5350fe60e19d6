"""Mounts for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .mounts import Mounts


@pytest.fixture
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    """Ask for it before `house`: what mirrors have open goes before what they have it on."""
    with Mounts(tmp_path_factory.mktemp("mounts")) as mounts:
        yield mounts
