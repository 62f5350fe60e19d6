"""The catalogue is kept up by what happens, and built anew from what is here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.app.catalogue import CatalogueListener, rebuild
from mirror.clock import Clock
from mirror.contracts.events import (
    CatalogueDropped,
    ContentCommitted,
    ContentEvicted,
    ContentQuarantined,
    HitsAnswered,
    RequestAnswered,
    TagMoved,
)
from mirror.contracts.tags import TagRecord
from mirror.events import Events
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.tags.embedded import EmbeddedTags

from .fakes import MemoryCatalogue
from .storage.catalogue_contract import all_content, all_images, blob, names, tagged

REDIS = Repository("docker.io", "library/redis")
NOW = 1000.0


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def catalogue() -> MemoryCatalogue:
    return MemoryCatalogue()


@pytest.fixture
def listener(events: Events, catalogue: MemoryCatalogue) -> CatalogueListener:
    return CatalogueListener(catalogue, events, Clock(wall=lambda: NOW), most=5)


def told(events: Events) -> list[int]:
    """How much was dropped, each time."""
    dropped: list[int] = []
    events.listen(CatalogueDropped, lambda event: dropped.append(event.count))
    return dropped


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def committed(text: str, media_type: str = "", *needs: str) -> ContentCommitted:
    refers_to = [digest(need) for need in needs]
    return ContentCommitted(digest(text), 10, REDIS, ("hub",), media_type, refers_to)


def answered(reference: str, status: int | None = 200, kind: str = "tag") -> RequestAnswered:
    name = REDIS.name
    return RequestAnswered(
        kind, "docker.io", name, reference, "hit", status, "10.0.0.1", 0, 0.0, 0.0
    )


async def test_a_pull_is_in_the_catalogue_with_its_count_and_time(
    events: Events, catalogue: MemoryCatalogue, listener: CatalogueListener
) -> None:
    events.emit(committed("layer"))
    events.emit(committed("m", OCI_MANIFEST, "layer"))
    events.emit(TagMoved(REDIS, "7", None, digest("m")))
    events.emit(answered("7"))
    named = (REDIS.name, "7", 4)
    events.emit(HitsAnswered("tag", "docker.io", 200, 4, 0.001, 40, [named]))
    await listener.flush()
    [image] = await all_images(catalogue)
    assert names([image]) == ["library/redis:7"]
    assert (image.size, image.pulls, image.used_at) == (20, 5, NOW)


async def test_what_failed_or_was_no_image_is_no_pull(
    events: Events, catalogue: MemoryCatalogue, listener: CatalogueListener
) -> None:
    events.emit(TagMoved(REDIS, "7", None, digest("m")))
    for status in (404, 304, 502, None):
        events.emit(answered("7", status))
    events.emit(answered(str(digest("m")), kind="blob"))
    events.emit(answered("no reference at all"))
    events.emit(HitsAnswered("ping", "", 200, 9, 0.001, 9, [("", "", 9)]))
    await listener.flush()
    assert [image.pulls for image in await all_images(catalogue)] == [0]


@pytest.mark.parametrize("gone", [ContentEvicted(digest("m"), 10), ContentQuarantined(digest("m"))])
async def test_what_is_gone_is_missing(
    gone: object, events: Events, catalogue: MemoryCatalogue, listener: CatalogueListener
) -> None:
    events.emit(committed("m", OCI_MANIFEST))
    events.emit(TagMoved(REDIS, "7", None, digest("m")))
    events.emit(gone)
    await listener.flush()
    assert [image.missing for image in await all_images(catalogue)] == [(digest("m"),)]


async def test_nothing_is_noted_before_a_batch_and_what_finds_no_room_in_it_is_counted(
    events: Events, catalogue: MemoryCatalogue, listener: CatalogueListener
) -> None:
    dropped = told(events)
    for number in range(9):
        events.emit(committed(str(number)))
    events.emit(answered("7"))
    assert await all_content(catalogue) == []
    await listener.flush()
    assert len(await all_content(catalogue)) == 5
    assert dropped == [5]
    assert await catalogue.lost() == 2
    events.emit(committed("later"))
    await listener.flush()
    assert len(await all_content(catalogue)) == 6
    assert await catalogue.lost() == 2


async def test_what_one_registry_floods_it_with_pushes_out_nothing_of_anothers(
    events: Events, catalogue: MemoryCatalogue, listener: CatalogueListener
) -> None:
    ghcr = Repository("ghcr.io", "acme/app")
    events.emit(TagMoved(ghcr, "1", None, digest("app")))
    for number in range(20):
        events.emit(TagMoved(REDIS, str(number), None, digest(str(number))))
    events.emit(ContentEvicted(digest("app"), 1))
    events.emit(RequestAnswered("tag", "ghcr.io", ghcr.name, "1", "hit", 200, "", 0, 0.0, 0.0))
    await listener.flush()
    images = {str(image.reference): image.pulls for image in await all_images(catalogue)}
    assert images == {
        "ghcr.io/acme/app:1": 1,
        "docker.io/library/redis:0": 0,
        "docker.io/library/redis:1": 0,
    }


async def test_what_cannot_be_noted_is_counted(events: Events) -> None:
    class Full(MemoryCatalogue):
        async def note(self, changes: object) -> bool:
            return False

    dropped = told(events)
    listener = CatalogueListener(Full(), events, Clock(wall=lambda: NOW))
    events.emit(committed("m", OCI_MANIFEST))
    await listener.flush()
    assert dropped == [1]
    events.emit(committed("m", OCI_MANIFEST))
    await listener.flush()
    assert dropped == [1, 1]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    store = DiskContent(tmp_path / "store", Bounds(1 << 30, 0), events=Events(), sync=False)
    yield store
    await store.close()


@pytest.fixture
async def tags(tmp_path: Path) -> AsyncIterator[EmbeddedTags]:
    tags = EmbeddedTags(tmp_path / "tags.db", Clock(), Events())
    yield tags
    await tags.close()


def written(media_type: str, **fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, **fields}).encode()


def described(data: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


async def test_a_lost_catalogue_is_built_from_the_store_and_the_tags(
    store: DiskContent, tags: EmbeddedTags, catalogue: MemoryCatalogue
) -> None:
    config, layer, loose = b"{}", b"layer" * 100, b"loose"
    manifest = written(
        OCI_MANIFEST,
        config=described(config, "application/vnd.oci.image.config.v1+json"),
        layers=[described(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    )
    index = written(
        OCI_INDEX, manifests=[described(manifest, OCI_MANIFEST), described(b"arm", OCI_MANIFEST)]
    )
    for data in (config, layer, loose, manifest, index):
        assert await store.put(Digest.of(data), data)
    for tag, data in (("7", index), ("elsewhere", b"not here"), ("odd", loose)):
        record = TagRecord(Descriptor(OCI_INDEX, Digest.of(data), len(data)), 1.0)
        await tags.put(REDIS, tag, record, 3600)
    await tags.put(REDIS, "none", TagRecord(None, 1.0), 3600)
    await catalogue.note([blob("gone", 7, at=5.0), tagged(REDIS, "kept", "gone")])

    assert await rebuild(catalogue, store, tags, Clock())

    images = {names([image])[0]: image for image in await all_images(catalogue)}
    assert set(images) == {"library/redis:7", "library/redis:kept"}
    whole = images["library/redis:7"]
    assert whole.size == sum(map(len, (config, layer, manifest, index)))
    assert whole.own == whole.size
    assert whole.missing == ()
    assert images["library/redis:kept"].missing == (digest("gone"),)
    here = {entry.digest: len(entry.needed_by) for entry in await all_content(catalogue)}
    assert here == {
        **{Digest.of(data): 1 for data in (config, layer, manifest, index)},
        Digest.of(loose): 0,
    }


async def test_without_its_tags_nothing_is_forgotten(
    store: DiskContent, tags: EmbeddedTags, catalogue: MemoryCatalogue
) -> None:
    await catalogue.note([blob("old", 7, at=5.0)])
    await tags.close()
    assert not await rebuild(catalogue, store, tags, Clock())
    assert len(await all_content(catalogue)) == 1


async def test_a_rebuild_leaves_what_is_known_of_manifests_without_a_tag(
    store: DiskContent, tags: EmbeddedTags, events: Events, catalogue: MemoryCatalogue
) -> None:
    manifest = written(OCI_INDEX, manifests=[])
    digest = Digest.of(manifest)
    assert await store.put(digest, manifest)
    listener = CatalogueListener(catalogue, events, Clock())
    events.emit(ContentCommitted(digest, len(manifest), REDIS, (), OCI_INDEX, ()))
    await listener.flush()
    assert await rebuild(catalogue, store, tags, Clock())
    assert [entry.media_type for entry in await all_content(catalogue)] == [OCI_INDEX]
    assert [image.digest for image in await all_images(catalogue)] == [digest]
