"""The second tier in memory does what every second tier must."""

from __future__ import annotations

import pytest

from ..fakes import MemoryTier
from .second_tier_contract import SecondTierContract


@pytest.fixture
def tier() -> MemoryTier:
    return MemoryTier()


@pytest.fixture
def broken() -> MemoryTier:
    tier = MemoryTier()
    tier.takes, tier.fails = False, "get"
    return tier


class TestMemoryTier(SecondTierContract):
    """The contract."""
