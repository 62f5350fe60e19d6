"""One piece of content on its way to the disk: locked, hashed as it grows, renamed when proven."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol, TypeVar

from ..interfaces import StoreFull
from ..oci.digest import Digest
from ..oci.errors import Untrustworthy

_SLICE = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

T = TypeVar("T")


class Account(Protocol):
    """What a partial needs of the store it belongs to."""

    async def reserve(self, digest: Digest, size: int) -> None: ...

    async def release(self, digest: Digest) -> None: ...

    async def commit(self, partial: DiskPartial, refers_to: Sequence[Digest]) -> None: ...


class DiskPartial:
    """A Partial on the disk. Made by `DiskContent.partial`, which holds the protocol's other half.

    The exclusive lock on the file is what makes its holder the only writer, across processes; it
    ends with the process, so a killed writer leaves a partial that the next asker resumes.
    """

    def __init__(
        self,
        digest: Digest,
        path: Path,
        fd: int,
        executor: Executor,
        account: Account,
    ) -> None:
        self._digest = digest
        self._path = path
        self._fd = fd
        self._executor = executor
        self._account = account
        self._hash = digest.hasher()
        self._offset = 0

    @property
    def digest(self) -> Digest:
        return self._digest

    @property
    def offset(self) -> int:
        return self._offset

    def open(self) -> int:
        # A new open file description, not a dup: a dup would share the lock, and keep it held.
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    async def reserve(self, size: int) -> None:
        await self._account.reserve(self._digest, size)

    async def append(self, pieces: Sequence[bytes]) -> int:
        self._offset = await self._run(self._append, pieces)
        return self._offset

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        if self._hash.hexdigest() != self._digest.hex:
            await self.discard()
            raise Untrustworthy(f"the {self._offset} bytes that came are not {self._digest}")
        await self._account.commit(self, refers_to)
        await self._close()

    async def suspend(self) -> None:
        if self._fd >= 0:
            if self._offset == 0:
                await self.discard()
                return
            # What is set aside from now on is what is there.
            with contextlib.suppress(StoreFull):
                await self._account.reserve(self._digest, self._offset)
            await self._close()

    async def discard(self) -> None:
        if self._fd >= 0:
            await self._run(self._unlink)
            await self._close()
            await self._account.release(self._digest)

    # What follows runs in the executor.

    def resume(self) -> None:
        """Hashes what an earlier writer left. Blocking."""
        while piece := os.pread(self._fd, _SLICE, self._offset):
            self._hash.update(piece)
            self._offset += len(piece)

    def publish(self, target: Path, sync: bool) -> None:
        """Gives the proven file its name in `target`. Blocking."""
        if sync:
            os.fdatasync(self._fd)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(self._path, target)
        if sync:
            _sync_directory(target.parent)

    def _append(self, pieces: Sequence[bytes]) -> int:
        # Written first: readers are told of bytes that are on the file, never of hashed ones only.
        offset = self._offset
        for piece in pieces:
            view = memoryview(piece)
            while view:
                try:
                    written = os.pwrite(self._fd, view, offset)
                except OSError as error:
                    if error.errno in _FULL:
                        raise StoreFull(len(view)) from error
                    raise
                self._hash.update(view[:written])
                offset += written
                # Kept in step piece by piece: after a fault the hash is of what `offset` says.
                self._offset = offset
                view = view[written:]
        return offset

    def _unlink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    async def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            await self._run(os.close, fd)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, work, *arguments)


def lock_partial(path: Path) -> int | None:
    """Opens or makes the partial at `path` and locks it; None when another holds the lock.

    Blocking. Raises OSError. A symbolic link planted there is refused (ELOOP).
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have renamed or removed it between our open and our lock.
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
