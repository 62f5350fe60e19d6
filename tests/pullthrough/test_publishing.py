"""What the cache tells of what becomes content, and of tags that move."""

from __future__ import annotations

import contextlib

import pytest

from mirror.contracts.content import StoreFull
from mirror.contracts.events import ContentCommitted, FillEnded, TagMoved
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestUnknown, RegistryError
from mirror.oci.manifests import OCI_MANIFEST
from mirror.pullthrough.cache import PullThrough

from ..fakes import CONTEXT, FakeUpstream, HandClock, MemoryContent, Recorder, manifest_of
from ..waiting import eventually
from .test_fills import BIG, LITTLE, REDIS, read_all


@pytest.mark.parametrize("data", [BIG, LITTLE, b""], ids=["big", "little", "empty"])
async def test_a_blob_is_told_once_when_it_has_become_content(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, told: Recorder, data: bytes
) -> None:
    digest = Digest.of(data)
    upstream.blobs[digest] = data
    was_here: list[bool] = []
    told.listen(ContentCommitted, lambda event: was_here.append(store.is_here(event.digest)))
    for _ in range(2):
        assert await read_all(await cache.blob(CONTEXT, REDIS, digest)) == data
        await eventually(lambda: told.of(FillEnded))
    assert told.of(ContentCommitted) == [
        ContentCommitted(digest, len(data), REDIS, ["fake"], media_type="", refers_to=())
    ]
    assert was_here == [True]


async def test_a_manifest_is_told_once_with_what_it_needs(
    cache: PullThrough, upstream: FakeUpstream, told: Recorder
) -> None:
    data = manifest_of(LITTLE, BIG)
    digest = upstream.push("7", data)
    for _ in range(2):
        await cache.manifest(CONTEXT, REDIS, digest)
    (committed,) = told.of(ContentCommitted)
    assert (committed.digest, committed.size) == (digest, len(data))
    assert (committed.repository, committed.media_type) == (REDIS, OCI_MANIFEST)
    assert {Digest.of(LITTLE), Digest.of(BIG)} <= set(committed.refers_to)


@pytest.mark.parametrize("data", [BIG, LITTLE], ids=["big", "little"])
async def test_wrong_bytes_never_become_content(
    cache: PullThrough, upstream: FakeUpstream, told: Recorder, data: bytes
) -> None:
    upstream.blobs[Digest.of(data)] = data
    upstream.corrupt = True
    with contextlib.suppress(RegistryError):  # a small one is asked for again, and comes right
        await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(data)))
    ended = await eventually(lambda: told.of(FillEnded))
    results = [each.result for each in ended]
    assert results[0] == "rejected"
    assert len(told.of(ContentCommitted)) == results.count("committed")


async def test_a_manifest_that_finds_no_room_is_not_told(
    cache: PullThrough,
    upstream: FakeUpstream,
    store: MemoryContent,
    told: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def full(*_: object) -> bool:
        raise StoreFull("no room")

    monkeypatch.setattr(store, "put", full)
    digest = upstream.push("7", manifest_of())
    await cache.manifest(CONTEXT, REDIS, digest)
    assert told.of(ContentCommitted) == []


async def test_a_tag_that_moves_is_told_and_one_that_stays_is_not(
    cache: PullThrough, upstream: FakeUpstream, told: Recorder, wall: HandClock
) -> None:
    first = upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    await cache.resolve(CONTEXT, REDIS, "7")  # it is asked for again, and is what it was
    second = upstream.push("7", manifest_of(note="moved"))
    wall.now += 301
    await cache.resolve(CONTEXT, REDIS, "7")
    del upstream.tags_of["7"]
    for _ in range(2):
        wall.now += 301
        with pytest.raises(ManifestUnknown):
            await cache.resolve(CONTEXT, REDIS, "7")
    assert told.of(TagMoved) == [
        TagMoved(REDIS, "7", None, first),
        TagMoved(REDIS, "7", first, second),
        TagMoved(REDIS, "7", second, None),
    ]
