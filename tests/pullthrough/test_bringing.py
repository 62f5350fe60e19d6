"""Whole images brought ahead of clients: they give way to all that clients wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mirror.contracts.sync import TagGone
from mirror.contracts.tags import TagEvent
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.reference import parse_image
from mirror.pullthrough.bringing import Bringer
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.queue import FillLimits
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared

from ..fakes import CONTEXT, FakeTags, FakeUpstream, MemoryContent, manifest_of
from ..fakes.catalogue import MemoryCatalogue
from ..waiting import eventually
from .test_fills import REDIS, Hold, read_all

CONFIG, LAYER, OTHER = b"{}", b"layer" * 1000, b"other" * 1000
IMAGE = parse_image("redis:7", "docker.io")
LAYER_DIGEST = Digest.of(LAYER)


class House:
    def __init__(self, upstream: FakeUpstream, store: MemoryContent, places: int) -> None:
        self.upstream, self.store = upstream, store
        self.fills = Fills(store, Events(), limits=FillLimits(places, places), quantum=0.01)
        self.tags = FakeTags()
        self.cache = PullThrough(upstream, Shared.over(store, self.tags, self.fills))
        self.catalogue = MemoryCatalogue()
        self.ahead = Bringer(
            self.cache, store, self.tags, self.catalogue, asyncio.Semaphore(4), self.fills
        )
        self.here: list[int] = []

    def bring(self) -> asyncio.Task[object]:
        work = self.ahead.bring(IMAGE, "all", lambda here, size: self.here.append(here))
        return asyncio.create_task(work)

    def client(self, data: bytes) -> asyncio.Task[bytes]:
        async def take() -> bytes:
            return await read_all(await self.cache.blob(CONTEXT, REDIS, Digest.of(data)))

        return asyncio.create_task(take())

    async def close(self) -> None:
        await self.cache.close()
        await self.fills.close()


@pytest.fixture
async def house(upstream: FakeUpstream, store: MemoryContent) -> AsyncIterator[House]:
    upstream.push("7", manifest_of(CONFIG, LAYER), CONFIG, LAYER)
    upstream.blobs[Digest.of(OTHER)] = OTHER
    house = House(upstream, store, places=2)
    yield house
    await house.close()


async def test_all_of_an_image_comes_and_is_not_fetched_twice(house: House) -> None:
    first, again = await house.bring(), await house.bring()
    assert first.fetched == len(CONFIG) + len(LAYER)  # type: ignore[attr-defined]
    assert again.fetched == 0  # type: ignore[attr-defined]
    assert house.here[-1] == first.size  # type: ignore[attr-defined]
    assert house.upstream.asked["blob"] == 2


async def test_a_client_that_wants_its_place_has_it_and_it_goes_on_later(house: House) -> None:
    hold = Hold(house.upstream, at=0)
    bringing = house.bring()
    await eventually(lambda: LAYER_DIGEST in house.upstream.open_blobs)
    clients = [house.client(OTHER)]
    more = b"more" * 1000
    house.upstream.blobs[Digest.of(more)] = more
    clients.append(house.client(more))
    asked = {Digest.of(OTHER), Digest.of(more)}
    await eventually(lambda: set(house.upstream.open_blobs) == asked)
    hold.go.set()
    assert [await client for client in clients] == [OTHER, more]
    await bringing


async def test_a_client_that_comes_to_wait_for_the_same_has_it(house: House) -> None:
    hold = Hold(house.upstream, at=0)
    bringing = house.bring()
    await eventually(lambda: LAYER_DIGEST in house.upstream.open_blobs)
    client = house.client(LAYER)
    fill = await eventually(lambda: house.fills.running("docker.io", LAYER_DIGEST))
    await eventually(lambda: fill.is_wanted)
    bringing.cancel()
    await asyncio.gather(bringing, return_exceptions=True)
    hold.go.set()
    assert await client == LAYER


async def test_what_no_client_waits_for_ends_with_the_work(house: House) -> None:
    Hold(house.upstream, at=0)
    bringing = house.bring()
    await eventually(lambda: LAYER_DIGEST in house.upstream.open_blobs)
    bringing.cancel()
    await asyncio.gather(bringing, return_exceptions=True)
    await eventually(lambda: not house.upstream.open_blobs)
    await eventually(lambda: house.fills.running("docker.io", LAYER_DIGEST) is None)


async def test_a_tag_that_was_there_and_is_gone_is_told_as_such(house: House) -> None:
    await house.bring()
    del house.upstream.tags_of["7"]
    house.tags.records.clear()
    house.tags.events[REDIS, "7"] = [TagEvent(LAYER_DIGEST, 1.0, 2.0)]
    with pytest.raises(TagGone, match="stays here"):
        await house.bring()


async def test_an_image_larger_than_the_cache_is_not_begun(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = house.store.usage()
    monkeypatch.setattr(house.store, "usage", lambda: usage.__class__(0, 0, 0, 1000))
    with pytest.raises(Unavailable, match=r"storage\.max_size is 1000"):
        await house.bring()
    assert house.upstream.asked["blob"] == 0
