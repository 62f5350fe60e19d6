"""What keeps the catalogue up: events while a mirror serves, and the store when that was not
enough."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from ..clock import Clock
from ..contracts.catalogue import (
    CatalogueNotes,
    CatalogueUnavailable,
    Change,
    Kept,
    Pulled,
    Removed,
    Tagged,
)
from ..contracts.content import ContentStore
from ..contracts.events import (
    CatalogueDropped,
    ContentCommitted,
    ContentEvicted,
    ContentLost,
    ContentPurged,
    ContentQuarantined,
    HitsAnswered,
    RequestAnswered,
    TagMoved,
    WorkerReplaced,
)
from ..contracts.hosted import HOSTED
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
_PAGE = 500  # changes, pieces of content, or tags, that are noted at once: one transaction
_PAUSE = 0.01  # seconds between two pages of a rebuild, for other work of the processor
_DEPTH = 3  # an index of indexes of manifests: deeper ones are not looked into

_LOOK = 10.0  # seconds between two looks at whether something was lost
_DAY = 86400.0  # after which all is found again, in case a loss was not noticed
_FAILED = 60.0  # seconds until it is tried again

_PULLS = ("tag", "manifest")  # kinds of requests


class _Batch:
    """Changes and pulls that wait to be noted, at most so many. Of too many the latest of the
    registry that has most is dropped, or of the one that is added to, where that has its share.
    What names no registry counts as one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._order = itertools.count()
        self._waiting: dict[str, dict[object, tuple[int, Change | _Pulls]]] = {}
        self.dropped = 0

    def add(self, registry: str, change: Change) -> None:
        self._put(registry, next(self._order), change)

    def pulled(self, registry: str, repository: str, reference: str, count: int, at: float) -> None:
        """Those of one reference are counted together."""
        key = (repository, reference)
        _, before = self._waiting.get(registry, {}).get(key, (0, None))
        if isinstance(before, _Pulls):
            before.count += count
            before.at = at
        else:
            self._put(registry, key, _Pulls(registry, repository, reference, count, at))

    def changes(self) -> Sequence[Change]:
        """All that was added, in its order; and then the pulls."""
        ordered = sorted(
            (entry for waiting in self._waiting.values() for entry in waiting.values()),
            key=lambda entry: (isinstance(entry[1], _Pulls), entry[0]),
        )
        found: list[Change] = []
        for _, entry in ordered:
            if isinstance(entry, _Pulls):
                with contextlib.suppress(RegistryError):  # none of the grammar: no image's
                    repository = Repository(entry.registry, entry.repository)
                    reference = parse_reference(entry.reference)
                    found.append(Pulled(repository, reference, entry.count, entry.at))
            else:
                found.append(entry)
        return found

    def _put(self, registry: str, key: object, entry: Change | _Pulls) -> None:
        own = self._waiting.setdefault(registry, {})
        own[key] = next(self._order), entry
        self._count += 1
        if self._count <= self._most:
            return
        if len(own) * len(self._waiting) <= self._count:
            own = max(self._waiting.values(), key=len)
        own.popitem()
        self._count -= 1
        self.dropped += 1


@dataclass(slots=True)
class _Pulls:
    registry: str
    repository: str
    reference: str
    count: int
    at: float


