"""Knowing a digest does not open a private image: content is shared, who may see it is not."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.context import Asker
from mirror.contracts.tags import TagRecord
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, Denied, ManifestUnknown, Unavailable
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.policy.visibility import Proofs, RepositoryVisibility
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.policy import CachePolicy, RetryPolicy
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.store import DiskContent
from mirror.storage.records.links import LinkRecords

from ..fakes import CONTEXT, FakeTags, FakeUpstream, HandClock, manifest_of
from ..waiting import eventually
from .test_fills import BIG as LARGE
from .test_fills import Hold as HoldStream

SECRET = Repository("corp", "team/secret")
OTHER = Repository("corp", "team/other")
PUBLIC = Repository("docker.io", "library/redis")
LAYER = b"layer" * 1000
CONFIG = b"{}"
MANIFEST = manifest_of(CONFIG, LAYER)


class Mixed(FakeUpstream):
    """A registry whose content all comes from an accelerator. What tags and HEAD say is its own:
    `shown` is what it has, `down` holds for that alone."""

    def __init__(self) -> None:
        super().__init__()
        self.vouched = False
        self.shown: set[tuple[Repository, Digest]] = set()

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        await self._ask("resolve")
        digest = Digest.parse(tag) if ":" in tag else self.tags_of[tag]
        if (repository, digest) not in self.shown:
            raise ManifestUnknown("the registry itself has no such thing")
        return Descriptor(OCI_MANIFEST, digest, 1)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        await self._ask("stat")
        if (repository, digest) not in self.shown:
            raise BlobUnknown("the registry itself has no such thing")
        return Descriptor(OCTET_STREAM, digest, len(self.blobs[digest]))

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        await self.gate.wait()
        if self.down is not None and what in ("resolve", "stat"):
            raise self.down


class House:
    """Three registries over one store; `restart` is what a restart of the mirror forgets."""

    def __init__(self, folder: Path, store: DiskContent, fills: Fills, wall: HandClock) -> None:
        self.corp, self.hub = FakeUpstream(), FakeUpstream()
        self.pool = Mixed()
        self._folder, self._store, self._fills, self.tags = folder, store, fills, FakeTags()
        self._clock = Clock(wall, lambda: time.monotonic() + wall.now)
        self.promised: set[Digest] = set()
        self._closing: list[RepositoryVisibility | PullThrough | LinkRecords] = []
        self.restart()

    def restart(self) -> None:
        self.links = LinkRecords.open(self._folder / "links.db", self._clock)
        self._closing.append(self.links)
        self.private, self.public = self._cache(self.corp), self._cache(self.hub)
        self.mixed = self._cache(self.pool, has_strangers=True)

    def _cache(
        self, upstream: FakeUpstream, *, has_strangers: bool = False
    ) -> RepositoryVisibility:
        cache = PullThrough(
            upstream,
            Shared.over(self._store, self.tags, self._fills, clock=self._clock),
            CachePolicy(retries=RetryPolicy(promised=0, other=0, pause=0)),
        )
        proofs = Proofs(hold=0, pause=0)
        linked = RepositoryVisibility(
            cache,
            upstream,
            self.links,
            self._clock,
            proofs,
            has_strangers=has_strangers,
            promised=lambda repository, digest: digest in self.promised,
        )
        self._closing += [linked, cache]
        return linked

    async def close(self) -> None:
        for each in reversed(self._closing):
            await each.close()


@pytest.fixture
async def house(
    tmp_path: Path, store: DiskContent, fills: Fills, wall: HandClock
) -> AsyncIterator[House]:
    house = House(tmp_path, store, fills, wall)
    house.corp.push("v1", MANIFEST, CONFIG, LAYER)
    yield house
    await house.close()


async def blob(registry: RepositoryVisibility, repository: Repository, data: bytes) -> bytes:
    content = await registry.blob(CONTEXT, repository, Digest.of(data))
    try:
        while (end := await content.readable(0)) < len(data):
            await content.readable(end)
        return os.pread(content.fileno(), end, 0)
    finally:
        content.close()


async def pull(registry: RepositoryVisibility, repository: Repository, tag: str = "v1") -> None:
    resolved = await registry.resolve(CONTEXT, repository, tag)
    await pull_digest(registry, repository, resolved.descriptor.digest)


async def pull_digest(
    registry: RepositoryVisibility, repository: Repository, digest: Digest
) -> None:
    await registry.manifest(CONTEXT, repository, digest)
    assert await blob(registry, repository, CONFIG) == CONFIG
    assert await blob(registry, repository, LAYER) == LAYER


async def test_a_cold_pull_asks_for_nothing_but_its_content(house: House) -> None:
    await pull(house.private, SECRET)
    assert house.corp.asked == {"resolve": 1, "manifest": 1, "blob": 2}


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_warm_pull_asks_nothing(house: House, restarted: bool) -> None:
    await pull(house.private, SECRET)
    house.corp.asked.clear()
    if restarted:
        house.restart()
    await pull(house.private, SECRET)
    assert not house.corp.asked


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_pulled_by_tag_can_be_had_by_digest_with_the_upstream_down(
    house: House, restarted: bool
) -> None:
    await pull(house.private, SECRET)
    house.corp.down = Unavailable("down")
    if restarted:
        house.restart()
    await pull_digest(house.private, SECRET, Digest.of(MANIFEST))


async def test_f66_a_private_digest_is_not_given_through_another_repository(house: House) -> None:
    await pull(house.private, SECRET)
    with pytest.raises(ManifestUnknown):
        await house.public.manifest(CONTEXT, PUBLIC, Digest.of(MANIFEST))
    for data in (CONFIG, LAYER):
        with pytest.raises(BlobUnknown):
            await house.public.blob(CONTEXT, PUBLIC, Digest.of(data))
        with pytest.raises(BlobUnknown):
            await house.public.stat(CONTEXT, PUBLIC, Digest.of(data))


async def test_f66_nor_through_another_repository_of_the_same_registry(house: House) -> None:
    await pull(house.private, SECRET)
    house.corp.blobs.clear()
    house.corp.down = Denied("not yours")
    with pytest.raises(Denied):
        await house.private.blob(CONTEXT, Repository("corp", "team/other"), Digest.of(LAYER))


async def test_f66_nor_while_it_is_being_fetched(house: House) -> None:
    await house.private.manifest(CONTEXT, SECRET, Digest.of(MANIFEST))
    house.corp.gate.clear()
    pulling = asyncio.create_task(blob(house.private, SECRET, LAYER))
    await eventually(lambda: house.corp.asked["blob"])
    with pytest.raises(BlobUnknown):
        await asyncio.wait_for(house.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER)), 10)
    house.corp.gate.set()
    assert await pulling == LAYER


async def test_f66_nor_to_who_joins_what_its_owner_has_left(house: House) -> None:
    house.corp.lacking.add(OTHER)
    house.corp.gate.clear()
    pulling = asyncio.create_task(blob(house.private, SECRET, LAYER))
    await eventually(lambda: house.corp.asked["blob"])
    pulling.cancel()
    strangers = asyncio.create_task(blob(house.private, OTHER, LAYER))
    await eventually(lambda: pulling.done())
    house.corp.gate.set()
    with pytest.raises(BlobUnknown):
        await strangers
    with pytest.raises(BlobUnknown):  # and not when it is here, which nobody was told
        await blob(house.private, OTHER, LAYER)
    assert await blob(house.private, SECRET, LAYER) == LAYER


async def test_f66_nor_because_an_endpoint_lists_it_that_is_not_the_registry(house: House) -> None:
    await pull(house.private, SECRET)
    crafted = manifest_of(LAYER)
    house.pool.manifests[Digest.of(crafted)] = crafted
    house.pool.down = Unavailable("down")  # then an accelerator is the best there is
    assert (await house.mixed.manifest(CONTEXT, PUBLIC, Digest.of(crafted))).data == crafted
    house.pool.down = None
    with pytest.raises(ManifestUnknown):
        await house.mixed.manifest(CONTEXT, PUBLIC, Digest.of(crafted))
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await blob(house.mixed, PUBLIC, LAYER)


async def test_f66_nor_because_an_accelerator_sends_something_for_its_digest(house: House) -> None:
    house.pool.blobs[Digest.of(LARGE)] = LARGE
    house.pool.corrupt = True
    with pytest.raises(BlobUnknown):
        await blob(house.mixed, PUBLIC, LARGE)
    assert house.pool.asked == {"stat": 1}  # no download that its owner could join
    house.pool.corrupt = False
    house.pool.shown.add((SECRET, Digest.of(LARGE)))
    assert await blob(house.mixed, SECRET, LARGE) == LARGE
    house.restart()
    with pytest.raises(BlobUnknown):
        await blob(house.mixed, PUBLIC, LARGE)


async def test_while_the_registry_is_away_its_accelerators_are_good_enough_and_open_nothing(
    house: House,
) -> None:
    house.pool.down = Unavailable("down")
    house.pool.push("v1", MANIFEST, CONFIG, LAYER)
    await pull_digest(house.mixed, PUBLIC, Digest.of(MANIFEST))
    # It is here by now, and to whom it belongs nobody has said.
    for repository in (PUBLIC, OTHER):
        with pytest.raises(Unavailable):
            await house.mixed.manifest(CONTEXT, repository, Digest.of(MANIFEST))
        with pytest.raises(Unavailable):
            await blob(house.mixed, repository, LAYER)
    house.pool.down = None
    with pytest.raises(BlobUnknown):
        await blob(house.mixed, PUBLIC, LAYER)


async def test_nor_does_it_open_what_its_owner_has_begun(house: House) -> None:
    house.pool.blobs[Digest.of(LARGE)] = LARGE
    house.pool.shown.add((SECRET, Digest.of(LARGE)))
    hold = HoldStream(house.pool, at=len(LARGE) // 2)
    owners = asyncio.create_task(blob(house.mixed, SECRET, LARGE))
    await hold.reached.wait()
    house.pool.down = Unavailable("down")
    strangers = asyncio.create_task(blob(house.mixed, OTHER, LARGE))
    await eventually(lambda: house.pool.asked["stat"] == 2)
    hold.go.set()
    assert await owners == LARGE
    with pytest.raises(Unavailable):
        await strangers


@pytest.mark.parametrize("frozen", [False, True], ids=["record", "pin"])
async def test_what_a_tag_memory_says_opens_nothing(
    house: House, wall: HandClock, frozen: bool
) -> None:
    """Others may write to the memory that several nodes share."""
    await pull(house.private, SECRET)
    digest = Digest.of(MANIFEST)
    if frozen:
        await house.tags.freeze(PUBLIC, "v1", digest)
    else:
        descriptor = Descriptor(OCI_MANIFEST, digest, len(MANIFEST))
        await house.tags.put(PUBLIC, "v1", TagRecord(descriptor, wall.now), 3600)
    for _ in range(2):
        with pytest.raises(ManifestUnknown):
            await house.public.resolve(CONTEXT, PUBLIC, "v1")
        with pytest.raises(ManifestUnknown):
            await house.public.manifest(CONTEXT, PUBLIC, digest)
        with pytest.raises(BlobUnknown):
            await blob(house.public, PUBLIC, LAYER)
        house.restart()
    house.hub.down = Unavailable("down")
    with pytest.raises(Unavailable):
        await house.public.resolve(CONTEXT, PUBLIC, "v1")
    assert not await house.links.seen(PUBLIC, digest)


async def test_what_another_node_noted_of_a_tag_is_proven_here_once_and_kept(
    house: House, wall: HandClock
) -> None:
    house.hub.push("v1", MANIFEST, CONFIG, LAYER)
    digest = house.hub.tags_of.pop("v1")
    descriptor = Descriptor(OCI_MANIFEST, digest, len(MANIFEST))
    await house.tags.put(PUBLIC, "v1", TagRecord(descriptor, wall.now), 3600)
    await pull(house.private, SECRET)
    await pull(house.public, PUBLIC)
    assert house.hub.asked == {"resolve": 1}
    house.restart()
    house.hub.down = Unavailable("down")
    await pull(house.public, PUBLIC)


async def test_what_another_node_noted_of_a_tag_costs_no_more_where_it_is_fetched(
    house: House, wall: HandClock
) -> None:
    house.hub.push("v1", MANIFEST, CONFIG, LAYER)
    descriptor = Descriptor(OCI_MANIFEST, house.hub.tags_of["v1"], len(MANIFEST))
    await house.tags.put(PUBLIC, "v1", TagRecord(descriptor, wall.now), 3600)
    await pull(house.public, PUBLIC)
    assert house.hub.asked == {"manifest": 1, "blob": 2}


async def test_that_one_repository_lacks_a_blob_is_nothing_to_another(house: House) -> None:
    house.corp.lacking.add(OTHER)
    house.corp.gate.clear()
    asking = [
        asyncio.create_task(blob(house.private, repository, LAYER))
        for repository in (OTHER, SECRET)
    ]
    await eventually(lambda: house.corp.asked["blob"])
    house.corp.gate.set()
    other, own = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(other, BlobUnknown)
    assert own == LAYER
    assert await blob(house.private, SECRET, LAYER) == LAYER


async def test_f66_nor_when_nothing_is_known_of_where_it_came_from(
    house: House, tmp_path: Path
) -> None:
    await pull(house.private, SECRET)
    await house.links.close()
    for file in tmp_path.glob("links.db*"):
        file.unlink()
    house.restart()
    with pytest.raises(BlobUnknown):
        await house.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER))
    await pull(house.private, SECRET)  # the registry says it with HEAD
    assert house.corp.asked["blob"] == 2


async def test_f66_an_index_opens_no_manifest_that_its_repository_lacks(house: House) -> None:
    """Registries take sparse indexes: anybody's may list anybody's manifest."""
    await pull(house.private, SECRET)
    entry = {"mediaType": "x/y", "digest": str(Digest.of(MANIFEST)), "size": len(MANIFEST)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    house.hub.push("evil", json.dumps(index).encode())
    await house.public.resolve(CONTEXT, PUBLIC, "evil")
    await house.public.manifest(CONTEXT, PUBLIC, house.hub.tags_of["evil"])
    with pytest.raises(ManifestUnknown):
        await house.public.manifest(CONTEXT, PUBLIC, Digest.of(MANIFEST))


async def test_who_shows_it_too_is_asked_once_with_head_and_downloads_nothing(
    house: House,
) -> None:
    await pull(house.private, SECRET)
    house.hub.push("v1", MANIFEST, CONFIG, LAYER)
    await pull_digest(house.public, PUBLIC, Digest.of(MANIFEST))
    assert house.hub.asked == {"resolve": 1}  # a manifest's blobs are shown with it
    house.restart()
    house.hub.down = Unavailable("down")
    await pull_digest(house.public, PUBLIC, Digest.of(MANIFEST))
    assert house.hub.asked == {"resolve": 1}


async def test_a_blob_that_others_have_is_asked_for_once_by_many(house: House) -> None:
    await pull(house.private, SECRET)
    house.hub.blobs[Digest.of(LAYER)] = LAYER
    await asyncio.gather(*(blob(house.public, PUBLIC, LAYER) for _ in range(10)))
    assert house.hub.asked == {"stat": 1}


async def test_who_joins_a_fill_of_its_own_repository_has_the_proof_that_began_it(
    house: House,
) -> None:
    got = await asyncio.gather(*(blob(house.private, SECRET, LAYER) for _ in range(10)))
    assert got == [LAYER] * 10
    assert house.corp.asked == {"blob": 1}


async def test_when_the_first_asker_fails_or_leaves_the_others_go_on(house: House) -> None:
    house.corp.gate.clear()
    asking = [asyncio.create_task(blob(house.private, SECRET, LAYER)) for _ in range(3)]
    await eventually(lambda: house.corp.asked["blob"])
    asking[0].cancel()
    house.corp.gate.set()
    assert await asyncio.gather(*asking[1:]) == [LAYER] * 2


async def test_a_refusal_is_remembered_shortly(house: House) -> None:
    await pull(house.private, SECRET)
    for _ in range(3):
        with pytest.raises(BlobUnknown):
            await house.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER))
    assert house.hub.asked == {"stat": 1}


async def test_what_clients_were_told_of_is_refused_for_moments_only(
    house: House, wall: HandClock
) -> None:
    """Though it was missing before: a replica that lags has caught up by then."""
    await pull(house.private, SECRET)
    house.promised.add(Digest.of(LAYER))
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await house.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER))
        wall.now += 2
    house.hub.blobs[Digest.of(LAYER)] = LAYER
    assert await blob(house.public, PUBLIC, LAYER) == LAYER


async def test_without_a_link_and_without_the_upstream_it_may_come_back_later(
    house: House,
) -> None:
    await pull(house.private, SECRET)
    house.hub.down = Unavailable("down")
    for ask in (house.public.blob, house.public.stat):
        with pytest.raises(Unavailable):
            await ask(CONTEXT, PUBLIC, Digest.of(LAYER))
    with pytest.raises(Unavailable):
        await house.public.manifest(CONTEXT, PUBLIC, Digest.of(MANIFEST))
    house.hub.down = None
    house.hub.blobs[Digest.of(LAYER)] = LAYER
    assert await blob(house.public, PUBLIC, LAYER) == LAYER


async def test_an_old_link_is_asked_for_again_and_believed_when_nobody_can_say(
    house: House, wall: HandClock
) -> None:
    await pull(house.private, SECRET)
    wall.now += 31 * 86400
    house.corp.asked.clear()
    house.corp.down = Unavailable("down")
    assert await blob(house.private, SECRET, LAYER) == LAYER
    assert house.corp.asked == {"stat": 1}
    house.corp.down = Denied("private now")
    with pytest.raises(Denied):
        await blob(house.private, SECRET, LAYER)
