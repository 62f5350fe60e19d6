"""Clients that are sent to the object store, and what it has there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_network

import pytest

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.pullthrough.redirects import RedirectPolicy, Redirects
from mirror.pullthrough.second_tier import TierState

from ..fakes import HandClock
from ..fakes.tier import MemoryFarContent, MemoryTier
from ..waiting import eventually

DATA = bytes(3 << 20)
DIGEST = Digest.of(DATA)
APP = Repository("docker.io", "library/app")


@dataclass
class Far:
    """Whose content is on the disk here as well."""

    tier: MemoryTier
    content: MemoryFarContent
    redirects: Redirects

    async def sends(self, client: str) -> bool:
        return await self.redirects.find(client, APP, DIGEST) is not None


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    tier = MemoryTier()
    content = MemoryFarContent(tier)
    state = TierState(tier, Events(), HandClock().clock(), far=content)
    policy = RedirectPolicy([ip_network("10.0.0.0/8")], 1 << 20)
    redirects = Redirects(state, content, policy, lambda digest: len(DATA))
    yield Far(tier, content, redirects)
    await redirects.close()
    await state.close()


async def test_wrong_bytes_of_the_right_size_are_set_aside_when_a_client_comes_back(
    far: Far,
) -> None:
    wrong = far.tier.kept[DIGEST] = b"x" * len(DATA)
    assert [await far.sends("10.0.0.1") for _ in range(3)] == [True, True, False]
    await eventually(lambda: far.content.aside.get(DIGEST) == wrong, 10)
    assert not await far.sends("10.0.0.2")


async def test_right_ones_are_looked_at_once_and_others_are_sent_there(far: Far) -> None:
    far.tier.kept[DIGEST] = DATA
    assert [await far.sends("10.0.0.1") for _ in range(3)] == [True, True, False]
    await eventually(lambda: far.tier.asked == 2, 10)
    await far.redirects.close()
    asked = far.tier.asked
    assert await far.sends("10.0.0.2")
    assert not await far.sends("192.0.2.1")
    assert not await far.sends("10.0.0.1")
    assert far.tier.asked - asked <= 1
    assert far.content.aside == {}
