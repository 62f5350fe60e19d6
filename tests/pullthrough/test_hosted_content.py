"""Hosted content of an object store, where it may be the only copy."""

from __future__ import annotations

import asyncio

import pytest

from mirror.contracts.context import RequestContext
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.pullthrough.hosted_content import ObjectStore

from ..fakes import Recorder
from ..fakes.tier import MemoryFarContent, MemoryTier
from ..waiting import eventually

APP = Repository("hosted", "team/app")
ASKER = RequestContext("1", "10.0.0.1")
DATA = b"a layer" * 1000
LAYER = Digest.of(DATA)


@pytest.fixture
def tier() -> MemoryTier:
    return MemoryTier()


@pytest.fixture
def content(tier: MemoryTier) -> MemoryFarContent:
    return MemoryFarContent(tier)


@pytest.fixture
def objects(tier: MemoryTier, content: MemoryFarContent) -> ObjectStore:
    return ObjectStore(tier, content, Recorder(), str)


async def test_what_is_wrong_there_is_set_aside(
    objects: ObjectStore, tier: MemoryTier, content: MemoryFarContent
) -> None:
    tier.kept[LAYER] = b"another"
    objects.wrong(LAYER, "told by a test")
    await eventually(lambda: content.aside == {LAYER: b"another"})
    await objects.close()


async def test_what_was_pushed_anew_since_it_was_found_wrong_stays(
    objects: ObjectStore, tier: MemoryTier, content: MemoryFarContent
) -> None:
    """Two have read what was wrong; the slower one finds out when it has been replaced."""
    tier.kept[LAYER] = b"another"
    one, other = [await objects.blob(ASKER, APP, LAYER) for _ in range(2)]
    one.reject("told by a test")
    await eventually(lambda: LAYER in content.aside)
    tier.kept[LAYER] = DATA
    asked = tier.asked
    other.reject("told by a test")
    await eventually(lambda: tier.asked > asked)
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert tier.kept == {LAYER: DATA}
    await objects.close()
