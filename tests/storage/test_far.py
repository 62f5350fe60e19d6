"""What is due to be given to the second tier, as the disk's account has it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from mirror.contracts.events import ContentEvicted
from mirror.contracts.hosted import HOSTED
from mirror.contracts.second_tier import FarStanding
from mirror.oci.digest import Digest
from mirror.storage.disk.index_schema import _VERSIONS
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ..fakes import HandClock, Recorder

SIZE = 1000


@pytest.fixture
def told() -> Recorder:
    return Recorder()


@pytest.fixture
async def store(tmp_path: Path, told: Recorder) -> AsyncIterator[DiskContent]:
    store = opened(tmp_path, told)
    yield store
    await store.close()


def opened(root: Path, told: Recorder, clock: HandClock | None = None) -> DiskContent:
    return DiskContent(
        root,
        Bounds(100 * SIZE, block=1),
        events=told,
        clock=(clock or HandClock()).clock(),
        is_guest=lambda source: source == "guest.example",
    )


async def keep(store: DiskContent, source: str = "docker.io") -> Digest:
    data = os.urandom(SIZE)
    await store.put(Digest.of(data), data, source=source)
    return Digest.of(data)


async def due(store: DiskContent, *, newest: bool = False) -> list[Digest]:
    return [
        each.digest
        for source in await store.far.sources()
        for each in await store.far.due(source, newest, (), 1000)
    ]


async def test_what_is_put_is_due_until_it_is_noted_as_far(store: DiskContent) -> None:
    digest = await keep(store)
    assert await due(store) == [digest]
    assert not store.far.is_far(digest)
    await store.far.note(digest, FarStanding.FAR)
    assert await due(store) == []
    assert store.far.is_far(digest)
    await store.far.note(digest, FarStanding.WRONG)
    [source] = await store.far.sources()
    [again] = await store.far.due(source, True, (), 1)
    assert again.is_wrong
    await store.far.note(digest, FarStanding.NOT_YET)
    await store.far.given(again)  # something else is known of it by now
    assert not store.far.is_far(digest)
    [again] = await store.far.due(source, True, (), 1)
    await store.far.given(again)
    assert store.far.is_far(digest)


async def test_what_was_noted_as_far_long_ago_is_due_again_after_all_others(
    tmp_path: Path, told: Recorder
) -> None:
    clock = HandClock()
    store = opened(tmp_path, told, clock)
    old = await keep(store)
    await store.far.note(old, FarStanding.FAR)
    clock.now += 100
    new = await keep(store)
    await store.far.note(new, FarStanding.FAR)
    assert await store.far.doubt("", 2, clock.now - 50) is not None
    assert await store.far.doubt("~", 2, clock.now - 50) is None
    assert await store.far.sources() == [""]
    assert await due(store) == [old]
    assert (await store.far.backlog()).oldest is None
    await store.close()


async def test_what_came_as_a_partial_is_due_and_what_guests_brought_is_not(
    store: DiskContent,
) -> None:
    await keep(store, "guest.example")
    partial = await store.partial(Digest.of(b"data"), "docker.io")
    assert partial is not None
    await partial.append([b"data"])
    assert await due(store) == []
    await partial.commit()
    assert await due(store) == [Digest.of(b"data")]


async def test_what_is_pushed_is_not_due(store: DiskContent) -> None:
    await store.held.put_held(Digest.of(b"pushed"), b"pushed")
    assert await due(store) == []


async def test_what_is_due_and_what_is_far_outlives_the_process(
    tmp_path: Path, told: Recorder
) -> None:
    store = opened(tmp_path, told)
    first, second = await keep(store), await keep(store)
    await store.far.note(first, FarStanding.FAR)
    other = opened(tmp_path, told)  # as after a kill: nobody has closed the first
    assert await due(other) == [second]
    assert other.far.is_far(first)
    await other.close()
    await store.close()


async def test_sources_are_told_apart_and_order_is_by_coming(
    tmp_path: Path, told: Recorder
) -> None:
    clock = HandClock()
    store = opened(tmp_path, told, clock)
    came = []
    for source in ("docker.io", "ghcr.io", "docker.io", ""):
        clock.now += 1
        came.append(await keep(store, source))
    sources = await store.far.sources()
    assert len(sources) == 3
    assert "" in sources
    by_source = {
        source: [each.digest for each in await store.far.due(source, True, (), 9)]
        for source in sources
    }
    assert [came[2], came[0]] in by_source.values()
    backlog = await store.far.backlog()
    assert backlog.count == 4
    assert backlog.oldest == clock.now - 3  # the last was recorded with no source
    await store.close()


async def test_eviction_takes_what_is_far_first_and_tells_what_was_due(
    tmp_path: Path, told: Recorder
) -> None:
    clock = HandClock()
    store = opened(tmp_path, told, clock)
    digests = []
    for _ in range(100):
        clock.now += 1
        digests.append(await keep(store))
    for digest in digests[10:20]:
        await store.far.note(digest, FarStanding.FAR)
    for _ in range(10):
        await keep(store)
    gone = [digest for digest in digests if store.size(digest) is None]
    assert gone == digests[10:20]
    assert not any(event.is_due for event in told.of(ContentEvicted))
    await keep(store)  # and nothing is refused as nothing is far any more
    assert store.size(digests[0]) is None
    assert told.of(ContentEvicted)[-1].is_due
    await store.close()


async def test_an_account_from_before_there_was_a_second_tier_has_all_of_it_due(
    tmp_path: Path, told: Recorder
) -> None:
    digest = Digest.of(b"old")
    db = apsw.Connection(str(tmp_path / "index.db"))
    for version in _VERSIONS[:3]:
        db.execute(version)
    db.execute("PRAGMA user_version = 3")
    db.execute(
        "INSERT INTO content (digest, size, used_at, rank) VALUES (?, 3, 1.0, 0)", (str(digest),)
    )
    db.close()
    store = opened(tmp_path, told)
    path = store.blobs.path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"old")
    [each] = await store.far.due("", False, (), 9)
    assert (each.digest, each.came) == (digest, 0)
    content = await store.far.open(digest)
    assert content is not None
    assert content.pread(9, 0) == b"old"
    content.close()
    await store.close()


async def test_what_was_pushed_is_not_given_there(store: DiskContent) -> None:
    """It is kept elsewhere for all nodes when it is let go, and gone when it is deleted there."""
    pushed, brought = b"pushed", b"brought from where it is kept"
    mirrored = await keep(store)
    await store.held.put_held(Digest.of(pushed), pushed)
    await store.held.let_go(Digest.of(pushed))
    await store.put(Digest.of(brought), brought, source=HOSTED)
    assert await due(store) == [mirrored]
    assert (await store.far.backlog()).count == 1
    # What was the mirror's before it was pushed is so still.
    await store.held.hold(mirrored)
    assert await due(store) == []
    await store.held.let_go(mirrored)
    assert await due(store) == [mirrored]
    await store.far.note(mirrored, FarStanding.FAR)
    assert await due(store) == []
