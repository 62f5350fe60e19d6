"""HostedRecords, on each engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mirror.contracts.hosted import (
    HostedManifest,
    Missing,
    Needed,
    RetentionRule,
    Seen,
    TagImmutable,
    TagOrder,
    Visibility,
)
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_MANIFEST, Platform
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.repositories import RepositoryRecords

NOW = 1_000_000.0
APP = "team/app"


@pytest.fixture
def records(database: Database) -> RepositoryRecords:
    return RepositoryRecords(database)


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def image(name: str, *blobs: str, **more: object) -> HostedManifest:
    made = HostedManifest(digest(name), OCI_MANIFEST, 100, tuple(map(digest, blobs)))
    return replace(made, **more)  # type: ignore[arg-type]


async def push(
    records: RepositoryRecords, repository: str, name: str, *blobs: str, tag: str | None = None
) -> Digest | None:
    for each in blobs:
        await records.add_blob(repository, digest(each), 10, NOW, "ann")
    return await records.put_manifest(repository, image(name, *blobs), tag, NOW, "ann")


async def test_what_was_pushed_is_there(records: RepositoryRecords) -> None:
    await records.add_blob(APP, digest("layer"), 10, NOW, "ann")
    pushed = image(
        "one",
        "layer",
        artifact_type="a/b\0",
        annotations={"k": "\0\ud800"},
        platforms=(Platform("linux", "arm64", "v8"), Platform("linux", "amd64")),
        image_size=10,
        subject=digest("nothing here"),
    )
    assert await records.put_manifest(APP, pushed, "latest", NOW + 1, "ann") is None
    found = await records.manifest(APP, pushed.digest)
    assert found == replace(pushed, artifact_type="a/b", pushed_at=NOW + 1, pushed_by="ann")
    tag = await records.resolve(APP, "latest")
    assert tag is not None
    assert (tag.digest, tag.moved_at, tag.moved_by) == (pushed.digest, NOW + 1, "ann")
    assert await records.has_manifest(APP, pushed.digest)
    assert not await records.has_manifest("team/other", pushed.digest)
    assert await records.blob(APP, digest("layer")) == 10
    assert await records.blob("team/other", digest("layer")) is None
    repository = await records.repository(APP)
    assert repository is not None
    assert (repository.visibility, repository.pushed_at) == (Visibility.PRIVATE, NOW + 1)
    assert await records.referrers(APP, digest("nothing here")) == [found]
    assert await records.referrers(APP, digest("nothing here"), "a/b\0") == [found]
    assert await records.referrers(APP, digest("nothing here"), "c/d") == []


async def test_a_manifest_needs_what_it_refers_to(records: RepositoryRecords) -> None:
    await records.add_blob("team/other", digest("layer"), 10, NOW, "ann")
    with pytest.raises(Missing) as raised:
        await records.put_manifest(APP, image("one", "layer"), "latest", NOW, "ann")
    assert raised.value.digests == (digest("layer"),)
    assert await records.resolve(APP, "latest") is None
    index = image("index", manifests=(digest("one"),))
    with pytest.raises(Missing):
        await records.put_manifest(APP, index, None, NOW, "ann")
    await push(records, APP, "one", "layer")
    await records.put_manifest(APP, index, None, NOW, "ann")
    assert await records.delete_manifest(APP, digest("one"), NOW, "ann")
    assert await records.has_manifest(APP, digest("index"))


async def test_mounts(records: RepositoryRecords) -> None:
    await records.add_blob("a/b", digest("layer"), 10, NOW, "ann")
    assert not await records.mount(APP, digest("layer"), ["c/d"], NOW, "ann")
    assert await records.repository(APP) is None
    assert await records.mount(APP, digest("layer"), ["c/d", "a/b"], NOW, "ann")
    assert await records.blob(APP, digest("layer")) == 10
    assert await records.owners(digest("layer")) == ["a/b", APP]


async def test_tags_move_and_are_remembered(records: RepositoryRecords) -> None:
    await push(records, APP, "one", "layer", tag="v1")
    await push(records, APP, "one", "layer", tag="Beta")
    assert await push(records, APP, "two", "layer", tag="v1") == digest("one")
    assert await push(records, APP, "two", "layer", tag="v1") == digest("two")
    assert [tag.name for tag in await records.tags(APP)] == ["Beta", "v1"]
    assert [tag.name for tag in await records.tags(APP, 1)] == ["Beta"]
    assert [tag.name for tag in await records.tags(APP, 5, "Beta")] == ["v1"]
    assert await records.tags(APP, 0) == []
    assert await records.delete_tag(APP, "v1", NOW + 9, "bob")
    assert not await records.delete_tag(APP, "v1", NOW + 9, "bob")
    moves = await records.history(APP, "v1")
    assert [(move.digest, move.by) for move in moves] == [
        (None, "bob"),
        (digest("two"), "ann"),
        (digest("one"), "ann"),
    ]


async def test_tags_with_what_they_point_to(records: RepositoryRecords) -> None:
    times = {"a": NOW, "b": NOW + 2, "c": NOW + 2, "d": NOW + 1}
    for name, at in times.items():
        await records.put_manifest(APP, image(name), name, at, "ann")

    async def page(
        order: TagOrder, count: int, after: tuple[str, float] | None = None
    ) -> list[str]:
        found = await records.tagged(APP, order, count, after)
        assert all(tag.digest == manifest.digest for tag, manifest in found)
        return [tag.name for tag, _ in found]

    assert await page(TagOrder.NAME, 9) == ["a", "b", "c", "d"]
    assert await page(TagOrder.NAME, 2, ("a", 0.0)) == ["b", "c"]
    assert await page(TagOrder.NEWEST, 9) == ["b", "c", "d", "a"]
    assert await page(TagOrder.NEWEST, 2, ("b", NOW + 2)) == ["c", "d"]
    assert await page(TagOrder.NEWEST, 2, ("gone", NOW + 1)) == ["a"]


async def test_the_tags_of_one_manifest(records: RepositoryRecords) -> None:
    for repository, name, tag in (
        (APP, "one", "v1"),
        (APP, "one", "Beta"),
        (APP, "two", "v2"),
        ("team/other", "one", "v3"),
    ):
        await push(records, repository, name, tag=tag)
    assert await records.tags_of(APP, digest("one")) == ["Beta", "v1"]
    assert await records.tags_of(APP, digest("nothing here")) == []


async def test_sizes_of_many_images_are_told_at_once(records: RepositoryRecords) -> None:
    meant = {digest(f"{number}"): number for number in range(1100)}  # more than one statement takes
    for number in (0, 1, 499, 500, 1099):
        await records.put_manifest(APP, image(f"{number}", image_size=number), None, NOW, "ann")
    await records.put_manifest("team/other", image("2", image_size=2), None, NOW, "ann")
    huge = image("huge", image_size=(1 << 63) - 1)
    await records.put_manifest(APP, huge, None, NOW, "ann")
    assert await records.image_sizes(APP, [*meant, huge.digest, digest("0")]) == {
        **{digest(f"{number}"): number for number in (0, 1, 499, 500, 1099)},
        huge.digest: (1 << 63) - 1,
    }
    assert await records.image_sizes(APP, []) == {}
    assert await records.image_sizes("team/none", list(meant)) == {}


async def test_the_history_of_a_tag_is_bounded(records: RepositoryRecords) -> None:
    for number in range(55):
        await push(records, APP, f"{number}", tag="v1")
        await records.delete_tag(APP, "v1", NOW, "ann")
    assert len(await records.history(APP, "v1", 1000)) == 100


async def test_immutable_tags_stay(records: RepositoryRecords) -> None:
    await push(records, APP, "one", "layer", tag="v1")
    await push(records, APP, "one", "layer", tag="dev")
    await records.change(APP, immutable=("v*",))
    with pytest.raises(TagImmutable):
        await push(records, APP, "two", "layer", tag="v1")
    assert not await records.has_manifest(APP, digest("two"))
    assert await push(records, APP, "one", "layer", tag="v1") == digest("one")
    with pytest.raises(TagImmutable):
        await records.delete_tag(APP, "v1", NOW, "ann")
    with pytest.raises(TagImmutable):
        await records.delete_manifest(APP, digest("one"), NOW, "ann")
    assert await push(records, APP, "two", "layer", tag="v2") is None
    assert await records.delete_tag(APP, "dev", NOW, "ann")


async def test_deletes(records: RepositoryRecords) -> None:
    await push(records, APP, "one", "layer", tag="v1")
    with pytest.raises(Needed) as raised:
        await records.delete_blob(APP, digest("layer"))
    assert raised.value.manifest == digest("one")
    assert await records.delete_manifest(APP, digest("one"), NOW, "ann")
    assert not await records.delete_manifest(APP, digest("one"), NOW, "ann")
    assert await records.resolve(APP, "v1") is None
    assert (await records.history(APP, "v1"))[0].digest is None
    assert await records.delete_blob(APP, digest("layer"))
    assert not await records.delete_blob(APP, digest("layer"))
    await push(records, APP, "one", "layer", tag="v1")
    assert await records.delete_repository(APP, NOW, "ann")
    assert not await records.delete_repository(APP, NOW, "ann")
    assert await records.repository(APP) is None
    assert await records.usage("team") == 0


async def test_usage_counts_each_digest_once(records: RepositoryRecords) -> None:
    await push(records, APP, "one", "layer", "config", tag="v1")
    await push(records, "team/other", "one", "layer")
    await push(records, "nobody/else", "one", "layer")
    assert await records.usage("team") == 120
    await records.delete_manifest(APP, digest("one"), NOW, "ann")
    assert await records.usage("team") == 120
    await records.delete_manifest("team/other", digest("one"), NOW, "ann")
    assert await records.usage("team") == 20
    await records.delete_blob(APP, digest("config"))
    assert await records.usage("team") == 10
    await records.delete_repository(APP, NOW, "ann")
    assert await records.usage("team") == 10
    assert await records.usage("nobody") == 110


async def test_the_size_of_a_repository_is_that_of_its_blobs_and_manifests(
    records: RepositoryRecords,
) -> None:
    await push(records, APP, "one", "layer", "config", tag="v1")
    await push(records, "team/other", "one", "layer")
    assert await records.sizes([APP, "team/other", "team/none"]) == {APP: 120, "team/other": 110}
    assert await records.sizes([]) == {}


async def test_listings_show_what_may_be_seen(records: RepositoryRecords) -> None:
    for name in ("a/one", "a/two", "b/one", "b/x_y", "b/xzy", "c/open"):
        visibility = Visibility.PUBLIC if name == "c/open" else Visibility.PRIVATE
        await records.create(name, visibility, NOW, "ann")
    await records.change("a/two", description="The 100% Thing")

    async def names(seen: Seen, *asked: object) -> list[str]:
        return [each.name for each in await records.repositories(seen, *asked)]  # type: ignore

    everything = Seen(everything=True)
    assert await names(Seen()) == ["c/open"]
    assert await names(Seen(namespaces=frozenset({"a"}))) == ["a/one", "a/two", "c/open"]
    assert await names(Seen(patterns=("b/x_*",))) == ["b/x_y", "c/open"]
    assert await names(Seen(patterns=("b/x[z]y",))) == ["b/xzy", "c/open"]
    assert await names(everything, "0% thing") == ["a/two"]
    assert await names(everything, "x_") == ["b/x_y"]
    assert await names(everything, "", 2) == ["a/one", "a/two"]
    assert await names(everything, "", 2, "a/two") == ["b/one", "b/x_y"]
    assert await names(everything, "\0") == await names(everything)


async def test_settings(records: RepositoryRecords) -> None:
    assert await records.change(APP, description="x") is None
    made = await records.create(APP, Visibility.PUBLIC, NOW, "ann")
    assert made == await records.create(APP, Visibility.PRIVATE, NOW + 1, "bob")
    rules = (RetentionRule(("v*",), keep=3), RetentionRule(younger=60.0, untagged=5.0))
    changed = await records.change(
        APP, visibility=Visibility.PRIVATE, immutable=["v1"], retention=rules
    )
    assert changed == replace(
        made, visibility=Visibility.PRIVATE, immutable=("v1",), retention=rules
    )
    assert changed == await records.repository(APP)


async def test_many_at_once(records: RepositoryRecords) -> None:
    await asyncio.gather(
        *(push(records, f"team/{number % 5}", f"{number}", "layer") for number in range(100))
    )
    assert await records.usage("team") == 100 * 100 + 10
    failed = await asyncio.gather(
        *(
            records.put_manifest(APP, image(f"x{number}", "none"), None, NOW, "ann")
            if number % 2
            else push(records, APP, f"y{number}")
            for number in range(20)
        ),
        return_exceptions=True,
    )
    assert [isinstance(each, Missing) for each in failed] == [False, True] * 10


async def test_an_ask_renews_what_is_old_enough(records: RepositoryRecords) -> None:
    await records.add_blob(APP, digest("layer"), 10, NOW, "ann")
    later = NOW + 90_000
    assert await records.blob(APP, digest("layer"), later) == 10
    assert await records.blob(APP, digest("other"), later) is None
