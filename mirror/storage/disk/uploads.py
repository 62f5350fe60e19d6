"""Uploads: files that grow as their bytes come, and become content when their digest is told.

partials/uploads/<session>.<marks of namespace and repository>     locked by whoever writes to it

All is on the disk, so that any process may go on with what another began. Beside the bytes (as an
extended attribute, where the file system has those) stands what their SHA-256 was after the last
append: to finish an upload then reads nothing again. Where that does not tell, all is read once, at
the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from ...clock import Clock
from ...contracts.content import StoreFull
from ...contracts.files import Hasher
from ...contracts.registry import Body
from ...contracts.uploads import Bring
from ...oci.digest import Digest
from ...oci.errors import (
    ContentMismatch,
    Interrupted,
    RateLimited,
    SizeInvalid,
    Unavailable,
    UploadRangeInvalid,
    UploadUnknown,
)
from ...oci.reference import namespace_of
from ...threads import Threads, aside
from . import writeback
from .files import hash_of, words
from .held import DiskHeld, create, unlink
from .ingest_key import UPLOADS, SessionKey, namespace_mark
from .open_file import DiskFile
from .partial import lock_partial
from .space import FULL, ForGuests, SpaceClaim, SpaceManager

T = TypeVar("T")
P = ParamSpec("P")
Loop = asyncio.AbstractEventLoop

# Seconds that a session is waited for: its last writer may be about to see that its client has
# gone, and the upkeep looks at each for a moment.
_LOCKED_WITHIN = 2.0
_LOCKED_EVERY = 0.01

# Bytes. A body of so many is in memory before it is written, all at once.
_SMALL = 256 << 10

# Uploads of one namespace that are open: each is a file for a day. With so many, one that nobody
# has written to for an hour makes way: its client was killed.
_MOST = 1000
_FORSAKEN = 3600.0

_NOTE = "user.registry-mirror.sha256"

_WRITERS = 4


class DiskUploads:
    """The Uploads of the store at `root`; `files` are the threads that touch its files."""

    def __init__(
        self, root: Path, files: Threads, space: SpaceManager, held: DiskHeld, clock: Clock
    ) -> None:
        self._root = root
        self._folder = root / "partials" / UPLOADS
        self._files = files
        # Apart from those: who writes may wait until something is evicted, which takes one of them.
        self._writing = Threads(_WRITERS, "uploads")
        self._space = space
        self._held = held
        self._clock = clock

    async def close(self) -> None:
        await aside(self._writing.close)

    async def begin(self, repository: str) -> str:
        key, loop = SessionKey.new(repository), asyncio.get_running_loop()
        try:
            await self._space.making_names(self._files, self._create, key, repository, loop)
        except OSError as error:
            if error.errno in FULL:
                raise StoreFull(words(error)) from error
            raise
        return key.session

    async def append(self, repository: str, session: str, start: int | None, body: Body) -> int:
        if body.size is not None and body.size <= _SMALL:
            return await self._append_whole(repository, session, start, body)
        file = await _taken(self._locked(repository, session, _SessionFile.itself))
        try:
            file.follows(start)
            if body.size is not None:
                file.total = file.size + body.size
            await body.pour(file.append)
        except (StoreFull, SizeInvalid):
            await self._files.run(file.take_back)
            raise
        finally:
            await asyncio.shield(self._files.begin(file.leave))
        return file.size

    async def _append_whole(
        self, repository: str, session: str, start: int | None, body: Body
    ) -> int:
        """As `append`, in one go."""
        pieces, broken = [], None
        try:
            while piece := await body.read():
                pieces.append(piece)
        except Interrupted as error:
            broken = error
        append = _SessionFile.append_whole
        size = await self._locked(repository, session, append, start, b"".join(pieces))
        if broken is not None:
            raise broken
        return size

    async def size(self, repository: str, session: str) -> int:
        path = self._path(_key(repository, session))
        try:
            return (await self._files.run(path.lstat)).st_size
        except FileNotFoundError:
            raise _unknown() from None

    async def under_way(self, repository: str) -> int:
        return sum(found.st_size for _, found in await self._files.run(self._open, repository))

    async def finish(
        self, repository: str, session: str, digest: Digest, bring: Bring | None = None
    ) -> int:
        if bring is None:
            return await self._locked(repository, session, self._finish, digest)
        # Held by its lock meanwhile, as by a writer.
        file = await _taken(self._locked(repository, session, self._proven, digest))
        try:
            opened = DiskFile.reopened(file.fd)
            try:
                await bring(digest, opened, file.size)
            finally:
                opened.close()
        except BaseException:
            await asyncio.shield(self._files.begin(file.close))
            raise
        return await asyncio.shield(self._writing.begin(self._shelve_brought, file, digest))

    async def cancel(self, repository: str, session: str) -> None:
        key = _key(repository, session)
        try:
            await self._files.run(self._path(key).unlink)
        except FileNotFoundError:
            raise _unknown() from None
        await self._space.release(key)

    async def _locked(
        self,
        repository: str,
        session: str,
        work: Callable[Concatenate[_SessionFile, P], T],
        *arguments: P.args,
        **names: P.kwargs,
    ) -> T:
        """What `work` does, on a thread, with the session's file, which is to be left by it. Raises
        UploadUnknown, and Unavailable where another one has it."""
        key, loop = _key(repository, session), asyncio.get_running_loop()
        deadline = self._clock.monotonic() + _LOCKED_WITHIN

        def do() -> tuple[T] | None:
            file = _SessionFile.locked(key, self._path(key), self._space, loop)
            return None if file is None else (work(file, *arguments, **names),)

        while True:
            done = await asyncio.shield(self._writing.begin(do))
            if done is not None:
                return done[0]
            if self._clock.monotonic() > deadline:
                raise Unavailable("somebody else writes to this upload", retry_after=1)
            await asyncio.sleep(_LOCKED_EVERY)

    def _path(self, key: SessionKey) -> Path:
        return self._root / "partials" / key.folder / key.name

    # What follows runs on a thread.

    def _open(self, repository: str) -> list[tuple[str, os.stat_result]]:
        """The files of all uploads of this repository's namespace."""
        mark, files = f".{namespace_mark(repository)}-", []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as found:
            for each in found:
                if mark in each.name:
                    with contextlib.suppress(FileNotFoundError):  # it has just ended
                        files.append((each.name, each.stat()))
        return files

    def _make_way(self, repository: str, loop: Loop) -> None:
        """For one upload more. Raises RateLimited."""
        files = self._open(repository)
        if len(files) < _MOST:
            return
        name, found = min(files, key=lambda file: file[1].st_mtime)
        key = SessionKey.named(name)
        if key is not None and found.st_mtime < self._clock.wall() - _FORSAKEN:
            with contextlib.suppress(UploadUnknown):
                file = _SessionFile.locked(key, self._path(key), self._space, loop)
                if file is not None:
                    file.remove()
                    return
        raise RateLimited(
            f"{namespace_of(repository)} has {_MOST} uploads that were begun and neither "
            "finished nor cancelled",
            retry_after=60,
        )

    def _create(self, key: SessionKey, repository: str, loop: Loop) -> None:
        self._make_way(repository, loop)
        os.close(create(self._root, self._path(key)))

    def _finish(self, file: _SessionFile, digest: Digest) -> int:
        return self._shelve(self._proven(file, digest), digest)

    def _proven(self, file: _SessionFile, digest: Digest) -> _SessionFile:
        """Itself, on the disk; closed, where it raises."""
        try:
            if file.digest(digest) != digest.hex:
                file.remove()
                raise ContentMismatch(f"the {file.size} bytes that came are not {digest}")
            os.fdatasync(file.fd)
        except BaseException:
            file.close()
            raise
        return file

    def _shelve(self, file: _SessionFile, digest: Digest) -> int:
        try:
            self._held.shelve(file.key, file.path, digest, file.size)
            return file.size
        except FileNotFoundError:  # it was cancelled meanwhile
            raise _unknown() from None
        finally:
            file.close()

    def _shelve_brought(self, file: _SessionFile, digest: Digest) -> int:
        size = self._shelve(file, digest)
        self._held.leave(digest)
        return size


