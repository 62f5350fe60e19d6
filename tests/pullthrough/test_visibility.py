"""Knowing a digest does not open a private image: content is shared, who may see it is not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
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
from mirror.policy.visibility import Proofs, RepositoryVisibility, anybody, nobody
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


Strangers = Callable[[Digest], Awaitable[bool]]


class ThreeRegistries:
    """Three registries over one store; `restart` is what a restart of the mirror forgets."""

    def __init__(self, folder: Path, store: MemoryContent, fills: Fills, wall: HandClock) -> None:
        self.corp, self.hub = FakeUpstream(), FakeUpstream()
        self.pool = Mixed()
        self._folder, self._store, self._fills, self.tags = folder, store, fills, FakeTags()
        self._clock = Clock(wall, lambda: time.monotonic() + wall.now)
        self.promised: set[Digest] = set()
        self._closing: list[RepositoryVisibility | PullThrough | LinkRecords] = []
        self.restart()

    def restart(self) -> None:
        self.links = LinkRecords(self._folder / "links.db", self._clock)
        self._closing.append(self.links)
        self.private, self.public = self._cache(self.corp), self._cache(self.hub)
        self.mixed = self._cache(self.pool, anybody)

    def _cache(self, upstream: FakeUpstream, strangers: Strangers = nobody) -> RepositoryVisibility:
        cache = PullThrough(
            upstream,
            Shared.over(self._store, self.tags, self._fills, clock=self._clock),
            CachePolicy(trouble=TroublePatience(promised=0, other=0, pause=0)),
        )
        proofs = Proofs(hold=0, pause=0)
        linked = RepositoryVisibility(
            cache,
            upstream,
            self.links,
            self._clock,
            proofs,
            strangers=strangers,
            promised=lambda repository, digest: digest in self.promised,
        )
        self._closing += [linked, cache]
        return linked

    async def close(self) -> None:
        for each in reversed(self._closing):
            await each.close()


@pytest.fixture
async def registries(
    tmp_path: Path, store: MemoryContent, fills: Fills, wall: HandClock
) -> AsyncIterator[ThreeRegistries]:
    registries = ThreeRegistries(tmp_path, store, fills, wall)
    registries.corp.push("v1", MANIFEST, CONFIG, LAYER)
    yield registries
    await registries.close()


async def blob(registry: RepositoryVisibility, repository: Repository, data: bytes) -> bytes:
    content = await registry.blob(CONTEXT, repository, Digest.of(data))
    try:
        while (end := await content.readable(0)) < len(data):
            await content.readable(end)
        return content.pread(end, 0)
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


async def test_a_cold_pull_asks_for_nothing_but_its_content(registries: ThreeRegistries) -> None:
    await pull(registries.private, SECRET)
    assert registries.corp.asked == {"resolve": 1, "manifest": 1, "blob": 2}


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_warm_pull_asks_nothing(registries: ThreeRegistries, restarted: bool) -> None:
    await pull(registries.private, SECRET)
    registries.corp.asked.clear()
    if restarted:
        registries.restart()
    await pull(registries.private, SECRET)
    assert not registries.corp.asked


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_pulled_by_tag_can_be_had_by_digest_with_the_upstream_down(
    registries: ThreeRegistries, restarted: bool
) -> None:
    await pull(registries.private, SECRET)
    registries.corp.down = Unavailable("down")
    if restarted:
        registries.restart()
    await pull_digest(registries.private, SECRET, Digest.of(MANIFEST))


async def test_f66_a_private_digest_is_not_given_through_another_repository(
    registries: ThreeRegistries,
) -> None:
    await pull(registries.private, SECRET)
    with pytest.raises(ManifestUnknown):
        await registries.public.manifest(CONTEXT, PUBLIC, Digest.of(MANIFEST))
    for data in (CONFIG, LAYER):
        with pytest.raises(BlobUnknown):
            await registries.public.blob(CONTEXT, PUBLIC, Digest.of(data))
        with pytest.raises(BlobUnknown):
            await registries.public.stat(CONTEXT, PUBLIC, Digest.of(data))


async def test_f66_nor_through_another_repository_of_the_same_registry(
    registries: ThreeRegistries,
) -> None:
    await pull(registries.private, SECRET)
    registries.corp.blobs.clear()
    registries.corp.down = Denied("not yours")
    with pytest.raises(Denied):
        await registries.private.blob(CONTEXT, Repository("corp", "team/other"), Digest.of(LAYER))


async def test_f66_nor_where_nobody_is_known_to_have_shown_what_is_here(
    registries: ThreeRegistries, store: MemoryContent
) -> None:
    """As when the links are lost, and the content is not."""
    await store.put(Digest.of(MANIFEST), MANIFEST)
    await store.put(Digest.of(LAYER), LAYER)
    with pytest.raises(ManifestUnknown):
        await registries.public.manifest(CONTEXT, PUBLIC, Digest.of(MANIFEST))
    with pytest.raises(BlobUnknown):
        await registries.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER))
    # Who shows it is given it.
    await pull(registries.private, SECRET)


async def test_f66_nor_while_it_is_being_fetched(registries: ThreeRegistries) -> None:
    await registries.private.manifest(CONTEXT, SECRET, Digest.of(MANIFEST))
    registries.corp.gate.clear()
    pulling = asyncio.create_task(blob(registries.private, SECRET, LAYER))
    await eventually(lambda: registries.corp.asked["blob"])
    with pytest.raises(BlobUnknown):
        await asyncio.wait_for(registries.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER)), 10)
    registries.corp.gate.set()
    assert await pulling == LAYER


async def test_f66_nor_to_who_joins_what_its_owner_has_left(registries: ThreeRegistries) -> None:
    registries.corp.lacking.add(OTHER)
    registries.corp.gate.clear()
    pulling = asyncio.create_task(blob(registries.private, SECRET, LAYER))
    await eventually(lambda: registries.corp.asked["blob"])
    pulling.cancel()
    strangers = asyncio.create_task(blob(registries.private, OTHER, LAYER))
    await eventually(lambda: pulling.done())
    registries.corp.gate.set()
    with pytest.raises(BlobUnknown):
        await strangers
    with pytest.raises(BlobUnknown):  # and not when it is here, which nobody was told
        await blob(registries.private, OTHER, LAYER)
    assert await blob(registries.private, SECRET, LAYER) == LAYER


async def test_f66_nor_because_an_endpoint_lists_it_that_is_not_the_registry(
    registries: ThreeRegistries,
) -> None:
    await pull(registries.private, SECRET)
    crafted = manifest_of(LAYER)
    registries.pool.manifests[Digest.of(crafted)] = crafted
    registries.pool.down = Unavailable("down")  # then an accelerator is the best there is
    assert (await registries.mixed.manifest(CONTEXT, PUBLIC, Digest.of(crafted))).data == crafted
    registries.pool.down = None
    with pytest.raises(ManifestUnknown):
        await registries.mixed.manifest(CONTEXT, PUBLIC, Digest.of(crafted))
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await blob(registries.mixed, PUBLIC, LAYER)


async def test_f66_nor_because_an_accelerator_sends_something_for_its_digest(
    registries: ThreeRegistries,
) -> None:
    registries.pool.blobs[Digest.of(LARGE)] = LARGE
    registries.pool.corrupt = True
    with pytest.raises(BlobUnknown):
        await blob(registries.mixed, PUBLIC, LARGE)
    assert registries.pool.asked == {"stat": 1}  # no download that its owner could join
    registries.pool.corrupt = False
    registries.pool.shown.add((SECRET, Digest.of(LARGE)))
    assert await blob(registries.mixed, SECRET, LARGE) == LARGE
    registries.restart()
    with pytest.raises(BlobUnknown):
        await blob(registries.mixed, PUBLIC, LARGE)


async def test_while_the_registry_is_away_its_accelerators_are_good_enough_and_open_nothing(
    registries: ThreeRegistries,
) -> None:
    registries.pool.down = Unavailable("down")
    registries.pool.push("v1", MANIFEST, CONFIG, LAYER)
    await pull_digest(registries.mixed, PUBLIC, Digest.of(MANIFEST))
    # It is here by now, and to whom it belongs nobody has said.
    for repository in (PUBLIC, OTHER):
        with pytest.raises(Unavailable):
            await registries.mixed.manifest(CONTEXT, repository, Digest.of(MANIFEST))
        with pytest.raises(Unavailable):
            await blob(registries.mixed, repository, LAYER)
    registries.pool.down = None
    with pytest.raises(BlobUnknown):
        await blob(registries.mixed, PUBLIC, LAYER)


async def test_nor_does_it_open_what_its_owner_has_begun(registries: ThreeRegistries) -> None:
    registries.pool.blobs[Digest.of(LARGE)] = LARGE
    registries.pool.shown.add((SECRET, Digest.of(LARGE)))
    hold = HoldStream(registries.pool, at=len(LARGE) // 2)
    owners = asyncio.create_task(blob(registries.mixed, SECRET, LARGE))
    await hold.reached.wait()
    registries.pool.down = Unavailable("down")
    strangers = asyncio.create_task(blob(registries.mixed, OTHER, LARGE))
    await eventually(lambda: registries.pool.asked["stat"] == 2)
    hold.go.set()
    assert await owners == LARGE
    with pytest.raises(Unavailable):
        await strangers


@pytest.mark.parametrize("frozen", [False, True], ids=["record", "pin"])
async def test_what_a_tag_memory_says_opens_nothing(
    registries: ThreeRegistries, wall: HandClock, frozen: bool
) -> None:
    """Others may write to the memory that several nodes share."""
    await pull(registries.private, SECRET)
    digest = Digest.of(MANIFEST)
    if frozen:
        await registries.tags.freeze(PUBLIC, "v1", digest)
    else:
        descriptor = Descriptor(OCI_MANIFEST, digest, len(MANIFEST))
        await registries.tags.put(PUBLIC, "v1", TagRecord(descriptor, wall.now), 3600)
    for _ in range(2):
        with pytest.raises(ManifestUnknown):
            await registries.public.resolve(CONTEXT, PUBLIC, "v1")
        with pytest.raises(ManifestUnknown):
            await registries.public.manifest(CONTEXT, PUBLIC, digest)
        with pytest.raises(BlobUnknown):
            await blob(registries.public, PUBLIC, LAYER)
        registries.restart()
    registries.hub.down = Unavailable("down")
    with pytest.raises(Unavailable):
        await registries.public.resolve(CONTEXT, PUBLIC, "v1")
    assert not await registries.links.seen(PUBLIC, digest)


async def test_what_another_node_noted_of_a_tag_is_proven_here_once_and_kept(
    registries: ThreeRegistries, wall: HandClock
) -> None:
    registries.hub.push("v1", MANIFEST, CONFIG, LAYER)
    digest = registries.hub.tags_of.pop("v1")
    descriptor = Descriptor(OCI_MANIFEST, digest, len(MANIFEST))
    await registries.tags.put(PUBLIC, "v1", TagRecord(descriptor, wall.now), 3600)
    await pull(registries.private, SECRET)
    await pull(registries.public, PUBLIC)
    assert registries.hub.asked == {"resolve": 1}
    registries.restart()
    registries.hub.down = Unavailable("down")
    await pull(registries.public, PUBLIC)


async def test_what_another_node_noted_of_a_tag_costs_no_more_where_it_is_fetched(
    registries: ThreeRegistries, wall: HandClock
) -> None:
    registries.hub.push("v1", MANIFEST, CONFIG, LAYER)
    descriptor = Descriptor(OCI_MANIFEST, registries.hub.tags_of["v1"], len(MANIFEST))
    await registries.tags.put(PUBLIC, "v1", TagRecord(descriptor, wall.now), 3600)
    await pull(registries.public, PUBLIC)
    assert registries.hub.asked == {"manifest": 1, "blob": 2}


async def test_that_one_repository_lacks_a_blob_is_nothing_to_another(
    registries: ThreeRegistries,
) -> None:
    registries.corp.lacking.add(OTHER)
    registries.corp.gate.clear()
    asking = [
        asyncio.create_task(blob(registries.private, repository, LAYER))
        for repository in (OTHER, SECRET)
    ]
    await eventually(lambda: registries.corp.asked["blob"])
    registries.corp.gate.set()
    other, own = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(other, BlobUnknown)
    assert own == LAYER
    assert await blob(registries.private, SECRET, LAYER) == LAYER


async def test_f66_nor_when_nothing_is_known_of_where_it_came_from(
    registries: ThreeRegistries, tmp_path: Path
) -> None:
    await pull(registries.private, SECRET)
    await registries.links.close()
    for file in tmp_path.glob("links.db*"):
        file.unlink()
    registries.restart()
    with pytest.raises(BlobUnknown):
        await registries.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER))
    await pull(registries.private, SECRET)  # the registry says it with HEAD
    assert registries.corp.asked["blob"] == 2


async def test_f66_an_index_opens_no_manifest_that_its_repository_lacks(
    registries: ThreeRegistries,
) -> None:
    """Registries take sparse indexes: anybody's may list anybody's manifest."""
    await pull(registries.private, SECRET)
    entry = {"mediaType": "x/y", "digest": str(Digest.of(MANIFEST)), "size": len(MANIFEST)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    registries.hub.push("evil", json.dumps(index).encode())
    await registries.public.resolve(CONTEXT, PUBLIC, "evil")
    await registries.public.manifest(CONTEXT, PUBLIC, registries.hub.tags_of["evil"])
    with pytest.raises(ManifestUnknown):
        await registries.public.manifest(CONTEXT, PUBLIC, Digest.of(MANIFEST))


async def test_who_shows_it_too_is_asked_once_with_head_and_downloads_nothing(
    registries: ThreeRegistries,
) -> None:
    await pull(registries.private, SECRET)
    registries.hub.push("v1", MANIFEST, CONFIG, LAYER)
    await pull_digest(registries.public, PUBLIC, Digest.of(MANIFEST))
    assert registries.hub.asked == {"resolve": 1}  # a manifest's blobs are shown with it
    registries.restart()
    registries.hub.down = Unavailable("down")
    await pull_digest(registries.public, PUBLIC, Digest.of(MANIFEST))
    assert registries.hub.asked == {"resolve": 1}


async def test_a_blob_that_others_have_is_asked_for_once_by_many(
    registries: ThreeRegistries,
) -> None:
    await pull(registries.private, SECRET)
    registries.hub.blobs[Digest.of(LAYER)] = LAYER
    await asyncio.gather(*(blob(registries.public, PUBLIC, LAYER) for _ in range(10)))
    assert registries.hub.asked == {"stat": 1}


async def test_who_joins_a_fill_of_its_own_repository_has_the_proof_that_began_it(
    registries: ThreeRegistries,
) -> None:
    got = await asyncio.gather(*(blob(registries.private, SECRET, LAYER) for _ in range(10)))
    assert got == [LAYER] * 10
    assert registries.corp.asked == {"blob": 1}


async def test_when_the_first_asker_fails_or_leaves_the_others_go_on(
    registries: ThreeRegistries,
) -> None:
    registries.corp.gate.clear()
    asking = [asyncio.create_task(blob(registries.private, SECRET, LAYER)) for _ in range(3)]
    await eventually(lambda: registries.corp.asked["blob"])
    asking[0].cancel()
    registries.corp.gate.set()
    assert await asyncio.gather(*asking[1:]) == [LAYER] * 2


async def test_a_refusal_is_remembered_shortly(registries: ThreeRegistries) -> None:
    await pull(registries.private, SECRET)
    for _ in range(3):
        with pytest.raises(BlobUnknown):
            await registries.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER))
    assert registries.hub.asked == {"stat": 1}


async def test_what_clients_were_told_of_is_refused_for_moments_only(
    registries: ThreeRegistries, wall: HandClock
) -> None:
    """Though it was missing before: a replica that lags has caught up by then."""
    await pull(registries.private, SECRET)
    registries.promised.add(Digest.of(LAYER))
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await registries.public.blob(CONTEXT, PUBLIC, Digest.of(LAYER))
        wall.now += 2
    registries.hub.blobs[Digest.of(LAYER)] = LAYER
    assert await blob(registries.public, PUBLIC, LAYER) == LAYER


async def test_without_a_link_and_without_the_upstream_it_may_come_back_later(
    registries: ThreeRegistries,
) -> None:
    await pull(registries.private, SECRET)
    registries.hub.down = Unavailable("down")
    for ask in (registries.public.blob, registries.public.stat):
        with pytest.raises(Unavailable):
            await ask(CONTEXT, PUBLIC, Digest.of(LAYER))
    with pytest.raises(Unavailable):
        await registries.public.manifest(CONTEXT, PUBLIC, Digest.of(MANIFEST))
    registries.hub.down = None
    registries.hub.blobs[Digest.of(LAYER)] = LAYER
    assert await blob(registries.public, PUBLIC, LAYER) == LAYER


async def test_an_old_link_is_asked_for_again_and_believed_when_nobody_can_say(
    registries: ThreeRegistries, wall: HandClock
) -> None:
    await pull(registries.private, SECRET)
    wall.now += 31 * 86400
    registries.corp.asked.clear()
    registries.corp.down = Unavailable("down")
    assert await blob(registries.private, SECRET, LAYER) == LAYER
    assert registries.corp.asked == {"stat": 1}
    registries.corp.down = Denied("private now")
    with pytest.raises(Denied):
        await blob(registries.private, SECRET, LAYER)
