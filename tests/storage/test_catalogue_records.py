"""The catalogue on the disk, and the one in memory that it is measured against."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mirror.clock import Clock
from mirror.contracts.catalogue import (
    CatalogueUnavailable,
    Change,
    Kept,
    Leaving,
    Pulled,
    Removed,
    Tagged,
    Unshown,
)
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.storage.records.catalogue import CatalogueBounds, CatalogueRecords

from ..fakes import MemoryCatalogue
from .catalogue_contract import (
    APP,
    REDIS,
    CatalogueContract,
    all_content,
    all_images,
    all_repositories,
    blob,
    digest,
    manifest,
    names,
    tagged,
)


class TestMemoryCatalogue(CatalogueContract):
    @pytest.fixture
    def store(self) -> MemoryCatalogue:
        return MemoryCatalogue()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CatalogueRecords]:
    store = CatalogueRecords(tmp_path / "catalogue.db", Clock())
    yield store
    await store.close()


class TestCatalogueRecords(CatalogueContract):
    pass


class TestCatalogueRecordsWithoutAFile(CatalogueContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[CatalogueRecords]:
        (tmp_path / "catalogue.db").mkdir()
        store = CatalogueRecords(tmp_path / "catalogue.db", Clock())
        yield store
        await store.close()


# Layers, manifests that need layers, indexes that need manifests; some of it is never kept.
LAYERS = [f"l{number}" for number in range(5)]
MANIFESTS = [f"m{number}" for number in range(5)]
INDEXES = [f"i{number}" for number in range(3)]
PLACES = [REDIS, APP, Repository("docker.io", "library/a")]


@some.composite
def graphs(draw: some.DrawFn) -> list[Kept]:
    def needing(name: str, media_type: str, below: list[str]) -> Kept:
        needs = draw(some.lists(some.sampled_from(below), max_size=4, unique=True))
        size = draw(some.integers(0, 1000))
        return Kept(digest(name), size, media_type, tuple(map(digest, needs)), None, 1.0)

    return [
        *(blob(name, draw(some.integers(0, 1000))) for name in LAYERS),
        *(needing(name, OCI_MANIFEST, LAYERS) for name in MANIFESTS),
        *(needing(name, OCI_INDEX, MANIFESTS) for name in INDEXES),
    ]


@some.composite
def histories(draw: some.DrawFn) -> list[Change]:
    graph = draw(graphs())
    places, tops = some.sampled_from(PLACES), some.sampled_from(graph[len(LAYERS) :])

    def keep(kept: Kept, place: Repository) -> Change:
        return dataclasses.replace(kept, repository=place)

    digests = tops.map(lambda kept: kept.digest)
    change = some.one_of(
        some.builds(keep, some.sampled_from(graph), places),
        some.builds(keep, tops, places),
        some.builds(
            lambda kept: Kept(kept.digest, kept.size, "", (), None, 1.0), some.sampled_from(graph)
        ),
        some.builds(Removed, some.sampled_from(graph).map(lambda kept: kept.digest)),
        some.builds(Unshown, places, digests),
        some.builds(
            Tagged, places, some.sampled_from(["a", "b"]), some.none() | digests, some.just(1.0)
        ),
        some.builds(
            Pulled,
            places,
            some.sampled_from(["a", "b"]) | digests,
            some.integers(1, 3),
            some.floats(0, 100),
        ),
    )
    return draw(some.lists(change, max_size=40))


@settings(max_examples=60, deadline=None)
@given(histories(), some.integers(1, 4))
def test_any_history_gives_the_same_as_brute_force(history: list[Change], limit: int) -> None:
    async def compare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            records = CatalogueRecords(Path(folder) / "catalogue.db", Clock())
            try:
                model = MemoryCatalogue()
                assert await records.note(history)
                await model.note(history)
                assert await all_images(records, limit) == await all_images(model, limit)
                assert await all_repositories(records) == await all_repositories(model)
                for ours, theirs in zip(
                    await all_content(records, limit), await all_content(model, limit), strict=True
                ):
                    assert dataclasses.replace(ours, needed_by=()) == dataclasses.replace(
                        theirs, needed_by=()
                    )
                    assert list(ours.needed_by) == list(theirs.needed_by)
            finally:
                await records.close()

    asyncio.run(compare())


@settings(max_examples=60, deadline=None)
@given(histories(), some.data())
def test_what_goes_with_images_is_what_no_image_that_stays_needs(
    history: list[Change], data: some.DataObject
) -> None:
    async def compare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            records = CatalogueRecords(Path(folder) / "catalogue.db", Clock())
            try:
                model = MemoryCatalogue()
                await records.note(history)
                await model.note(history)
                images = [image.reference for image in await all_images(model)]
                gone = Leaving({str(image) for image in images if data.draw(some.booleans())})
                assert [use.reference for use in await records.uses("", 1000)] == images
                for image in images:
                    assert await records.image(image) == await model.image(image)
                    ours, theirs = (
                        await records.removal(image, gone),
                        await model.removal(image, gone),
                    )
                    assert ours is not None
                    assert theirs is not None
                    assert set(ours.pieces) == set(theirs.pieces)
                    assert set(ours.shared) == set(theirs.shared)
                    assert set(ours.unshown) == set(theirs.unshown)
                    assert set(await records.pieces(image)) == set(await model.pieces(image))
                    assert ours.image == image
            finally:
                await records.close()

    asyncio.run(compare())


async def test_another_process_sees_what_was_noted_and_so_does_the_next(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    one, other = CatalogueRecords(path, Clock()), CatalogueRecords(path, Clock())
    await one.note([manifest("m"), tagged(REDIS, "7", "m")])
    await other.note([Pulled(REDIS, "7", 2, 5.0)])
    assert [image.pulls for image in await all_images(one)] == [2]
    await one.close()
    await other.close()
    again = CatalogueRecords(path, Clock())
    assert [image.pulls for image in await all_images(again)] == [2]
    await again.close()


async def test_several_that_note_at_once_lose_nothing(tmp_path: Path) -> None:
    stores = [CatalogueRecords(tmp_path / "catalogue.db", Clock()) for _ in range(3)]
    await stores[0].note([tagged(REDIS, "7", "m")])

    async def work(number: int) -> list[bool]:
        return [
            await stores[number].note([blob(f"{number}-{turn}", 1), Pulled(REDIS, "7", 1, 5.0)])
            for turn in range(20)
        ]

    noted = await asyncio.gather(*map(work, range(3)))
    assert all(map(all, noted))
    assert [image.pulls for image in await all_images(stores[1])] == [60]
    assert len(await all_content(stores[2], 50)) == 60
    for store in stores:
        await store.close()


async def test_a_file_of_no_use_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    path.write_bytes(b"no database at all " * 1000)
    store = CatalogueRecords(path, Clock())
    assert await store.note([manifest("m")])
    assert len(await all_images(store)) == 1
    await store.close()


async def test_of_too_many_images_the_repository_with_most_gives_up_its_least_used(
    tmp_path: Path,
) -> None:
    bounds = CatalogueBounds(images=6, tidy_every=1)
    store = CatalogueRecords(tmp_path / "catalogue.db", Clock(), bounds)
    await store.note([tagged(APP, "v1", "m")])
    for number in range(10):
        await store.note([tagged(REDIS, f"t{number}", "m", 100.0 + number)])
        await store.note([Pulled(REDIS, "t3", 1, 100.0 + number)])
    found = names(await all_images(store))
    assert len(found) <= 7
    assert "acme/app:v1" in found
    assert "library/redis:t9" in found
    assert "library/redis:t3" in found
    assert "library/redis:t0" not in found
    await store.close()


async def test_beyond_its_bound_no_new_content_is_taken(tmp_path: Path) -> None:
    bounds = CatalogueBounds(content=5, tidy_every=1)
    store = CatalogueRecords(tmp_path / "catalogue.db", Clock(), bounds)
    for number in range(20):
        await store.note([blob(str(number), 1)])
    assert len(await all_content(store)) == 5
    await store.note([Removed(digest("0")), Removed(digest("1"))])
    await store.note([blob("new", 1)])
    assert digest("new") in [entry.digest for entry in await all_content(store)]
    await store.close()


async def test_a_manifest_that_refers_to_very_much_is_known_to_refer_to_a_part(
    tmp_path: Path,
) -> None:
    bounds = CatalogueBounds(needs_of_one=3)
    store = CatalogueRecords(tmp_path / "catalogue.db", Clock(), bounds)
    await store.note([manifest("m", *"abcdefgh")])
    assert len((await all_images(store))[0].missing) == 3
    await store.close()


async def test_what_refers_to_itself_ends(store: CatalogueRecords) -> None:
    await store.note([manifest("a", "b"), manifest("b", "a"), tagged(REDIS, "7", "a")])
    [image] = await all_images(store)
    assert image.size == 20


async def test_sha512_is_content_like_any_other(store: CatalogueRecords) -> None:
    long = Digest.of(b"x", "sha512")
    await store.note([Kept(long, 7, OCI_MANIFEST, (), REDIS, 1.0)])
    assert [entry.digest for entry in await all_content(store)] == [long]
    assert [image.digest for image in await all_images(store)] == [long]


async def test_a_closed_catalogue_says_so_and_takes_nothing(tmp_path: Path) -> None:
    store = CatalogueRecords(tmp_path / "catalogue.db", Clock())
    await store.close()
    assert await store.note([manifest("m")]) is False
    with pytest.raises(CatalogueUnavailable):
        await store.images("", 10)


async def test_many_are_forgotten_bit_by_bit_and_what_is_noted_meanwhile_waits_for_a_bit_only(
    store: CatalogueRecords, tmp_path: Path
) -> None:
    await store.note([blob(str(number), 1, at=1.0) for number in range(2000)])
    other = CatalogueRecords(tmp_path / "catalogue.db", Clock())
    forgetting = asyncio.create_task(store.forget_older(2.0))
    await asyncio.sleep(0)  # it has begun
    assert await store.note([blob("from this process", 1, at=3.0)])
    assert not forgetting.done()
    assert await other.note([blob("from another", 1, at=3.0)])
    assert await forgetting
    assert len(await all_content(other)) == 2
    await other.close()


async def test_a_catalogue_whose_losses_are_lost_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    store = CatalogueRecords(path, Clock())
    for ask in (store.lost, store.lose):
        db = apsw.Connection(str(path))
        db.execute("DELETE FROM losses")
        db.close()
        assert await ask() is not None
    await store.close()
