"""A registry that anybody may run opens nothing of the others by its word."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.context import RequestContext
from mirror.contracts.registry import FileContent, Reader
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, RegistryError, Unavailable, Untrustworthy
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository
from mirror.policy.unconfigured import Shown, UnconfiguredGuard
from mirror.policy.visibility import RepositoryVisibility
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.policy import CachePolicy, TroublePatience
from mirror.pullthrough.shared import Shared
from mirror.storage.records.links import LinkRecords

from ..fakes import CONTEXT, FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of
from ..waiting import eventually
from .test_fills import BIG as LARGE
from .test_fills import Hold as HoldStream

SECRET = Repository("corp", "team/secret")
EVIL = Repository("evil.example", "x")
LAYER = b"layer" * 1000
CONFIG = b"{}"
MANIFEST = manifest_of(CONFIG, LAYER)
LARGEST = 8 << 20  # bytes of a blob


class TwoRegistries:
    def __init__(self, folder: Path, store: MemoryContent, fills: Fills, wall: HandClock) -> None:
        clock = Clock(wall=wall)
        self.corp, self.evil = FakeUpstream(), FakeUpstream()
        self.corp.push("v1", MANIFEST, CONFIG, LAYER)
        self.links = LinkRecords(folder / "links.db", clock)
        self.own = LinkRecords(folder / "others.db", clock)
        self.caches = [
            PullThrough(
                upstream,
                Shared.over(store, FakeTags(), fills, clock=clock),
                CachePolicy(trouble=TroublePatience(promised=0, other=1, pause=0)),
            )
            for upstream in (self.corp, self.evil)
        ]
        self.private = RepositoryVisibility(self.caches[0], self.corp, self.links, clock)
        self.anybodys = UnconfiguredGuard(
            self.caches[1],
            self.evil,
            store,
            Shown(self.links, self.own),
            promised=self.caches[1].has_promised,
            lagging=1,
            largest=LARGEST,
        )


@pytest.fixture
async def registries(
    tmp_path: Path, store: MemoryContent, fills: Fills, wall: HandClock
) -> AsyncIterator[TwoRegistries]:
    registries = TwoRegistries(tmp_path, store, fills, wall)
    yield registries
    for each in (
        registries.private,
        registries.anybodys,
        *registries.caches,
        registries.links,
        registries.own,
    ):
        await each.close()


async def blob(registry: Reader, repository: Repository, data: bytes) -> None:
    content = await registry.blob(CONTEXT, repository, Digest.of(data))
    try:
        end = 0
        while (further := await content.readable(end)) > end:
            end = further
        assert end == len(data)
    finally:
        content.close()


async def pull(registry: Reader, repository: Repository) -> None:
    resolved = await registry.resolve(CONTEXT, repository, "v1")
    await registry.manifest(CONTEXT, repository, resolved.descriptor.digest)
    await blob(registry, repository, CONFIG)
    await blob(registry, repository, LAYER)


async def test_a_pull_downloads_once_and_the_next_nothing(registries: TwoRegistries) -> None:
    registries.evil.push("v1", MANIFEST, CONFIG, LAYER)
    await pull(registries.anybodys, EVIL)
    # The tag's manifest once more: that it is here proves nothing.
    asked = {"resolve": 1, "manifest": 2, "blob": 2}
    assert registries.evil.asked == asked
    await pull(registries.anybodys, EVIL)
    assert registries.evil.asked == asked


async def test_what_it_sends_is_no_part_of_what_others_fetch(registries: TwoRegistries) -> None:
    """Both are asked for the same digest, and it is the first."""
    registries.evil.blobs, registries.evil.corrupt = {Digest.of(LARGE): LARGE}, True
    registries.corp.blobs[Digest.of(LARGE)] = LARGE
    hold = HoldStream(registries.evil, at=len(LARGE) // 2)
    wrong = await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LARGE))
    await hold.reached.wait()
    async with asyncio.timeout(10):
        await blob(registries.private, SECRET, LARGE)
    assert registries.corp.asked["blob"] == 1
    wrong.close()
    hold.go.set()


async def test_f66_its_word_opens_nothing(registries: TwoRegistries) -> None:
    await pull(registries.private, SECRET)
    # It says that a tag points there, that the blob is there, and lists it in a manifest.
    registries.evil.push("v1", MANIFEST, CONFIG, LAYER)
    other = registries.evil.push("v2", manifest_of(LAYER))
    await registries.anybodys.manifest(CONTEXT, EVIL, other)
    registries.evil.corrupt = True
    with pytest.raises(Untrustworthy):
        await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LAYER))
    assert registries.evil.rejected
    assert registries.evil.open_streams == 0
    resolved = await registries.anybodys.resolve(CONTEXT, EVIL, "v1")
    del registries.evil.manifests[resolved.descriptor.digest]
    with pytest.raises(RegistryError):
        await registries.anybodys.manifest(CONTEXT, EVIL, resolved.descriptor.digest)


async def test_f66_nor_what_it_claimed_before_others_showed_it(registries: TwoRegistries) -> None:
    await registries.own.add(EVIL, [Digest.of(LAYER)])
    await pull(registries.private, SECRET)
    registries.evil.corrupt, registries.evil.blobs = True, {Digest.of(LAYER): LAYER}
    with pytest.raises(Untrustworthy):
        await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LAYER))


async def test_f66_nor_what_is_here_and_nobody_knows_from_where(
    registries: TwoRegistries, tmp_path: Path, wall: HandClock
) -> None:
    await pull(registries.private, SECRET)
    nothing = LinkRecords(tmp_path / "lost.db", Clock(wall=wall))
    registries.anybodys._links = nothing
    registries.evil.corrupt, registries.evil.blobs = True, {Digest.of(LAYER): LAYER}
    with pytest.raises(Untrustworthy):
        await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LAYER))
    await nothing.close()


async def test_its_bytes_open_what_they_are(registries: TwoRegistries) -> None:
    await pull(registries.private, SECRET)
    registries.evil.push("v1", MANIFEST, CONFIG, LAYER)
    await pull(registries.anybodys, EVIL)
    await pull(registries.anybodys, EVIL)
    assert registries.evil.asked == {"resolve": 1, "manifest": 1, "blob": 2}


async def test_f66_what_it_began_to_send_is_no_proof_that_it_had_it(
    registries: TwoRegistries, tmp_path: Path, wall: HandClock
) -> None:
    """It sent something for that digest; later the owner's came here, and who showed it is lost."""
    registries.evil.blobs, registries.evil.corrupt = {Digest.of(LARGE): LARGE}, True
    with pytest.raises(RegistryError):
        await blob(registries.anybodys, EVIL, LARGE)
    registries.corp.blobs[Digest.of(LARGE)] = LARGE
    await blob(registries.private, SECRET, LARGE)
    nothing = LinkRecords(tmp_path / "lost.db", Clock(wall=wall))
    registries.anybodys._links = nothing
    assert not await registries.own.is_shown(Digest.of(LARGE))
    registries.evil.corrupt = True
    with pytest.raises(Untrustworthy):
        await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LARGE))
    await nothing.close()