class _SessionFile:
    """The file of an upload, open and locked. Made, and used, on threads."""

    def __init__(
        self, key: SessionKey, path: Path, fd: int, space: SpaceManager, loop: Loop
    ) -> None:
        self.key = key
        self.path = path
        self.fd = fd
        self.size = self._before = os.fstat(fd).st_size
        self.total: int | None = None
        """Bytes that there will be, if what is said comes."""
        self._space = space
        self._loop = loop
        self._reserved = self.size
        self._hash: Hasher | None = None if self.size else hashlib.sha256()
        self._dirty = 0  # bytes since the disk was last told to begin
        self._using = threading.Lock()  # whoever is cancelled leaves a thread at work

    @classmethod
    def locked(cls, key: SessionKey, path: Path, space: SpaceManager, loop: Loop) -> Self | None:
        """None when another has it. Raises UploadUnknown, OSError."""
        try:
            fd = lock_partial(path, flags=0)
        except FileNotFoundError:
            raise _unknown() from None
        return None if fd is None else cls(key, path, fd, space, loop)

    def itself(self) -> Self:
        return self

    def follows(self, start: int | None) -> None:
        """Raises UploadRangeInvalid where what begins there does not."""
        if start is not None and start != self.size:
            raise UploadRangeInvalid(self.size)

    def append_whole(self, start: int | None, data: bytes) -> int:
        """Appends this, and leaves; the size. Raises UploadRangeInvalid, StoreFull, OSError."""
        try:
            self.follows(start)
            self.total = self.size + len(data)
            self.append(data)
            return self.size
        except StoreFull:
            self.take_back()
            raise
        finally:
            self.leave()

    def append(self, piece: bytes | memoryview) -> None:
        """Raises StoreFull, OSError."""
        with self._using:
            if self.fd < 0:
                raise Interrupted("the upload is not written to any more")
            if self.size + len(piece) > self._reserved:
                self._take_room(len(piece))
            view = memoryview(piece)
            while view:
                view = view[self._write(view) :]
            if self._dirty >= writeback.EVERY:
                self._dirty = 0
                writeback.begin(self.fd)

    def digest(self, like: Digest) -> str:
        """The hex of what is there, by the algorithm of this one. Raises OSError."""
        if like.algorithm == "sha256":
            with contextlib.suppress(OSError):  # there is none, or such are not to be had here
                boot, size, found = os.getxattr(self.fd, _NOTE).decode().split()
                if (boot, size) == (_boot(), str(self.size)):
                    return found
        return hash_of(self.fd, like)

    def take_back(self) -> None:
        """What has been appended. Raises OSError."""
        with self._using:
            os.ftruncate(self.fd, self._before)
            self.size, self._hash = self._before, None

    def leave(self) -> None:
        """Notes what is there, and gives the lock back."""
        with self._using:
            index = self._space.index
            if os.fstat(self.fd).st_nlink == 0:  # it was cancelled meanwhile
                index.note_here(index.index.release, self.key)
            else:
                if self.size != self._before and self._hash is not None:
                    with contextlib.suppress(OSError):  # then it is hashed at the end
                        note = f"{_boot()} {self.size} {self._hash.hexdigest()}"
                        os.setxattr(self.fd, _NOTE, note.encode())
                if self._reserved != self.size:
                    index.note_here(index.index.keep, self.key, self.size)
            self._close()

    def remove(self) -> None:
        with self._using:
            unlink(self.path)
            index = self._space.index
            index.note_here(index.index.release, self.key)
            self._close()

    def close(self) -> None:
        with self._using:
            self._close()

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, view: memoryview) -> int:
        try:
            written = os.pwrite(self.fd, view, self.size)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # Others have taken it meanwhile, or there is a quota; a limit is moved by no eviction.
            if error.errno == errno.EFBIG or not self._wait(self._space.make_once(len(view))):
                raise StoreFull(words(error)) from error
            written = self._written_now(view)
        if self._hash is not None:
            self._hash.update(view[:written])
        self.size += written
        self._dirty += written
        return written

    def _written_now(self, view: memoryview) -> int:
        try:
            return os.pwrite(self.fd, view, self.size)
        except OSError as error:
            if error.errno in FULL:
                raise StoreFull(words(error)) from error
            raise

    def _take_room(self, more: int) -> None:
        """For so many bytes more, and for some that follow, so that no piece costs a record."""
        needed = self.size + more
        target = needed + self._space.ahead(needed)
        if self.total is not None:
            target = max(needed, min(target, self.total))
        try:
            self._reserve(target)
        except ForGuests:
            raise
        except StoreFull:
            if target == needed:
                raise
            self._reserve(needed)

    def _reserve(self, size: int) -> None:
        claim = SpaceClaim(self.key, size, size - self.size, self.total)
        if not self._space.reserve_here(claim):
            self._wait(self._space.reserve(claim))
        self._reserved = size

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """For what the event loop does. Raises StoreFull on the event loop itself, where a machine
        gives no threads."""
        if asyncio._get_running_loop() is not None:
            work.close()
            raise StoreFull("there is no thread to wait on until there is room")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _taken(locked: Awaitable[_SessionFile]) -> _SessionFile:
    """The file of a session, with its lock, which is the caller's to give back; cancelled, nobody
    keeps it."""
    taking = asyncio.ensure_future(locked)
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        taking.add_done_callback(_left)
        raise


def _left(taking: asyncio.Future[_SessionFile]) -> None:
    """Nobody writes to what was taken: its lock is given back."""
    if not taking.cancelled() and taking.exception() is None:
        taking.result().close()


def _key(repository: str, session: str) -> SessionKey:
    key = SessionKey.of(session, repository)
    if key is None:
        raise _unknown()
    return key


def _unknown() -> UploadUnknown:
    return UploadUnknown("there is no such upload, or it has ended")


@functools.cache
def _boot() -> str:
    """Of this run of the machine: what was written before a power failure may be gone."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
