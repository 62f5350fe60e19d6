"""CollectionRecords, on each engine, beside the model in memory."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mirror.contracts.hosted import (
    Garbage,
    HostedManifest,
    LooseBlob,
    Missing,
    Needed,
    Seen,
    TagImmutable,
)
from mirror.oci.digest import Digest
from mirror.storage.records.hosted import collecting
from mirror.storage.records.hosted.collecting import CollectingRecords
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.repositories import RepositoryRecords
from tests.fakes.hosted import MemoryRecords
from tests.waiting import eventually

NOW = 1_000_000.0
APP = "team/app"


class Both(RepositoryRecords, CollectingRecords):
    """What one database has of both contracts."""

    def __init__(self, database: Database) -> None:
        CollectingRecords.__init__(self, database)
        RepositoryRecords.__init__(self, database, late=0)


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def image(name: str, *blobs: str, manifests: tuple[str, ...] = ()) -> HostedManifest:
    return HostedManifest(
        digest(name), "a/b", 100, tuple(map(digest, blobs)), tuple(map(digest, manifests))
    )


async def test_a_foreign_layer_that_was_sent_stays_with_its_manifest(
    database: Database,
) -> None:
    records = Both(database)
    await records.add_blob(APP, digest("sent"), 10, NOW, "ann")
    made = replace(image("one"), foreign=(digest("sent"), digest("sent later"), digest("not sent")))
    await records.put_manifest(APP, made, "1", NOW, "ann")
    await records.add_blob(APP, digest("sent later"), 10, NOW, "ann")
    assert [each.digest for each in (await records.garbage(NOW + 1, 9)).blobs] == [
        digest("sent later")
    ]
    await records.put_manifest(APP, made, "1", NOW, "ann")
    assert await records.garbage(NOW + 1, 9) == Garbage([], [])
    with pytest.raises(Needed):
        await records.delete_blob(APP, digest("sent"))


async def test_what_nothing_needs_goes_after_its_grace(database: Database) -> None:
    records = Both(database)
    for blob in ("used", "loose", "asked"):
        await records.add_blob(APP, digest(blob), 10, NOW, "ann")
    await records.add_blob("team/empty", digest("loose"), 10, NOW, "ann")
    await records.put_manifest(APP, image("one", "used"), None, NOW, "ann")
    await records.blob(APP, digest("asked"), NOW + 50)
    assert await records.garbage(NOW, 9) == Garbage([], [])
    found = await records.garbage(NOW + 1, 9)
    assert found.blobs == [
        LooseBlob(APP, digest("loose"), 10, 2),
        LooseBlob("team/empty", digest("loose"), 10, 2),
    ]
    assert found.repositories == []
    await records.blob(APP, digest("loose"), NOW + 50)
    assert (await records.remove(found, NOW + 1)).blobs == found.blobs[1:]
    assert await records.usage("team") == 130
    found = await records.garbage(NOW + 1, 9)
    assert found == Garbage([], ["team/empty"])
    assert await records.remove(found, NOW + 1) == found
    assert await records.repository("team/empty") is None


async def test_needed(database: Database) -> None:
    records = Both(database)
    await records.add_blob(APP, digest("layer"), 10, NOW, "ann")
    await records.put_manifest(APP, image("one", "layer"), None, NOW, "ann")
    await records.put_manifest(APP, image("index", manifests=("one",)), None, NOW, "ann")
    await records.delete_manifest(APP, digest("one"), NOW, "ann")
    asked = [digest(each) for each in ("layer", "one", "index", "other")]
    assert set(await records.needed(asked)) == set(asked[:3])
    had = sorted((digest("layer"), digest("index")), key=str)
    assert await records.content(None, 9) == had
    assert await records.content(had[0], 9) == had[1:]
    assert await records.content(None, 1) == had[:1]


async def test_what_retention_takes_out(database: Database) -> None:
    records = Both(database)
    names = ("old", "kept", "child", "tagged", "again")
    for name in names:
        await records.put_manifest(APP, image(name), name, NOW, "ann")
    await records.put_manifest(APP, image("index", manifests=("child",)), "index", NOW, "ann")
    await records.change(APP, immutable=["*"])
    tags = {tag.name: tag for tag in await records.tags(APP)}
    manifests = {str(one.digest): one for one in await records.manifests(APP)}
    old = [manifests[str(digest(name))] for name in names]
    await records.has_manifest(APP, digest("again"), NOW + 50)
    gone, expired = await records.expire(
        APP,
        [tags["old"], tags["child"], tags["again"], replace(tags["kept"], moved_at=NOW - 1)],
        old,
        NOW + 1,
        NOW + 60,
        "retention",
    )
    assert [tag.name for tag in gone] == ["old", "child", "again"]
    assert [one.digest for one in expired] == [digest("old")]
    assert (await records.history(APP, "old"))[0].by == "retention"
    # An index and its parts go together.
    gone, expired = await records.expire(
        APP, [tags["index"]], list(manifests.values()), NOW + 55, NOW + 60, "retention"
    )
    assert {one.digest for one in expired} == {digest("index"), digest("child"), digest("again")}


async def test_one_collects_at_a_time(database: Database) -> None:
    one, other = CollectingRecords(database), CollectingRecords(database)
    async with one.alone() as first, other.alone() as second:
        assert (first, second) == (True, False)

    async def is_free() -> bool:
        async with other.alone() as again:
            return again

    # PostgreSQL notices some time later that a connection was closed.
    await eventually(is_free, 30)


async def test_who_is_cancelled_keeps_no_lock_of_the_collectors(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, goes_on = threading.Event(), threading.Event()
    lock = collecting._lock

    def slow(of: Database) -> Callable[[], None] | None:
        end = lock(of)
        taken.set()
        goes_on.wait(10)
        return end

    async def collect() -> None:
        async with records.alone():
            pass

    records = CollectingRecords(database)
    with monkeypatch.context() as patched:
        patched.setattr(collecting, "_lock", slow)
        task = asyncio.create_task(collect())
        await asyncio.to_thread(taken.wait, 10)
        task.cancel()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def is_free() -> bool:
        async with records.alone() as alone:
            return alone

    await eventually(is_free)


async def everything(records: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for repository in await records.repositories(Seen(everything=True)):
        name = repository.name
        told[name] = (repository, await records.tags(name), await records.manifests(name))
    told["usage"] = await records.usage("team")
    found = await records.garbage(2 * NOW, 1000)
    told["garbage"] = sorted(map(repr, found.blobs)), sorted(found.repositories)
    told["content"] = await records.content(None, 1000)
    return told


@pytest.mark.parametrize("seed", range(2))
async def test_it_does_what_the_model_does(database: Database, seed: int) -> None:
    """Pushes, deletes and collections at random."""
    chance = random.Random(seed)
    records, model = Both(database), MemoryRecords()
    blobs = [digest(f"b{number}") for number in range(6)]
    names = [f"m{number}" for number in range(6)]
    for step in range(150):
        now = NOW + step
        repository = chance.choice(["team/a", "team/b", "team/c"])
        blob, name = chance.choice(blobs), chance.choice(names)
        pushed = HostedManifest(
            digest(name),
            "a/b",
            7,
            tuple(chance.sample(blobs, 2)),
            (digest(chance.choice(names)),) if chance.random() < 0.3 else (),
        )
        known = await model.manifest(repository, pushed.digest)
        if known is not None:  # a digest is one content
            pushed = replace(pushed, blobs=known.blobs, manifests=known.manifests)
        tag = chance.choice([None, "t1", "t2"])
        relied_before = now - chance.randrange(20)
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("add_blob", (repository, blob, 5, now, "ann")),
            ("add_blob", (repository, blob, 5, now, "ann")),
            ("mount", (repository, blob, ["team/a", "team/c"], now, "ann")),
            ("blob", (repository, blob, now)),
            ("put_manifest", (repository, pushed, tag, now, "ann")),
            ("put_manifest", (repository, pushed, tag, now, "ann")),
            ("put_manifest", (repository, pushed, tag, now, "ann")),
            ("delete_tag", (repository, "t1", now, "ann")),
            ("delete_manifest", (repository, digest(name), now, "ann")),
            ("delete_blob", (repository, blob)),
            ("remove", (await model.garbage(relied_before, 100), relied_before)),
            (
                "expire",
                (
                    repository,
                    await model.tags(repository, 1),
                    (await model.manifests(repository))[:3],
                    relied_before,
                    now,
                    "ann",
                ),
            ),
        ]
        if chance.random() < 0.02:
            calls = [("delete_repository", (repository, now, "ann"))]
        method, arguments = chance.choice(calls)
        told = []
        for each in (records, model):
            try:
                told.append(_plain(await getattr(each, method)(*arguments)))
            except (Missing, Needed, TagImmutable) as error:
                told.append(type(error))
        assert told[0] == told[1], (step, method, arguments)
        if step % 10 == 9:
            assert await everything(records) == await everything(model), (step, method)


def _plain(told: Any) -> Any:
    if isinstance(told, Garbage):
        return sorted(map(repr, told.blobs)), sorted(told.repositories)
    if isinstance(told, tuple):
        return [sorted(map(repr, each)) for each in told]
    return told