class CatalogueListener:
    """Gathers what happens in memory, and notes it a second later: no pull waits for that.

    What there is no room for, or cannot be noted, is lost, and told as CatalogueDropped: `rebuild`
    finds all of it again but pulls.
    """

    def __init__(
        self, notes: CatalogueNotes, events: Events, clock: Clock, most: int = _MOST
    ) -> None:
        self._notes = notes
        self._events = events
        self._clock = clock
        self._most = most
        self._batch = _Batch(most)
        self._something = asyncio.Event()  # waits to be noted
        self._has_lost = False  # and that is not noted yet
        events.listen(ContentCommitted, self._committed)
        events.listen(ContentEvicted, lambda event: self._add("", Removed(event.digest)))
        events.listen(ContentLost, lambda event: self._add("", Removed(event.digest)))
        events.listen(ContentPurged, lambda event: self._add("", Removed(event.digest)))
        events.listen(ContentQuarantined, lambda event: self._add("", Removed(event.digest)))
        events.listen(TagMoved, self._moved)
        events.listen(RequestAnswered, self._answered)
        events.listen(HitsAnswered, self._hits)

    async def run(self) -> None:
        """Until it is cancelled; what has gathered by then is for `flush`. Sleeps while nothing
        happens."""
        while True:
            await self._something.wait()
            await asyncio.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Notes what has gathered. Raises nothing."""
        batch, self._batch = self._batch, _Batch(self._most)
        self._something.clear()
        changes, dropped = batch.changes(), batch.dropped
        for start in range(0, len(changes), _PAGE):
            page = changes[start : start + _PAGE]
            if not await self._notes.note(page):
                dropped += len(page)
        if dropped:
            self._events.emit(CatalogueDropped(dropped))
            self._has_lost = True
        if self._has_lost:
            self._has_lost = await self._notes.lose() is None
            if self._has_lost:
                self._something.set()

    def _committed(self, event: ContentCommitted) -> None:
        if event.repository.registry == HOSTED:  # whose records are elsewhere
            return
        now = self._clock.wall()
        self._add(
            event.repository.registry,
            Kept(
                event.digest, event.size, event.media_type, event.refers_to, event.repository, now
            ),
        )

    def _moved(self, event: TagMoved) -> None:
        now = self._clock.wall()
        self._add(event.repository.registry, Tagged(event.repository, event.tag, event.after, now))

    def _answered(self, event: RequestAnswered) -> None:
        if event.kind in _PULLS and event.status == 200:
            self._pulled(event.registry, event.repository, event.reference, 1)

    def _hits(self, event: HitsAnswered) -> None:
        if event.kind in _PULLS and event.status == 200:
            for repository, reference, count in event.named:
                self._pulled(event.registry, repository, reference, count)

    def _pulled(self, registry: str, repository: str, reference: str, count: int) -> None:
        self._batch.pulled(registry, repository, reference, count, self._clock.wall())
        self._something.set()

    def _add(self, registry: str, change: Change) -> None:
        self._batch.add(registry, change)
        self._something.set()


class CatalogueUpkeep:
    """Has the catalogue built anew when it lacks something: in the one process of a service that
    holds the store's lock."""

    def __init__(
        self,
        notes: CatalogueNotes,
        store: ContentStore,
        tags: TagStore,
        events: Events,
        clock: Clock,
    ) -> None:
        self._notes = notes
        self._store = store
        self._tags = tags
        self._clock = clock
        self._found_again: int | None = None  # the loss up to which all was
        self._worker_ended = False
        events.listen(WorkerReplaced, self._ended)

    async def run(self) -> None:
        """Until it is cancelled. Raises nothing."""
        before = await self._latest()
        own = await self._notes.lose()  # for when this process or a worker is killed
        if before is None:
            self._found_again = own
        due = self._clock.monotonic() + _DAY
        while True:
            if self._worker_ended:  # by itself: what it had not noted yet is lost
                self._worker_ended = await self._notes.lose() is None
            latest, pause = await self._latest(), _LOOK
            if latest is not None and (
                latest != self._found_again or self._clock.monotonic() >= due
            ):
                if await self._rebuild():
                    self._found_again = latest
                    due = self._clock.monotonic() + _DAY
                else:
                    pause = _FAILED
            await asyncio.sleep(pause)

    async def end(self) -> None:
        """Notes that nothing is lacking, if so. To be called when the last process has ended."""
        if self._found_again is not None and await self._latest() == self._found_again:
            await self._notes.made_good(self._found_again)

    async def _rebuild(self) -> bool:
        began = self._clock.monotonic()
        try:
            is_whole = await rebuild(self._notes, self._store, self._tags, self._clock)
        except Exception:
            log.exception("catalogue_not_rebuilt")
            return False
        seconds = round(self._clock.monotonic() - began, 1)
        log.info("catalogue_rebuilt", whole=is_whole, seconds=seconds)
        return is_whole

    async def _latest(self) -> int | None:
        with contextlib.suppress(CatalogueUnavailable):
            return await self._notes.lost()
        return None

    def _ended(self, _: WorkerReplaced) -> None:
        self._worker_ended = True


async def rebuild(notes: CatalogueNotes, store: ContentStore, tags: TagStore, clock: Clock) -> bool:
    """Notes all that is in the store, and all tags whose manifest is; forgets what is not there.
    May be done while mirrors serve, and note. Manifests that no tag leads to have no image: which
    repository showed them is not known. Whether all could be read and noted."""
    begun = clock.wall()
    is_whole = True
    after: Digest | None = None
    while page := await store.page(after, _PAGE):
        now = clock.wall()
        is_whole &= await notes.note([Kept(e.digest, e.size, "", (), None, now) for e in page])
        # What was removed meanwhile, and noted so, is not here again by having been read before.
        left = {entry.digest for entry in await store.page(after, _PAGE)}
        gone = [Removed(entry.digest) for entry in page if entry.digest not in left]
        is_whole &= await notes.note(gone)
        after = page[-1].digest
        await asyncio.sleep(_PAUSE)
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
            await asyncio.sleep(_PAUSE)
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
