"""What every catalogue must do: a suite to inherit from. A subclass gives the fixture `store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pytest

from mirror.contracts.catalogue import (
    LONGEST_PAGE,
    NAMED,
    Catalogue,
    CatalogueNotes,
    ContentEntry,
    ImageEntry,
    Kept,
    Pulled,
    Removed,
    RepositoryEntry,
    Tagged,
)
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository

REDIS = Repository("docker.io", "library/redis")
APP = Repository("ghcr.io", "acme/app")


class Store(Catalogue, CatalogueNotes, Protocol): ...


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def tagged(repository: Repository, tag: str, to: str | None, at: float = 1.0) -> Tagged:
    return Tagged(repository, tag, None if to is None else digest(to), at)


def blob(name: str, size: int, at: float = 1.0) -> Kept:
    return Kept(digest(name), size, "", (), None, at)


def manifest(name: str, *needs: str, size: int = 10, of: Repository | None = REDIS) -> Kept:
    return Kept(digest(name), size, OCI_MANIFEST, [digest(need) for need in needs], of, 1.0)


def index(name: str, *needs: str, size: int = 5, of: Repository | None = REDIS) -> Kept:
    return Kept(digest(name), size, OCI_INDEX, [digest(need) for need in needs], of, 1.0)


async def all_images(store: Catalogue, limit: int = 3) -> list[ImageEntry]:
    found: list[ImageEntry] = []
    while page := await store.images(str(found[-1].reference) if found else "", limit):
        assert len(page) <= limit
        found += page
    return found


async def all_content(store: Catalogue, limit: int = 3) -> list[ContentEntry]:
    found: list[ContentEntry] = []
    while page := await store.content(found[-1].digest if found else None, limit):
        assert len(page) <= limit
        found += page
    return found


async def all_repositories(store: Catalogue, limit: int = 2) -> list[RepositoryEntry]:
    found: list[RepositoryEntry] = []
    while page := await store.repositories(str(found[-1].repository) if found else "", limit):
        assert len(page) <= limit
        found += page
    return found


def names(images: Sequence[ImageEntry]) -> list[str]:
    return [str(image.reference).partition("/")[2] for image in images]


class CatalogueContract:
    async def test_an_empty_catalogue_has_nothing(self, store: Store) -> None:
        assert await all_images(store) == []
        assert await all_content(store) == []
        assert await all_repositories(store) == []

    async def test_an_image_has_the_bytes_of_all_that_it_needs(self, store: Store) -> None:
        await store.note([blob("config", 3), blob("layer", 100), manifest("m", "config", "layer")])
        await store.note([tagged(REDIS, "7", "m")])
        [image] = await all_images(store)
        assert names([image]) == ["library/redis:7"]
        assert (image.digest, image.size, image.own, image.shared) == (digest("m"), 113, 113, 0)
        assert image.missing == ()

    async def test_what_another_image_needs_too_is_shared(self, store: Store) -> None:
        await store.note([blob("base", 100), blob("mine", 7), blob("theirs", 30)])
        await store.note([manifest("a", "base", "mine"), manifest("b", "base", "theirs", of=APP)])
        await store.note([tagged(REDIS, "7", "a"), tagged(APP, "v1", "b")])
        sums = [(image.own, image.shared) for image in await all_images(store)]
        assert sums == [(17, 100), (40, 100)]

    async def test_two_tags_of_one_manifest_own_nothing_alone(self, store: Store) -> None:
        await store.note([manifest("m"), tagged(REDIS, "7", "m")])
        await store.note([tagged(REDIS, "latest", "m")])
        assert [(image.own, image.shared) for image in await all_images(store)] == [(0, 10)] * 2

    async def test_an_index_is_one_image_with_its_platforms(self, store: Store) -> None:
        await store.note([blob("amd", 100), manifest("m-amd", "amd"), index("i", "m-amd", "m-arm")])
        await store.note([tagged(REDIS, "7", "i")])
        [image] = await all_images(store)
        assert (image.size, image.own) == (115, 115)
        assert image.missing == ()  # the other platform was not asked for

    async def test_what_an_image_lacks_is_named(self, store: Store) -> None:
        await store.note([manifest("m", "config", "layer"), tagged(REDIS, "m", "m")])
        await store.note([index("i", "x", "y"), tagged(REDIS, "i", "i")])
        await store.note([tagged(REDIS, "gone", "gone")])
        lacking = {names([image])[0]: set(image.missing) for image in await all_images(store)}
        assert lacking == {
            "library/redis:m": {digest("config"), digest("layer")},
            "library/redis:i": {digest("x"), digest("y")},
            "library/redis:gone": {digest("gone")},
        }

    async def test_a_manifest_without_a_tag_is_an_image_until_one_stands_for_it(
        self, store: Store
    ) -> None:
        await store.note([manifest("m")])
        assert names(await all_images(store)) == [f"library/redis@{digest('m')}"]
        await store.note([tagged(APP, "v1", "m")])
        assert len(await all_images(store)) == 2  # another repository's tag
        await store.note([tagged(REDIS, "7", "m")])
        assert names(await all_images(store)) == ["library/redis:7", "acme/app:v1"]
        await store.note([manifest("n"), tagged(REDIS, "7", "n")])
        assert names(await all_images(store))[:2] == [
            "library/redis:7",
            f"library/redis@{digest('m')}",
        ]

    async def test_removed_content_is_missing_and_its_image_keeps_its_tag(
        self, store: Store
    ) -> None:
        await store.note([blob("layer", 100), manifest("m", "layer")])
        await store.note([tagged(REDIS, "7", "m"), Removed(digest("layer"))])
        [image] = await all_images(store)
        assert (image.size, image.missing) == (10, (digest("layer"),))
        await store.note([Removed(digest("m"))])
        [image] = await all_images(store)
        assert (image.size, image.missing) == (0, (digest("m"),))
        await store.note([blob("layer", 100), manifest("m", "layer")])
        [image] = await all_images(store)
        assert (image.size, image.missing) == (110, ())

    async def test_an_image_without_a_tag_goes_with_its_manifest(self, store: Store) -> None:
        await store.note([manifest("m"), Removed(digest("m"))])
        assert await all_images(store) == []

    async def test_a_tag_that_is_gone_is_no_image(self, store: Store) -> None:
        await store.note([tagged(REDIS, "7", "m"), tagged(REDIS, "7", None)])
        assert await all_images(store) == []

    async def test_pulls_are_counted_and_the_latest_use_is_kept(self, store: Store) -> None:
        await store.note([manifest("m"), tagged(REDIS, "7", "m")])
        await store.note([Pulled(REDIS, "7", 2, 50.0), Pulled(REDIS, "7", 1, 40.0)])
        await store.note([Pulled(REDIS, "unknown", 1, 60.0)])
        await store.note([Pulled(APP, digest("m"), 4, 70.0), Pulled(APP, digest("no"), 1, 70.0)])
        counts = [(names([i])[0], i.pulls, i.used_at) for i in await all_images(store)]
        assert counts == [
            ("library/redis:7", 3, 50.0),
            (f"acme/app@{digest('m')}", 4, 70.0),
        ]
        await store.note([tagged(REDIS, "7", "n")])
        assert (await all_images(store))[0].pulls == 3

    async def test_repositories_sum_up_their_images(self, store: Store) -> None:
        await store.note([manifest("a"), manifest("b"), manifest("c", of=APP)])
        await store.note([tagged(REDIS, "7", "a"), Pulled(REDIS, "7", 3, 9.0)])
        await store.note([Pulled(REDIS, digest("b"), 1, 8.0)])
        assert await all_repositories(store, 1) == [
            RepositoryEntry(REDIS, 2, 4, 9.0),
            RepositoryEntry(APP, 1, 0, 0.0),
        ]

    async def test_images_of_one_repository(self, store: Store) -> None:
        other = Repository("docker.io", "library/redis-x")
        for repository in (REDIS, other, APP):
            await store.note([tagged(repository, tag, "m") for tag in "abc"])
        page = await store.images("", 2, REDIS)
        assert names(page) == ["library/redis:a", "library/redis:b"]
        page = await store.images(str(page[-1].reference), 2, REDIS)
        assert names(page) == ["library/redis:c"]

    async def test_content_names_the_images_that_need_it(self, store: Store) -> None:
        await store.note([blob("base", 100), blob("loose", 1), manifest("m", "base")])
        await store.note([index("i", "m"), tagged(REDIS, "7", "i")])
        await store.note([manifest("n", "base", of=APP), tagged(APP, "v1", "n")])
        needed = {entry.digest: list(entry.needed_by) for entry in await all_content(store)}
        assert needed == {
            digest("base"): ["docker.io/library/redis:7", "ghcr.io/acme/app:v1"],
            digest("loose"): [],
            digest("m"): ["docker.io/library/redis:7"],
            digest("i"): ["docker.io/library/redis:7"],
            digest("n"): ["ghcr.io/acme/app:v1"],
        }

    async def test_popular_content_names_only_some_images(self, store: Store) -> None:
        await store.note([blob("base", 100)])
        for number in range(NAMED + 5):
            await store.note([manifest(str(number), "base")])
        entry = next(e for e in await all_content(store) if e.digest == digest("base"))
        assert len(set(entry.needed_by)) == NAMED

    async def test_what_stays_is_listed_once_whatever_comes_and_goes(self, store: Store) -> None:
        await store.note([tagged(REDIS, f"t{n:02}", "m") for n in range(0, 40, 2)])
        seen: list[str] = []
        after, turn = "", 0
        while page := await store.images(after, 3):
            seen += names(page)
            after = str(page[-1].reference)
            await store.note([tagged(REDIS, f"t{turn * 2 + 1:02}", "m")])
            await store.note([tagged(REDIS, f"t{turn * 4:02}", None)])
            turn += 1
        assert len(seen) == len(set(seen))
        assert {f"library/redis:t{n:02}" for n in range(2, 40, 4)} <= set(seen)

    @pytest.mark.parametrize("limit", [0, LONGEST_PAGE + 1])
    async def test_a_page_has_a_longest_length(self, store: Store, limit: int) -> None:
        tags = [tagged(REDIS, f"t{number}", "m") for number in range(LONGEST_PAGE + 5)]
        await store.note(tags)
        assert len(await store.images("", limit)) == min(limit, LONGEST_PAGE)

    async def test_what_was_not_noted_again_is_forgotten(self, store: Store) -> None:
        await store.note([blob("old", 1, at=10.0), blob("new", 1, at=10.0)])
        await store.note([blob("new", 1, at=20.0)])
        await store.forget_older(15.0)
        assert [entry.digest for entry in await all_content(store)] == [digest("new")]

    async def test_content_noted_without_a_type_leaves_what_is_known_of_a_manifest(
        self, store: Store
    ) -> None:
        await store.note([blob("layer", 100), manifest("m", "layer"), blob("m", 10, at=5.0)])
        [image] = await all_images(store)
        assert (image.size, image.missing) == (110, ())
        await store.note([Removed(digest("m")), blob("m", 10)])
        assert await all_images(store) == []
        assert {entry.media_type for entry in await all_content(store)} == {""}

    async def test_noting_the_same_again_changes_nothing(self, store: Store) -> None:
        changes = [blob("layer", 100), manifest("m", "layer"), tagged(REDIS, "7", "m")]
        await store.note(changes)
        before = await all_images(store), await all_content(store)
        await store.note(changes)
        assert (await all_images(store), await all_content(store)) == before

    async def test_a_new_catalogue_lacks_something_until_it_is_made_good(
        self, store: Store
    ) -> None:
        first = await store.lost()
        assert first is not None
        await store.made_good(first)
        assert await store.lost() is None

    async def test_what_is_lost_meanwhile_is_not_made_good(self, store: Store) -> None:
        first = await store.lost()
        assert first is not None
        second = await store.lose()
        assert second == await store.lost() != first
        await store.made_good(first)
        assert await store.lost() == second
        assert second is not None
        await store.made_good(second)
        assert await store.lost() is None
