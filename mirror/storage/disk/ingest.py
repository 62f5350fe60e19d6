"""How content comes into a store: as a partial that grows, or whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...clock import Clock
from ...contracts.content import SMALL
from ...oci.digest import Digest
from ...oci.errors import Untrustworthy
from ...threads import Threads
from .async_index import AsyncIndex
from .blob_files import READ_ONLY, BlobFiles
from .files import prepare
from .index import Arrival
from .ingest_key import IngestKey, PartialKey
from .partial import DiskFollowed, DiskPartial, LockedFile, lock_partial
from .small_puts import SmallPuts
from .space import SpaceClaim, SpaceManager


@dataclass(frozen=True, slots=True)
class IngestPolicy:
    """`sync`: whether content reaches the disk before it becomes visible. `is_guest`: whether what
    this source brings may have only little of the others' room (see Index)."""

    sync: bool
    is_guest: Callable[[str], bool]


_COMMITS = 4  # at a time


class Ingest:
    """Brings content into the store at `root`; `files` are the threads that touch its files."""

    def __init__(
        self,
        root: Path,
        blobs: BlobFiles,
        files: Threads,
        space: SpaceManager,
        async_index: AsyncIndex,
        small: SmallPuts,
        clock: Clock,
        policy: IngestPolicy,
    ) -> None:
        self._root = root
        self._blobs = blobs
        self._files = files
        # What comes is not to wait for the syncs of what has come.
        self._commits = Threads(_COMMITS, "commits")
        self._space = space
        self._async_index = async_index
        self._small = small
        self._clock = clock
        self._policy = policy

    def path(self, key: PartialKey) -> Path:
        """The path of this key's partial, whether or not it exists."""
        return self._root / "partials" / key.folder / key.name

    async def begin(self, digest: Digest, source: str) -> DiskPartial | None:
        """As ContentStore.partial."""
        key = IngestKey.of(digest, source)
        partial, fault = await self._space.making_names(
            self._files, self._begin, key, self._is_guest(source)
        )
        if partial is not None and fault is not None:
            # What was written before cannot be read: the next writer begins anew.
            await partial.discard()
            raise fault
        return partial

    async def put(
        self, digest: Digest, data: bytes, refers_to: Sequence[Digest], source: str
    ) -> bool:
        """As ContentStore.put."""
        if len(data) <= SMALL and await self._put_small(digest, data, refers_to, source):
            return True
        partial, kept = await self._space.making_names(
            self._files,
            self._put,
            IngestKey.of(digest, source),
            data,
            refers_to,
            self._is_guest(source),
        )
        if partial is None:
            return kept
        try:  # room has to be made for it
            await partial.announce(len(data))
            await partial.append([data])
            await partial.commit(refers_to)
        finally:
            await partial.discard()  # unless it was committed
        return True

    async def _put_small(
        self, digest: Digest, data: bytes, refers_to: Sequence[Digest], source: str
    ) -> bool:
        """As `put`, as a row; False where none can be written."""
        if not digest.matches(data):
            raise Untrustworthy(f"the {len(data)} bytes that came are not {digest}")
        guest = self._is_guest(source)
        mark = IngestKey.of(digest, source).source
        arrival = Arrival(digest, len(data), refers_to, mark, guest)
        if await self._small.put(arrival, data):
            return True
        key = IngestKey(digest)
        await self._space.reserve(SpaceClaim(key, len(data), len(data), len(data), guest))
        kept = False
        try:
            kept = await self._small.put(arrival, data)
        finally:
            if not kept:
                await self._space.release(key)
        return kept

    def follow(self, digest: Digest, source: str) -> DiskFollowed | None:
        """As ContentStore.follow. Raises OSError."""
        key = IngestKey.of(digest, source)
        path = self.path(key)
        try:
            fd = os.open(path, READ_ONLY)
        except FileNotFoundError:
            return None
        return DiskFollowed(path, self._blobs.path(digest), fd, lambda: self._announced(key))

    async def commit(self, partial: DiskPartial, refers_to: Sequence[Digest]) -> None:
        """Publishes, records and closes it (see partial.Shelf)."""
        await self._space.making_names(self._commits, self._publish, partial, refers_to)

    def close(self) -> None:
        """Returns when all that is being committed is. Blocking."""
        self._commits.close()

    def _is_guest(self, source: str) -> bool:
        return bool(source) and self._policy.is_guest(source)

    def _announced(self, key: IngestKey) -> int | None:
        return self._async_index.known(self._async_index.index.announced, key)

    # What follows runs on a thread.

    def _begin(self, key: IngestKey, guest: bool) -> tuple[DiskPartial | None, OSError | None]:
        """A partial that is locked and resumed, or what went wrong after it was locked."""
        partial = self._locked(key, guest)
        if partial is None:
            return None, None
        try:
            partial.resume()
        except OSError as error:
            return partial, error
        return partial, None

    def _locked(self, key: IngestKey, guest: bool) -> DiskPartial | None:
        path = self.path(key)
        try:
            fd = lock_partial(path)
        except FileNotFoundError:  # somebody has removed the folder
            prepare(self._root)
            fd = lock_partial(path)
        if fd is None:
            return None
        announced = self._announced(key) if os.fstat(fd).st_size else None
        file = LockedFile(key, path, fd, guest, announced)
        return DiskPartial(file, self._files, self._space, self, sync=self._policy.sync)

    def _put(
        self, came: IngestKey, data: bytes, refers_to: Sequence[Digest], guest: bool
    ) -> tuple[DiskPartial | None, bool]:
        """The whole way of small content in one go, and whether it is kept; the partial, where room
        is lacking."""
        digest = came.digest
        partial = self._locked(IngestKey(digest), guest)
        if partial is None:  # another process is just writing it
            return None, False
        try:
            partial.begin_anew()
            # A record whose file is yet to come is a miss: so nothing is reserved for a moment.
            now = self._clock.wall()
            arrival = Arrival(digest, len(data), refers_to, came.source, guest)
            if not self._space.admit([arrival], now):
                return partial, False
            partial.take(data)
            partial.publish(self._blobs.path(digest))
        except BaseException:
            with contextlib.suppress(OSError):
                partial.remove()
            partial.close()
            self._async_index.note_here(self._async_index.index.remove, [digest])
            raise
        partial.close()
        return None, True

    def _publish(self, partial: DiskPartial, refers_to: Sequence[Digest]) -> None:
        partial.publish(self._blobs.path(partial.digest))
        index, now = self._async_index.index, self._clock.wall()
        self._async_index.note_here(
            lambda: index.add(
                partial.digest,
                partial.offset,
                now,
                refers_to,
                partial.key,
                guest=partial.guest,
            )
        )
        partial.close()
