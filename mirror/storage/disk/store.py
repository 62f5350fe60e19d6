"""Content on the disk: a file a digest, or a row where it is small; visible only once it is proven.

blobs/<algorithm>/<2 hex>/<hex>     proven content, never altered
partials/<algorithm>/<hex>.<source> being written, or waiting to be resumed
partials/uploads/<session>.<mark>   what clients push, before it is told what it is (see uploads.py)
small.db                            proven content that is small (see small_rows.py)
quarantine/<hex>.<n>                what was found damaged, for a person to look at
index.db                            sizes, last use, what needs what (see index.py)
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog

from ...clock import Clock
from ...contracts.content import SMALL, ContentInMemory, Entry, Usage
from ...contracts.events import ContentQuarantined
from ...contracts.registry import Outcome
from ...events import Events
from ...oci.digest import Digest
from ...oci.errors import Unavailable
from ...threads import Threads, aside
from ...times import STORES
from .async_index import AsyncIndex
from .blob_files import BlobFiles
from .far import DiskFar
from .files import StorageUnusable as StorageUnusable
from .files import hash_of, prepare, read_whole, words
from .free_space import FreeSpace
from .held import DiskHeld
from .held_index import HeldIndex
from .index import Arrival, Index
from .ingest import Ingest, IngestPolicy
from .left_partials import remove_all
from .open_file import StoredFile
from .partial import DiskFollowed, DiskPartial
from .removal import Removal
from .small_puts import SmallPuts
from .small_rows import SmallRows, in_memory
from .space import Bounds, SpaceManager
from .uploads import DiskUploads
from .uses import Uses

log = structlog.get_logger()

# Where descriptors have run out, a file is waited for as long as clients wait, while those that are
# open are read to their ends. In seconds.
_MEANS_WITHIN = STORES.descriptors
_MEANS_EVERY = 0.05

# What is here is counted, whether there is room for it or not.
_ANY = 1 << 62

T = TypeVar("T")


class DiskContent:
    """A ContentStore in one directory, shared by all workers of a node."""

    def __init__(
        self,
        root: Path,
        bounds: Bounds,
        *,
        events: Events,
        sync: bool = True,
        clock: Clock | None = None,
        is_guest: Callable[[str], bool] = lambda source: False,
    ) -> None:
        """Opens or makes the store. Raises StorageUnusable. Blocking.

        `sync` and `is_guest`: see IngestPolicy. Without `sync` a power loss may leave short files,
        which the size check and the scrub find.
        """
        self.root = root
        self._clock = clock or Clock()
        self._events = events
        prepare(root)
        block = bounds.block or FreeSpace.at(root).block
        self._index = Index(root / "index.db", bounds.max_size, block)
        self.async_index = AsyncIndex(self._index)
        self._uses = Uses(self.async_index, self._clock)
        self.space = SpaceManager(
            root, bounds, self.async_index, self._clock, self.evict, self._uses.record
        )
        self.blobs = BlobFiles(root, lambda digest: events.emit(ContentQuarantined(digest)))
        self.small = SmallRows(root / "small.db", self._clock)
        self._files = Threads(4, "files")
        self._removal = Removal(self.blobs, self.small, self.async_index, self._clock, events)
        self.held = DiskHeld(
            root,
            self.blobs,
            self.small,
            self._files,
            self.space,
            self.async_index,
            self._removal,
            self._clock,
        )
        self.far = DiskFar(self.blobs, self.small, self.async_index, self._clock, self._doubt)
        self.uploads = DiskUploads(root, self._files, self.space, self.held, self._clock)
        policy = IngestPolicy(sync, is_guest)
        self._small_puts = SmallPuts(
            self.small, self.space, self.async_index, self._clock, sync=sync
        )
        self.ingest = Ingest(
            root,
            self.blobs,
            self._files,
            self.space,
            self.async_index,
            self._small_puts,
            self._clock,
            policy,
        )
        self._behind: set[asyncio.Future[object]] = set()
        self._tidying: asyncio.Future[object] | None = None

    async def close(self) -> None:
        await asyncio.gather(*self._behind, return_exceptions=True)
        await self._uses.close()
        await self.uploads.close()
        await self._small_puts.close()
        await aside(self.ingest.close)
        await aside(self._files.close)
        self.small.close()
        await self.async_index.close()

    async def open(
        self, digest: Digest, outcome: Outcome = Outcome.HIT
    ) -> StoredFile | ContentInMemory | None:
        recorded = self._recorded(digest)
        if recorded is None or recorded <= SMALL:
            row = await self._row(digest)
            if row is not None:
                self.touch(digest)
                return in_memory(row, digest, outcome)
        fd = await self._opened(digest)
        if fd is None:
            return None
        size = os.fstat(fd).st_size
        try:
            known = recorded is not None or await self._adopt(digest, fd)
        except BaseException:
            os.close(fd)
            raise
        if not known:
            os.close(fd)
            return None
        if recorded is not None and recorded != size:
            os.close(fd)
            await self.quarantine(digest, f"its size is {size}, not {recorded}")
            return None
        self.touch(digest)
        return StoredFile(fd, digest, size, outcome, functools.partial(self._doubt, digest))

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        data = await self.look(digest, limit)
        if data is not None:
            self.touch(digest)
        return data

    async def look(self, digest: Digest, limit: int) -> bytes | None:
        """As `read`, for people: that is no use of it."""
        row = await self._row(digest)
        if row is not None:
            return row if len(row) <= limit else None
        fd = await self._opened(digest)
        if fd is None:
            return None
        try:
            if os.fstat(fd).st_size > limit:
                return None
            data = await self.on_files(read_whole, fd, limit)
        except OSError as error:
            await self.quarantine(digest, words(error))
            return None
        finally:
            os.close(fd)
        if not digest.matches(data):
            await self.quarantine(digest, "its bytes have changed")
            return None
        if self._recorded(digest) is None:
            await self.on_files(self._record, digest, len(data))
        return data

    async def partial(self, digest: Digest, source: str = "") -> DiskPartial | None:
        return await self.ingest.begin(digest, source)

    async def put(
        self, digest: Digest, data: bytes, refers_to: Sequence[Digest] = (), source: str = ""
    ) -> bool:
        return await self.ingest.put(digest, data, refers_to, source)

    async def follow(self, digest: Digest, source: str = "") -> DiskFollowed | None:
        return self.ingest.follow(digest, source)

    def touch(self, digest: Digest) -> None:
        self._uses.add(digest)

    def is_needed(self, digest: Digest) -> bool:
        return bool(self.async_index.known(self._index.is_needed, digest))

    async def pin(self, name: str, digest: Digest) -> None:
        await self.async_index.note(self._index.pin, name, digest)

    async def unpin(self, name: str) -> None:
        """Nothing is kept under this name any more."""
        await self.async_index.note(self._index.pin, name, None)

    async def pins(self) -> Mapping[str, Digest]:
        """What is kept whatever its age, by its names."""
        return await self.async_index.ask(self._index.pins)

    async def purge(self, digests: Sequence[Digest]) -> Mapping[Digest, int]:
        """Removes what of this no content needs that is here, nor is pinned or held; what needs
        others is to be named first. So goes what is left of their downloads, but what is being
        downloaded comes anew. Returns the sizes of what was here. Raises OSError, apsw.Error."""
        removed = await self.on_files(self._removal.purge, digests)
        for digest in digests:
            if digest in removed or self._recorded(digest) is None:
                for key in await self.on_files(remove_all, self.root, digest):
                    await self.space.release(key)
        return removed

    def size(self, digest: Digest) -> int | None:
        """Of content that is recorded, in bytes. A few microseconds."""
        return self._recorded(digest)

    async def delete(self, digest: Digest) -> None:
        await self.evict([digest])

    async def evict(self, digests: Sequence[Digest]) -> int:
        """As Removal.evict."""
        return await self.on_files(self._removal.evict, digests)

    async def page(self, after: Digest | None, limit: int) -> Sequence[Entry]:
        return await self.async_index.ask(self._index.entries, str(after or ""), limit)

    async def oldest_use(self) -> float | None:
        """See Index.oldest_use. Raises OSError, apsw.Error."""
        return await self.async_index.ask(self._index.oldest_use)

    def usage(self) -> Usage:
        return self.async_index.known(self._index.usage) or Usage(0, 0, 0, self._index.max_bytes)

    def is_here(self, digest: Digest) -> bool:
        """Whether there is content of this name, recorded or not."""
        return self.small.is_here(digest) or self.blobs.is_here(digest)

    async def adopt_rows(self, digests: Sequence[Digest]) -> None:
        """Takes rows without a record into the account, once they are proven; as many as fit into
        one transaction. Raises OSError, apsw.Error."""
        found = await self.on_files(self._arrived, digests)
        await self.async_index.ask(self._index.admit, found, self._clock.wall(), _ANY)
        for digest in set(digests) - {each.digest for each in found}:
            await self.verify(digest)

    def _arrived(self, digests: Sequence[Digest]) -> list[Arrival]:
        """Of these rows, those that are what they should be. Blocking; raises apsw.Error."""
        rows = [(digest, self.small.read(digest)) for digest in digests]
        return [
            Arrival(digest, len(row))
            for digest, row in rows
            if row is not None and digest.matches(row)
        ]

    async def verify(self, digest: Digest) -> bool | None:
        """Hashes the content anew; what is wrong is set aside. None when it is not here."""
        try:
            row = await self.on_files(self.small.read, digest)
        except (apsw.Error, OSError) as error:
            log.warning("small_content_cannot_be_read", digest=str(digest), reason=words(error))
            row = None
        sound = None
        if row is not None:
            sound = digest.matches(row)
            if not sound:
                await self._quarantine_row(digest, row)
        fd = self.blobs.open(digest)
        if fd is None:
            if sound is None:
                await self.async_index.note(self._index.remove, [digest])
            return sound
        try:
            found = await self.on_files(hash_of, fd, digest)
        except OSError as error:  # a failing disk
            found = words(error)
        finally:
            os.close(fd)
        if found != digest.hex:
            await self.quarantine(digest, f"its bytes are not its digest's: {found}")
            return False
        return sound is not False

    async def quarantine(self, digest: Digest, reason: str) -> None:
        """Moves a damaged file aside: it is a miss from now on, and will be filled again. What is
        held was pushed, and has to be pushed again: it is nowhere else."""
        held = await self.on_files(self.blobs.is_held, digest)
        log.error("content_quarantined", digest=str(digest), reason=reason, pushed=held)
        await self.on_files(self.blobs.set_aside, digest)
        self._events.emit(ContentQuarantined(digest))
        await self.async_index.note(self._index.remove, [digest])

    async def _quarantine_row(self, digest: Digest, found: bytes) -> None:
        """As `quarantine`, of a row: what it has goes into a file."""
        reason = "its bytes have changed"
        log.error("content_quarantined", digest=str(digest), reason=reason, pushed=False)
        await self.on_files(self.blobs.write_aside, digest, found)
        try:
            await self.on_files(self.small.remove, digest)
        except (apsw.Error, OSError) as error:
            log.error("content_cannot_be_set_aside", digest=str(digest), reason=words(error))
        self._events.emit(ContentQuarantined(digest))
        await self.async_index.note(self._index.remove, [digest])

    async def on_files(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs what touches files, off the event loop."""
        return await self._files.run(work, *arguments)

    # Inside.

    def _doubt(self, digest: Digest, reason: str) -> None:
        """A reader could not read this content: it is looked at, behind."""
        log.error("content_could_not_be_read", digest=str(digest), reason=reason)
        self._do_behind(self.verify(digest))

    def _do_behind(self, work: Coroutine[Any, Any, object]) -> asyncio.Future[object]:
        task = asyncio.ensure_future(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)
        return task

    async def _row(self, digest: Digest) -> bytes | None:
        """The row of this content, proven and recorded; None where there is none. To read it takes
        less than a way to a thread."""
        try:
            row = self.small.read(digest)
        except apsw.Error as error:
            log.warning("small_content_cannot_be_read", digest=str(digest), reason=words(error))
            return None
        if row is None:
            return None
        if not digest.matches(row):
            await self._quarantine_row(digest, row)
            return None
        if self._recorded(digest) is None:
            await self.on_files(self._record, digest, len(row))
            self._tidy_behind()
        return row

    async def _opened(self, digest: Digest) -> int | None:
        """As `BlobFiles.open`, when descriptors have run out as soon as there are some."""
        deadline = self._clock.monotonic() + _MEANS_WITHIN
        while True:
            try:
                return self.blobs.open(digest)
            except Unavailable:
                if self._clock.monotonic() > deadline:
                    raise
            await asyncio.sleep(_MEANS_EVERY)

    async def _adopt(self, digest: Digest, fd: int) -> bool:
        """Takes a file without a record into the account, once its bytes are proven."""
        if not await self.verify(digest):
            return False
        await self.on_files(self._record, digest, os.fstat(fd).st_size)
        self._tidy_behind()
        return True

    def _tidy_behind(self) -> None:
        """What was here without a record was so whether there was room for it or not."""
        if self._tidying is None or self._tidying.done():
            self._tidying = self._do_behind(self._tidy())

    def _record(self, digest: Digest, size: int) -> None:
        """What is here and proven; it stays if its file says so. Blocking."""
        if self.blobs.is_held(digest):
            held = HeldIndex(self._index)
            self.async_index.note_here(held.hold, digest, self._clock.wall, lambda: size)
        else:
            self.async_index.note_here(self._index.add, digest, size, self._clock.wall())

    async def _tidy(self) -> None:
        try:
            await self.space.tidy()
        except (OSError, apsw.Error) as error:
            log.warning("room_not_tidied", reason=words(error))

    def _recorded(self, digest: Digest) -> int | None:
        return self.async_index.known(self._index.size, digest)
