"""One piece of content on its way to the disk: locked, hashed as it grows, renamed when proven."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from ...contracts.content import StoreFull, WriterState
from ...contracts.files import Hasher
from ...oci.digest import Digest
from ...oci.errors import Untrustworthy
from ...tasks import ended
from ...threads import Threads
from ..owner import give, make_folder
from . import proof_marks, writeback
from .blob_files import HELD
from .files import sync_directory
from .hash_behind import HashBehind
from .ingest_key import IngestKey, PartialKey
from .open_file import DiskFile
from .space import FULL, ForGuests, SpaceClaim
from .sparse_spans import SparseSpans, note_of, noted

log = structlog.get_logger()

_SLICE = 1 << 20

# Of a batch that is larger, hashing goes on in another thread while the next one is written, and is
# at most so many bytes behind: that is memory.
_BEHIND = 4 << 20
_WORTH_A_THREAD = 1 << 20
_FIRST = 128 << 10  # bytes of a blob that somebody waits for: they are hashed with what follows


class SpaceAccount(Protocol):
    """What a partial needs of the room of the store it belongs to (see SpaceManager)."""

    def ahead(self, there: int) -> int: ...

    def refuse_larger(self, size: int) -> None: ...

    async def reserve(self, claim: SpaceClaim) -> None: ...

    def reserve_here(self, claim: SpaceClaim) -> bool: ...

    async def make_once(self, size: int) -> bool: ...

    async def keep(self, key: PartialKey, size: int) -> None: ...

    async def release(self, key: PartialKey) -> None: ...


class Shelf(Protocol):
    """Where a partial goes when it is whole."""

    async def commit(self, partial: DiskPartial, refers_to: Sequence[Digest]) -> None:
        """Publishes, records and closes it."""


class DiskFull(StoreFull):
    """The disk took less than it was given."""


@dataclass(frozen=True, slots=True)
class LockedFile:
    """The file of a partial, open and locked. `guest`: see Index. `announced`: the size of the
    whole, as an earlier writer was told."""

    key: IngestKey
    path: Path
    fd: int
    guest: bool
    announced: int | None


class DiskPartial:
    """A Partial on the disk. Made by `Ingest`, which holds the protocol's other half.

    The exclusive lock on the file is what makes its holder the only writer, across processes; it
    ends with the process, so a killed writer leaves a partial that the next asker resumes.
    """

    def __init__(
        self,
        file: LockedFile,
        threads: Threads,
        account: SpaceAccount,
        shelf: Shelf,
        *,
        sync: bool,
    ) -> None:
        """`sync`: whether it is to be on the disk when it is committed."""
        self.key = file.key
        self._digest = file.key.digest
        self._path = file.path
        self._fd = file.fd
        self._threads = threads
        self._run = threads.run
        self._account = account
        self._shelf = shelf
        self._sync = sync
        self.guest = file.guest
        self.trusted = True
        self.size = file.announced
        self._dirty = 0  # bytes since the disk was last told to begin
        self._hash = HashBehind(file.key.digest)
        self._hashing: asyncio.Future[None] | None = None
        self._is_proven = False
        self._offset = 0
        self._there = 0  # bytes that are on the disk, or are being written to it
        self._reserved = 0
        self._growing = asyncio.Lock()
        self._ahead = SparseSpans(file.path)
        self._moving = threading.Lock()  # pieces of several streams come in several threads

    @property
    def digest(self) -> Digest:
        return self._digest

    @property
    def offset(self) -> int:
        return self._offset

    def open(self) -> DiskFile:
        return DiskFile.reopened(self._fd)

    def hasher(self) -> Hasher:
        return self._hash.copy()

    async def announce(self, size: int) -> None:
        self._account.refuse_larger(size)
        self.size = size  # noted with the first bytes

    async def append(self, pieces: Sequence[bytes]) -> None:
        await self.place(self._offset, pieces)

    @property
    def ahead(self) -> Sequence[tuple[int, int]]:
        return self._ahead.spans

    @property
    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        return self._ahead.vouched

    async def place(self, at: int, pieces: Sequence[bytes], vouched: bool = False) -> None:
        more = sum(map(len, pieces))
        try:
            if self._reserved or not await self._place_first(at, pieces, vouched):
                await self._take_room(more)
                await self._run(self._place, at, pieces, vouched)
        except DiskFull:
            # Others have taken it meanwhile, or there is a quota.
            if not await self._account.make_once(more):
                raise
            await self._run(self._place, at, pieces, vouched)
        if self._hash.waiting > _FIRST and (self._hashing is None or self._hashing.done()):
            self._hashing = self._threads.begin(self._hash.catch_up)

    async def _place_first(self, at: int, pieces: Sequence[bytes], vouched: bool) -> bool:
        """Takes room for the first pieces and writes them in one way to a thread: somebody waits
        for them. False where room has to be made."""
        async with self._growing:
            if self._reserved:
                return False
            more = sum(map(len, pieces))
            claim = self._claim(self._step(more))
            return await self._run(self._reserve_and_place, claim, more, at, pieces, vouched)

    def _step(self, needed: int) -> int:
        """Bytes for which room is reserved, when so many are needed: so that no piece costs a
        record."""
        target = needed + self._account.ahead(needed)
        return target if self.size is None else max(needed, min(target, self.size))

    def _claim(self, size: int) -> SpaceClaim:
        guest = self.guest or not self.trusted
        return SpaceClaim(self.key, size, max(0, size - self._there), self.size, guest)

    async def _take_room(self, more: int) -> None:
        """Sees to it that there is room for so many bytes more. Raises StoreFull, OSError."""
        if self._there + more > self._reserved:
            async with self._growing:
                needed = self._there + more
                if needed > self._reserved:
                    target = self._step(needed)
                    try:
                        await self._reserve(target)
                    except ForGuests:
                        raise
                    except StoreFull:
                        if target == needed:
                            raise
                        await self._reserve(needed)
        self._there += more

    async def _reserve(self, size: int) -> None:
        await self._account.reserve(self._claim(size))
        self._reserved = size

    async def prove(self) -> None:
        if self._is_proven:
            return
        proving = self._threads.begin(self._prove)
        try:
            self._is_proven = await asyncio.shield(proving)
        except asyncio.CancelledError:  # as with a commit
            await ended([proving])
            raise
        if not self._is_proven:
            await self.discard()
            raise Untrustworthy(f"the {self._offset} bytes that came are not {self._digest}")

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        await self.prove()
        committing = asyncio.ensure_future(self._shelf.commit(self, refers_to))
        try:
            await asyncio.shield(committing)
        except asyncio.CancelledError:  # a thread is at it, and is not to be met by a `suspend`
            await ended([committing])
            raise

    async def suspend(self) -> None:
        if self._fd < 0:
            return
        if self._offset == 0 and not self.ahead:
            await self.discard()
            return
        try:
            # What is reserved from now on is what is there.
            await self._account.keep(self.key, await self._run(held, self._path))
            await self._run(self._leave)
        except OSError as error:
            log.error("partial_not_kept", digest=str(self._digest), reason=str(error))
            await self.discard()

    async def discard(self) -> None:
        if self._fd < 0:
            return
        try:
            await self._run(self.remove)
        except OSError as error:
            # A disk that takes nothing more, not even that. What stays is proven before it is used.
            log.error("partial_cannot_be_removed", digest=str(self._digest), reason=str(error))
            await self._run(self.close)
        await self._account.release(self.key)

    # What follows runs in the executor.

    def resume(self) -> None:
        """Hashes what an earlier writer left. Blocking."""
        self._advance(self._ahead.resume(os.fstat(self._fd).st_size))
        self._there = self._offset + sum(stop - start for start, stop in self._ahead.spans)
        self._reserved = self._there

    def begin_anew(self) -> None:
        """Forgets what an earlier writer left. Blocking."""
        os.ftruncate(self._fd, 0)
        self._ahead.resume(0)
        self._ahead.end()

    def take(self, data: bytes) -> None:
        """The whole of it, for which there is room. Blocking; raises as `append` and `commit`, and
        what was written is to be removed then."""
        self._place(0, [data], vouched=False)
        if self._hash.hexdigest() != self._digest.hex:
            raise Untrustworthy(f"the {self._offset} bytes that came are not {self._digest}")

    def _prove(self) -> bool:
        """Whether the bytes are those of the digest; where they are, that is shown."""
        if self._hash.hexdigest() != self._digest.hex:
            return False
        try:
            self._ahead.end()  # who sees the proof takes all that is in the file for proven
        except OSError as error:
            log.error("note_cannot_be_removed", digest=str(self._digest), reason=str(error))
        else:
            proof_marks.show(self._fd)
        return True

    def publish(self, target: Path) -> None:
        """Gives the proven file its name in `target`; where content of this name is held, in its
        place. Blocking."""
        self._ahead.end()
        held = _is_held(target)
        if held:
            os.fchmod(self._fd, 0o600 | HELD)
        if self._sync or held:
            with _synced_once():
                os.fsync(self._fd) if held else os.fdatasync(self._fd)
        try:
            os.rename(self._path, target)
        except FileNotFoundError:  # the first of its directory
            make_folder(target.parent)
            os.rename(self._path, target)
        if self._sync or held:
            with _synced_once():
                sync_directory(target.parent)

    def _reserve_and_place(
        self, claim: SpaceClaim, more: int, at: int, pieces: Sequence[bytes], vouched: bool
    ) -> bool:
        try:
            if not self._account.reserve_here(claim):
                return False
        except StoreFull:  # for less there may be room
            return False
        self._reserved, self._there = claim.size, self._there + more
        self._place(at, pieces, vouched)
        return True

    def _place(self, at: int, pieces: Sequence[bytes], vouched: bool) -> None:
        with self._moving:
            passed = max(0, self._offset - at)  # bytes that are there already
            if at > self._offset:
                self._ahead.begin(self._offset)
        for piece in pieces:
            view = memoryview(piece)[passed:]
            at += min(passed, len(piece))
            passed = max(0, passed - len(piece))
            while view:
                try:
                    written = os.pwrite(self._fd, view, at)
                except OSError as error:
                    if error.errno == errno.EFBIG:  # of a limit that no eviction moves
                        raise StoreFull(error.strerror) from error
                    if error.errno in FULL:
                        raise DiskFull(error.strerror) from error
                    raise
                # In step with each other, whatever fails next. Written first: a process that
                # follows the file must not see less than is told to the readers of this one.
                with self._moving:
                    if at == self._offset:
                        self._hash.put(view[:written])
                        self._offset += written
                        self._advance(self._ahead.reached(self._offset))
                    else:
                        self._ahead.add(at, at + written, self._offset, vouched)
                at += written
                view = view[written:]
                self._dirty += written
            if self._sync and self._dirty >= writeback.EVERY:
                self._dirty = 0
                writeback.begin(self._fd)
        batch = sum(map(len, pieces))
        self._hash.catch_up(self._may_wait(batch))

    def _may_wait(self, batch: int) -> int:
        """Bytes that need not be hashed yet, after so many were written."""
        if batch > _WORTH_A_THREAD:
            return min(batch, _BEHIND)
        is_waited_for = self._offset <= _FIRST and self.size not in (None, self._offset)
        return _FIRST if is_waited_for else 0

    def _advance(self, target: int) -> None:
        """Hashes what is on the file up to `target`."""
        while self._offset < target:
            piece = os.pread(self._fd, min(_SLICE, target - self._offset), self._offset)
            if not piece:
                raise OSError(errno.EIO, "the file ends before what was written to it")
            self._hash.put(piece)
            self._hash.catch_up(_BEHIND)
            self._offset += len(piece)
            target = max(target, self._ahead.reached(self._offset))

    def remove(self) -> None:
        """As `discard`, but for the account. Blocking."""
        self._ahead.end()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self.close()

    def _leave(self) -> None:
        self._ahead.save(self._offset)
        self.close()

    def close(self) -> None:
        """Gives the lock back. Blocking, if its name is gone."""
        self._ahead.close()
        with self._moving:  # a fill that is stopped may close it while a commit does
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def _synced_once() -> Iterator[None]:
    """A sync that fails is no full disk, for which room is made and all done once more: what could
    not be written is clean to the system now, and the next sync would say that it is there."""
    try:
        yield
    except OSError as error:
        raise OSError(errno.EIO, f"it cannot be synced: {error.strerror}") from error


class DiskFollowed:
    """A partial that another process writes. Its files are looked at; nothing of it is changed."""

    def __init__(self, path: Path, target: Path, fd: int, announced: Callable[[], int | None]):
        self._path = path
        self._target = target
        self._fd = fd
        self._announced = announced
        self._written = 0

    @property
    def size(self) -> int | None:
        return self._announced()

    def written(self) -> int:
        # The size first: the note of what is ahead goes only when nothing is.
        size = os.fstat(self._fd).st_size
        note = noted(self._path)
        self._written = max(self._written, size if note is None else note.reached)
        return self._written

    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        note = noted(self._path)
        return () if note is None else note.vouched

    def state(self) -> WriterState:
        if _names(self._path, self._fd):
            is_proven = proof_marks.is_shown(self._fd)
            return WriterState.PROVEN if is_proven else WriterState.WRITING
        # Renamed or removed. In this order: a rename in between is not taken for a removal.
        return WriterState.KEPT if _names(self._target, self._fd) else WriterState.GONE

    def open(self) -> DiskFile:
        return DiskFile.reopened(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def held(path: Path) -> int:
    """Bytes that a partial takes on the disk, with its note: one that has holes takes less than its
    length. Blocking; raises OSError."""
    taken = 0
    for name in (path, note_of(path)):
        with contextlib.suppress(FileNotFoundError):
            found = name.lstat()
            taken += min(found.st_size, found.st_blocks * 512)
    return taken


def _is_held(path: Path) -> bool:
    try:
        return bool(path.lstat().st_mode & HELD)
    except FileNotFoundError:
        return False


def _names(path: Path, fd: int) -> bool:
    """Whether this name means the open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def lock_partial(path: Path, flags: int = os.O_CREAT) -> int | None:
    """Opens or makes the partial at `path` and locks it; None when another holds the lock. With
    other `flags` none is made.

    Blocking. Raises OSError. A symbolic link planted there is refused (ELOOP), a hard link
    removed: what is written here would be written into the file of somebody else.
    """
    while True:
        fd = os.open(path, os.O_RDWR | flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            give(fd, path.parent)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have renamed or removed it between our open and our lock.
            found = os.fstat(fd)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(path), found):
                    if found.st_nlink == 1:
                        return fd
                    os.unlink(path)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
