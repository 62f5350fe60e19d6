"""What keeps the catalogue up: events while a mirror serves, and the store when that was not
enough."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import structlog

from ..clock import Clock
from ..contracts.catalogue import CatalogueNotes, Change, Kept, Pulled, Removed, Tagged
from ..contracts.content import ContentStore
from ..contracts.events import (
    ContentCommitted,
    ContentEvicted,
    ContentQuarantined,
    HitsAnswered,
    RequestAnswered,
    TagMoved,
)
from ..contracts.tags import TagStore, TagStoreError
from ..events import Events
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.manifests import MAX_MANIFEST, Manifest, read_manifest
from ..oci.reference import Repository, parse_reference
from ..pullthrough.recently_served import needs
from ..threads import read_aside

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two batches of notes."""

_MOST = 10_000  # changes, and images that were pulled, that wait for the next batch
_PAGE = 500  # pieces of content, or tags, that are noted at once
_DEPTH = 3  # an index of indexes of manifests: deeper ones are not looked into

_PULLS = ("tag", "manifest")  # kinds of requests


class CatalogueListener:
    """Gathers what happens in memory, and notes it once a second: no pull waits for that.

    What there is no room for, or cannot be noted, is `dropped` and counted; `rebuild` finds all
    of it again but pulls.
    """

    def __init__(
        self, notes: CatalogueNotes, events: Events, clock: Clock, most: int = _MOST
    ) -> None:
        self._notes = notes
        self._clock = clock
        self._most = most
        self._changes: list[Change] = []
        self._pulls: dict[tuple[str, str, str], tuple[int, float]] = {}
        self.dropped = 0
        events.listen(ContentCommitted, self._committed)
        events.listen(ContentEvicted, lambda event: self._add(Removed(event.digest)))
        events.listen(ContentQuarantined, lambda event: self._add(Removed(event.digest)))
        events.listen(TagMoved, self._moved)
        events.listen(RequestAnswered, self._answered)
        events.listen(HitsAnswered, self._hits)

    async def run(self) -> None:
        """Until it is cancelled; what has gathered by then is for `flush`."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Notes what has gathered. Raises nothing."""
        changes, self._changes = self._changes, []
        pulls, self._pulls = self._pulls, {}
        for (registry, name, reference), (count, at) in pulls.items():
            with contextlib.suppress(RegistryError):  # none of the grammar: no image's
                repository = Repository(registry, name)
                changes.append(Pulled(repository, parse_reference(reference), count, at))
        if changes and not await self._notes.note(changes):
            self.dropped += len(changes)

    def _committed(self, event: ContentCommitted) -> None:
        self._add(
            Kept(
                event.digest,
                event.size,
                event.media_type,
                event.refers_to,
                event.repository,
                self._clock.wall(),
            )
        )

    def _moved(self, event: TagMoved) -> None:
        self._add(Tagged(event.repository, event.tag, event.after, self._clock.wall()))

    def _answered(self, event: RequestAnswered) -> None:
        if event.kind in _PULLS and event.status == 200:
            self._pulled(event.registry, event.repository, event.reference, 1)

    def _hits(self, event: HitsAnswered) -> None:
        if event.kind in _PULLS and event.status == 200:
            for repository, reference, count in event.named:
                self._pulled(event.registry, repository, reference, count)

    def _pulled(self, registry: str, repository: str, reference: str, count: int) -> None:
        key = (registry, repository, reference)
        before = self._pulls.get(key)
        if before is None and not self._has_room():
            return
        self._pulls[key] = ((before[0] if before else 0) + count, self._clock.wall())

    def _add(self, change: Change) -> None:
        if self._has_room():
            self._changes.append(change)

    def _has_room(self) -> bool:
        if len(self._changes) + len(self._pulls) < self._most:
            return True
        self.dropped += 1
        return False


async def rebuild(notes: CatalogueNotes, store: ContentStore, tags: TagStore, clock: Clock) -> bool:
    """Notes all that is in the store, and all tags whose manifest is; forgets what is not there.
    May be done while mirrors serve, and note. Manifests that no tag leads to have no image: which
    repository showed them is not known. Whether all could be read and noted."""
    begun = clock.wall()
    is_whole = True
    page: list[Change] = []
    async for entry in store.scan():
        page.append(Kept(entry.digest, entry.size, "", (), None, clock.wall()))
        if len(page) >= _PAGE:
            is_whole &= await notes.note(page)
            page = []
    is_whole &= await notes.note(page)
    try:
        async for changes in _tagged(store, tags, clock):
            is_whole &= await notes.note(changes)
    except TagStoreError as error:
        log.warning("catalogue_without_tags", reason=str(error))
        is_whole = False
    return is_whole and await notes.forget_older(begun)


async def _tagged(
    store: ContentStore, tags: TagStore, clock: Clock
) -> AsyncIterator[Sequence[Change]]:
    """Of each tag whose manifest is here: the tag, and the manifests that it leads to."""
    after: str | None = ""
    while after is not None:
        listing = await tags.page(after, _PAGE)
        for known in listing.tags:
            if known.record.descriptor is None:
                continue
            digest = known.record.descriptor.digest
            found = [each async for each in _manifests(store, known.repository, digest, clock)]
            if found:
                yield [*found, Tagged(known.repository, known.tag, digest, clock.wall())]
        after = listing.following


async def _manifests(
    store: ContentStore, repository: Repository, digest: Digest, clock: Clock
) -> AsyncIterator[Change]:
    level = [digest]
    for _ in range(_DEPTH):
        below: list[Digest] = []
        for each in level:
            data = await store.read(each, MAX_MANIFEST)
            manifest = None if data is None else await _read(data)
            if data is not None and manifest is not None:
                yield Kept(
                    each, len(data), manifest.media_type, needs(manifest), repository, clock.wall()
                )
                below += [child.descriptor.digest for child in manifest.children]
        level = below


async def _read(data: bytes) -> Manifest | None:
    try:
        return await read_aside(read_manifest, data, None)
    except RegistryError:  # content of another kind: a tag's record may be a stranger's
        return None