async def test_what_it_brought_whole_is_proof_though_nobody_read_it_to_its_end(
    registries: TwoRegistries,
) -> None:
    registries.evil.blobs[Digest.of(LARGE)] = LARGE
    hold = HoldStream(registries.evil, at=len(LARGE) // 2)
    content = await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LARGE))
    await hold.reached.wait()
    content.close()
    hold.go.set()
    await eventually_shown(registries, Digest.of(LARGE))
    await blob(registries.anybodys, EVIL, LARGE)
    assert registries.evil.asked == {"blob": 1}


async def eventually_shown(registries: TwoRegistries, digest: Digest) -> None:
    async def is_shown() -> bool:
        return await registries.own.is_shown(digest)

    await eventually(is_shown)


async def test_what_is_fetched_for_proof_goes_on_where_it_broke(registries: TwoRegistries) -> None:
    registries.corp.blobs[Digest.of(LARGE)] = LARGE
    await blob(registries.private, SECRET, LARGE)
    registries.evil.blobs[Digest.of(LARGE)] = LARGE
    breaks = [len(LARGE) // 2]

    async def broken(position: int) -> None:
        if breaks and position >= breaks[0]:
            breaks.pop()
            raise Unavailable("its connection was given to another client")

    registries.evil.before_read = broken  # type: ignore[assignment]
    await blob(registries.anybodys, EVIL, LARGE)
    assert registries.evil.blob_bytes == len(LARGE)


async def test_what_is_sent_for_proof_without_an_end_is_left(registries: TwoRegistries) -> None:
    """It is not here any more, so that its size is not known, and nor is it told."""
    registries.corp.blobs[Digest.of(LAYER)] = LAYER
    await registries.links.add(SECRET, [Digest.of(LAYER)])
    registries.evil.blobs[Digest.of(LAYER)] = bytes(8 * LARGEST)
    registries.evil.says_size = False
    async with asyncio.timeout(10):
        with pytest.raises(Untrustworthy):
            await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LAYER))
    assert registries.evil.blob_bytes <= LARGEST + 2 * registries.evil.piece
    assert registries.evil.open_streams == 0


