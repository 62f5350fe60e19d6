"""Content on the disk: a file a digest, visible only once it is proven.

blobs/<algorithm>/<2 hex>/<hex>     proven content, never altered
partials/<algorithm>/<hex>.<source> being written, or waiting to be resumed
quarantine/<hex>.<n>                what was found damaged, for a person to look at
index.db                            sizes, last use, what needs what (see index.py)
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import apsw
import structlog

from ..interfaces import Clock, Entry, Meter, NoMeter, Outcome, Provenance, Usage
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import ALGORITHMS, Digest
from ..oci.errors import Unavailable
from ..threads import Threads, aside
from .coming import Coming
from .index import Index, Ledger
from .partial import DiskFollowed, DiskPartial, lock_partial
from .room import Bounds, Room

log = structlog.get_logger()

_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# No fault of the content: a file that cannot be opened for them is waited for, as long as clients
# wait, while those that are open are read to their ends. In seconds.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_MEANS_WITHIN = 20.0
_MEANS_EVERY = 0.05

_TOUCH_EVERY = 2.0  # seconds: how long a use may go unrecorded
_SLICE = 1 << 20

T = TypeVar("T")


class StorageUnusable(Exception):
    """The configured path cannot hold content; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A hit: proven content, open."""

    descriptor: Descriptor
    outcome: Outcome
    fd: int
    size: int
    doubt: Callable[[str], None]

    def damaged(self, reason: str) -> None:
        self.doubt(reason)

    @property
    def provenance(self) -> Provenance:
        return Provenance.HERE

    async def proven(self) -> None:
        """It is."""

    def fileno(self) -> int:
        return self.fd

    async def readable(self, beyond: int) -> int:
        return self.size

    def close(self) -> None:
        # Closing the last descriptor of an evicted file frees its blocks: 100 ms for a big one.
        if os.fstat(self.fd).st_nlink == 0:
            aside(os.close, self.fd)
        else:
            os.close(self.fd)


class DiskContent:
    """A ContentStore in one directory, shared by all workers of a node."""

    def __init__(
        self,
        root: Path,
        bounds: Bounds,
        *,
        sync: bool = True,
        clock: Clock | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Opens or makes the store. Raises StorageUnusable. Blocking.

        `sync`: whether content reaches the disk before it becomes visible. Without it a power
        loss may leave short files, which the size check and the scrub find.
        """
        self.root = root
        self._sync = sync
        self._clock = clock or Clock()
        self._meter = meter or NoMeter()
        try:
            for directory in _directories(root):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = root / f".probe-{os.getpid()}"
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            probe.unlink()
            self._index = Index(root / "index.db", bounds.max_size)
        except (OSError, apsw.Error) as error:
            raise StorageUnusable(
                f"storage.path {root} cannot be used: {words(error)}; "
                "name a directory that this user may write to"
            ) from error
        if root.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            log.warning("storage is writable by others", path=str(root), advice="chmod go-w")
        self.ledger = Ledger(self._index)
        self.room = Room(root, bounds, self.ledger, self.delete, self._flush_uses)
        self._files = Threads(4, "files")
        self._used: dict[Digest, float] = {}
        self._toucher: asyncio.Task[None] | None = None
        self._checking: set[asyncio.Future[bool | None]] = set()

    async def close(self) -> None:
        await asyncio.gather(*self._checking, return_exceptions=True)
        if self._toucher is not None:
            self._toucher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._toucher
        await self._flush_uses()
        await aside(self._files.close)
        await self.ledger.close()

    async def open(self, digest: Digest, outcome: Outcome = Outcome.HIT) -> DiskFile | None:
        fd = await self._opened(digest)
        if fd is None:
            return None
        size = os.fstat(fd).st_size
        recorded = self._recorded(digest)
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
        return DiskFile(
            Descriptor(OCTET_STREAM, digest, size),
            outcome,
            fd,
            size,
            functools.partial(self._doubt, digest),
        )

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        fd = await self._opened(digest)
        if fd is None:
            return None
        try:
            if os.fstat(fd).st_size > limit:
                return None
            data = await self.on_files(_read_whole, fd, limit)
        except OSError as error:
            await self.quarantine(digest, words(error))
            return None
        finally:
            os.close(fd)
        if not digest.matches(data):
            await self.quarantine(digest, "its bytes have changed")
            return None
        if self._recorded(digest) is None:
            await self.ledger.note(self._index.add, digest, len(data), self._clock.wall())
        self.touch(digest)
        return data

    async def partial(self, digest: Digest, source: str = "") -> DiskPartial | None:
        partial, fault = await self.on_files(self._begin, Coming.of(digest, source))
        if partial is not None and fault is not None:
            # What was written before cannot be read: the next writer begins anew.
            await partial.discard()
            raise fault
        return partial

    async def put(self, digest: Digest, data: bytes, refers_to: Sequence[Digest] = ()) -> None:
        partial = await self.on_files(self._put, digest, data, refers_to)
        if partial is None:
            return
        try:  # room has to be made for it
            await partial.announce(len(data))
            await partial.append([data])
            await partial.commit(refers_to)
        finally:
            await partial.discard()  # unless it was committed

    async def follow(self, digest: Digest, source: str = "") -> DiskFollowed | None:
        coming = Coming.of(digest, source)
        path = self.partial_path(coming)
        try:
            fd = os.open(path, _READ_ONLY)
        except FileNotFoundError:
            return None
        return DiskFollowed(path, self.blob_path(digest), fd, lambda: self._index.announced(coming))

    def touch(self, digest: Digest) -> None:
        self._used[digest] = self._clock.wall()
        if self._toucher is None or self._toucher.done():
            self._toucher = asyncio.create_task(self._touch_later())

    def is_needed(self, digest: Digest) -> bool:
        try:
            return self._index.is_needed(digest)
        except apsw.Error as error:
            log.warning("index does not answer", reason=str(error))
            return False

    async def pin(self, name: str, digest: Digest) -> None:
        await self.ledger.note(self._index.pin, name, digest)

    async def delete(self, digest: Digest) -> None:
        await self.on_files(_unlink, self.blob_path(digest))
        await self.ledger.note(self._index.remove, digest)

    async def scan(self) -> AsyncIterator[Entry]:
        after = ""
        while page := await self.ledger.ask(self._index.entries, after):
            for entry in page:
                yield entry
            after = str(page[-1].digest)

    def usage(self) -> Usage:
        try:
            return self._index.usage()
        except apsw.Error as error:
            log.warning("index does not answer", reason=str(error))
            return Usage(0, 0, 0, self._index.max_bytes)

    async def verify(self, digest: Digest) -> bool | None:
        """Hashes the content anew; what is wrong is set aside. None when it is not here."""
        fd = self._open(digest)
        if fd is None:
            await self.ledger.note(self._index.remove, digest)
            return None
        try:
            found = await self.on_files(_hash_of, fd, digest)
        except OSError as error:  # a failing disk
            found = words(error)
        finally:
            os.close(fd)
        if found != digest.hex:
            await self.quarantine(digest, f"its bytes are not its digest's: {found}")
            return False
        return True

    async def quarantine(self, digest: Digest, reason: str) -> None:
        """Moves damaged content aside: it is a miss from now on, and will be filled again."""
        log.error("content quarantined", digest=str(digest), reason=reason)
        await self.on_files(self._set_aside, digest)
        await self.ledger.note(self._index.remove, digest)

    async def on_files(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs what touches files, off the event loop."""
        return await self._files.run(work, *arguments)

    # The account of a partial (see partial.Account).

    async def reserve(self, coming: Coming, size: int, more: int, total: int | None) -> None:
        await self.room.reserve(coming, size, more, total)

    async def release(self, coming: Coming) -> None:
        await self.room.release(coming)

    async def commit(self, partial: DiskPartial, refers_to: Sequence[Digest]) -> None:
        await self.on_files(self._publish, partial, refers_to)

    # Inside.

    def _begin(self, coming: Coming) -> tuple[DiskPartial | None, OSError | None]:
        """A partial that is locked and resumed, or what went wrong after it was locked."""
        path = self.partial_path(coming)
        fd = lock_partial(path)
        if fd is None:
            return None, None
        partial = DiskPartial(coming, path, fd, self._files, self, self._sync)
        try:
            partial.resume()
        except OSError as error:
            return partial, error
        return partial, None

    def _put(self, digest: Digest, data: bytes, refers_to: Sequence[Digest]) -> DiskPartial | None:
        """The whole way of small content in one go; the partial, where room is lacking."""
        coming = Coming(digest)
        path = self.partial_path(coming)
        fd = lock_partial(path)
        if fd is None:  # another process is just writing it
            return None
        partial = DiskPartial(coming, path, fd, self._files, self, self._sync)
        try:
            partial.begin_anew()
            # A record whose file is yet to come is a miss: so nothing is reserved for a moment.
            if self.room.admit(digest, len(data), self._clock.wall(), refers_to) > 0:
                return partial
            partial.take(data)
            partial.publish(self.blob_path(digest))
        except BaseException:
            with contextlib.suppress(OSError):
                partial.remove()
            partial.close()
            self.ledger.note_here(self._index.remove, digest)
            raise
        partial.close()
        return None

    def _publish(self, partial: DiskPartial, refers_to: Sequence[Digest]) -> None:
        partial.publish(self.blob_path(partial.digest))
        self.ledger.note_here(
            self._index.add,
            partial.digest,
            partial.offset,
            self._clock.wall(),
            refers_to,
            partial.coming,
        )
        partial.close()

    def _doubt(self, digest: Digest, reason: str) -> None:
        """A reader could not read this content: it is looked at, behind."""
        log.error("content could not be read", digest=str(digest), reason=reason)
        checking = asyncio.ensure_future(self.verify(digest))
        self._checking.add(checking)
        checking.add_done_callback(self._checking.discard)

    async def _opened(self, digest: Digest) -> int | None:
        """As `_open`, when descriptors have run out as soon as there are some."""
        deadline = self._clock.monotonic() + _MEANS_WITHIN
        while True:
            try:
                return self._open(digest)
            except Unavailable:
                if self._clock.monotonic() > deadline:
                    raise
            await asyncio.sleep(_MEANS_EVERY)

    def _open(self, digest: Digest) -> int | None:
        """A descriptor on the content's file; anything but a regular file there is set aside."""
        path = self.blob_path(digest)
        try:
            fd = os.open(path, _READ_ONLY)
        except FileNotFoundError:
            return None
        except OSError as error:  # a symbolic link (ELOOP), no permission, a failing disk
            if error.errno in _EXHAUSTED:
                raise Unavailable(f"out of means: {words(error)}", retry_after=1) from error
            log.error("content cannot be opened", digest=str(digest), reason=words(error))
            self._set_aside(digest)
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        log.error("content is not a regular file", digest=str(digest))
        self._set_aside(digest)
        return None

    async def _adopt(self, digest: Digest, fd: int) -> bool:
        """Takes a file without a record into the account, once its bytes are proven."""
        if not await self.verify(digest):
            return False
        await self.ledger.note(self._index.add, digest, os.fstat(fd).st_size, self._clock.wall())
        return True

    def _recorded(self, digest: Digest) -> int | None:
        try:
            return self._index.size(digest)
        except apsw.Error as error:
            log.warning("index does not answer", reason=str(error))
            return None

    async def _touch_later(self) -> None:
        await asyncio.sleep(_TOUCH_EVERY)
        await self._flush_uses()

    async def _flush_uses(self) -> None:
        used, self._used = self._used, {}
        if used:
            await self.ledger.note(self._index.touch, list(used.items()))

    def _set_aside(self, digest: Digest) -> None:
        target = self.root / "quarantine" / f"{digest.hex}.{time.time_ns()}"
        self._meter.content_rotten()
        try:
            os.rename(self.blob_path(digest), target)
        except FileNotFoundError:
            pass
        except OSError as error:  # a disk that takes nothing any more
            log.error("content cannot be set aside", digest=str(digest), reason=words(error))

    def blob_path(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex

    def partial_path(self, coming: Coming) -> Path:
        return self.root / "partials" / coming.digest.algorithm / coming.name


def _directories(root: Path) -> Iterator[Path]:
    yield from (root, root / "quarantine")
    for kind in (root / "blobs", root / "partials"):
        yield kind
        yield from (kind / algorithm for algorithm in ALGORITHMS)


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _read_whole(fd: int, limit: int) -> bytes:
    pieces = []
    offset = 0
    while offset <= limit and (piece := os.pread(fd, _SLICE, offset)):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def _hash_of(fd: int, digest: Digest) -> str:
    hasher = digest.hasher()
    offset = 0
    while piece := os.pread(fd, _SLICE, offset):
        hasher.update(piece)
        offset += len(piece)
    return hasher.hexdigest()


def words(error: Exception) -> str:
    """The error without Python's decoration."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
