"""The event loop is never held up by what goes on behind."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.context import Asker
from mirror.contracts.registry import BytesContent, Outcome
from mirror.events import Events
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifests import MAX_DESCRIPTORS, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.policy.visibility import RepositoryVisibility
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.ingest_key import IngestKey
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy
from mirror.storage.records.links import LinkRecords

from ...fakes import CONTEXT, FakeTags, FakeUpstream
from ...storage.content_contract import put

LONGEST = 0.050  # seconds that anything may hold up the loop
ROUNDS = 5

MIB = 1 << 20
FILLED = Outcome.FILLED
LARGE = os.urandom(64 * MIB)
MANY = 800


class Watch:
    """The longest time that one callback took, and what it was."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.what = ""


@contextmanager
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Every step of the loop is timed."""
    watch = Watch()
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        step = handle._callback
        began = time.perf_counter()
        run(handle)
        took = time.perf_counter() - began
        if took > watch.longest:
            watch.longest, watch.what = took, repr(getattr(step, "__self__", handle))

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", timed)
        yield watch


async def never_held_up(
    prepare: Callable[[], Awaitable[object]],
    job: Callable[[], Awaitable[object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What holds up the loop does so each time; another program that has the processor does not.
    So the best of a few rounds counts."""
    watches = []
    for _ in range(ROUNDS):
        await prepare()
        with watching(monkeypatch) as watch:
            await job()
        watches.append(watch)
        if watch.longest < LONGEST:
            return
    worst = min(watches, key=lambda watch: watch.longest)
    pytest.fail(f"held up for {worst.longest * 1000:.0f} ms by {worst.what}")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    store = DiskContent(tmp_path / "store", Bounds(200 * MIB), sync=True, events=Events())
    yield store
    await store.close()


@pytest.fixture
def upkeep(store: DiskContent) -> Upkeep:
    return Upkeep(store, UpkeepPolicy(partial_ttl=0, scrub_speed=1e12))


async def nothing() -> None:
    """No preparation."""


async def test_f44_the_watch_sees_what_holds_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blocks() -> None:
        time.sleep(2 * LONGEST)  # noqa: ASYNC251 - the fault itself

    with pytest.raises(pytest.fail.Exception, match="blocks"):
        await never_held_up(nothing, lambda: asyncio.create_task(blocks()), monkeypatch)


async def test_f44_a_scrub(
    store: DiskContent, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, LARGE)
    await _put_many(store, 200)

    async def scrub() -> None:
        async for _ in upkeep.scrub():
            pass

    await never_held_up(nothing, scrub, monkeypatch)


async def test_f44_mending_a_store_with_many_blobs(
    store: DiskContent, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All recorded, none recorded, and no files to the records."""
    digests = _place_many(store, MANY)
    await never_held_up(nothing, upkeep.mend, monkeypatch)
    assert store.usage().entries == MANY
    await never_held_up(nothing, upkeep.mend, monkeypatch)
    for digest in digests:
        store.blobs.path(digest).unlink()
    await never_held_up(nothing, upkeep.mend, monkeypatch)
    assert store.usage().entries == 0


async def test_f44_evicting_many_and_forgetting_partials(
    store: DiskContent, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare() -> None:
        await _put_many(store, 300)
        for number in range(100):
            path = store.ingest.path(IngestKey(Digest.of(b"partial %d" % number)))
            path.write_bytes(b"x")

    async def tidy() -> None:
        await upkeep.tidy()
        await store.space.make(200 * MIB)

    await never_held_up(prepare, tidy, monkeypatch)
    assert store.usage().entries == 0


async def test_f44_a_large_blob_is_hashed_synced_renamed_evicted(
    store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(LARGE)

    async def prepare() -> None:
        await store.delete(digest)
        store.ingest.path(IngestKey(digest)).write_bytes(LARGE[: 60 * MIB])

    async def life() -> None:
        partial = await store.partial(digest)  # hashes what is there
        assert partial is not None
        await partial.announce(len(LARGE))
        pieces = [LARGE[at : at + MIB] for at in range(60 * MIB, len(LARGE), MIB)]
        await partial.append(pieces)
        await partial.commit()
        content = await store.open(digest)
        assert content is not None
        await store.space.make(len(LARGE))
        content.close()  # which frees it

    await never_held_up(prepare, life, monkeypatch)


async def test_f44_a_huge_manifest_is_read_for_each_repository_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = {str(number): "" for number in range(40)}
    layers = [
        {"digest": f"sha256:{number:064x}", "size": 1, "annotations": annotations}
        for number in range(MAX_DESCRIPTORS)
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers}
    data = json.dumps(document).encode()
    content = BytesContent(Descriptor(OCI_MANIFEST, Digest.of(data), len(data)), data, FILLED)

    class Upstream(FakeUpstream):
        async def manifest(
            self, asker: Asker, repository: Repository, digest: Digest
        ) -> BytesContent:
            return content

        async def resolve(
            self,
            asker: Asker,
            repository: Repository,
            tag: str,
            passed_over: Collection[Digest] = (),
        ) -> Descriptor:
            return content.descriptor

    clock = Clock()
    links = LinkRecords(tmp_path / "links.db", clock)
    store = DiskContent(tmp_path / "store", Bounds(200 * MIB), sync=False, events=Events())
    caches: list[RepositoryVisibility] = []

    async def prepare() -> None:
        upstream = Upstream()
        cache = PullThrough(upstream, Shared.over(store, FakeTags(), Fills(store, Events())))
        caches.append(RepositoryVisibility(cache, upstream, links, clock))
        await store.delete(content.descriptor.digest)

    async def ask() -> None:
        repository = Repository("docker.io", f"library/{len(caches)}")
        for _ in range(2):
            answer = await caches[-1].manifest(CONTEXT, repository, content.descriptor.digest)
            assert answer.data == data

    await never_held_up(prepare, ask, monkeypatch)
    for each in (*caches, store, links):
        await each.close()


async def _put_many(store: DiskContent, count: int) -> None:
    for digest in _place_many(store, count):
        content = await store.open(digest)
        assert content is not None
        content.close()


def _place_many(store: DiskContent, count: int) -> list[Digest]:
    """Files without a record."""
    digests = []
    for number in range(count):
        data = b"blob %d" % number
        digests.append(Digest.of(data))
        path = store.blobs.path(digests[-1])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return digests