async def test_crumbs_that_are_sent_for_proof_have_an_end(registries: TwoRegistries) -> None:
    registries.corp.blobs[Digest.of(LARGE)] = LARGE
    await blob(registries.private, SECRET, LARGE)
    registries.evil.blobs[Digest.of(LARGE)], registries.evil.piece = LARGE, 100
    came = 0

    async def after_a_crumb(position: int) -> None:
        nonlocal came
        came += 1
        if came % 2 == 0:
            raise Unavailable("the body was cut")

    registries.evil.before_read = after_a_crumb  # type: ignore[assignment]
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="cut"):
            await registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LARGE))
    assert registries.evil.asked["blob"] < 20


async def test_one_client_s_proofs_keep_nobody_from_theirs(registries: TwoRegistries) -> None:
    """Of the same registry: those that have no end in sight."""
    endless = [bytes([n]) * 1000 for n in range(8)]
    for data in (*endless, LAYER):
        registries.corp.blobs[Digest.of(data)] = data
        await blob(registries.private, SECRET, data)
        registries.evil.blobs[Digest.of(data)] = data
    hold = HoldStream(registries.evil, at=0)
    waiting = [asyncio.create_task(blob(registries.anybodys, EVIL, data)) for data in endless]
    await hold.reached.wait()
    await asyncio.sleep(0)
    registries.evil.before_read = None
    async with asyncio.timeout(10):
        await blob(registries.anybodys, EVIL, LAYER)
    hold.go.set()
    await asyncio.gather(*waiting)


async def test_what_was_promised_may_be_missing_for_a_moment(
    registries: TwoRegistries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica of theirs lags, of content that is here and is proven by being sent once more."""
    await registries.private.manifest(
        CONTEXT, SECRET, registries.corp.push("v2", MANIFEST, CONFIG, LAYER)
    )
    await blob(registries.private, SECRET, LAYER)
    digest = registries.evil.push("v1", MANIFEST, CONFIG, LAYER)
    lacking = {"manifest": 1, "blob": 1, "stat": 1}

    def lag(kind: str) -> None:
        asked = getattr(registries.evil, kind)

        async def ask(*arguments: object, **more: object) -> object:
            if lacking[kind]:
                lacking[kind] -= 1
                raise BlobUnknown("not here yet")
            return await asked(*arguments, **more)

        monkeypatch.setattr(registries.evil, kind, ask)

    for kind in lacking:
        lag(kind)
    await registries.anybodys.resolve(CONTEXT, EVIL, "v1")
    await registries.anybodys.manifest(CONTEXT, EVIL, digest)
    await registries.anybodys.stat(CONTEXT, EVIL, Digest.of(LAYER))
    await blob(registries.anybodys, EVIL, LAYER)
    assert lacking == {"manifest": 0, "blob": 0, "stat": 0}


@pytest.mark.parametrize("asked_before", [1, 2])
async def test_who_leaves_while_it_is_looked_up_whose_content_it_is_reads_no_more(
    registries: TwoRegistries, fills: Fills, monkeypatch: pytest.MonkeyPatch, asked_before: int
) -> None:
    digest, other = Digest.of(LARGE), Repository(EVIL.registry, "y")
    registries.evil.blobs[digest] = LARGE
    hold = HoldStream(registries.evil, at=len(LARGE) // 2)
    first = await registries.anybodys.blob(CONTEXT, EVIL, digest)
    await hold.reached.wait()
    fill = fills.running(EVIL.registry, digest)
    assert fill is not None

    asked, is_shown = 0, registries.links.is_shown

    async def is_silent(digest: Digest) -> bool:
        nonlocal asked
        asked += 1
        if asked == asked_before:
            await asyncio.Event().wait()
        return await is_shown(digest)

    monkeypatch.setattr(registries.links, "is_shown", is_silent)
    leaves = asyncio.ensure_future(registries.anybodys.blob(CONTEXT, other, digest))
    await eventually(lambda: asked == asked_before)
    leaves.cancel()
    await asyncio.wait([leaves])
    first.close()
    assert not fill.is_read
    hold.go.set()


async def test_who_leaves_while_it_is_noted_what_came_keeps_no_file_open(
    registries: TwoRegistries, monkeypatch: pytest.MonkeyPatch
) -> None:
    registries.evil.push("v1", MANIFEST, CONFIG, LAYER)
    await pull(registries.anybodys, EVIL)
    files: list[int] = []
    cache = registries.caches[1]
    blob = cache.blob

    async def watched(
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        content = await blob(context, repository, digest, part)
        files.append(content.fileno())
        return content

    async def is_silent(repository: Repository, digest: Digest) -> float | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(cache, "blob", watched)
    monkeypatch.setattr(registries.own, "seen", is_silent)
    leaves = asyncio.ensure_future(registries.anybodys.blob(CONTEXT, EVIL, Digest.of(LAYER)))
    await eventually(lambda: bool(files))
    leaves.cancel()
    await asyncio.wait([leaves])
    with pytest.raises(OSError):
        os.fstat(files[0])
