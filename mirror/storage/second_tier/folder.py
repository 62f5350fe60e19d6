"""A folder as a second tier: another disk, or a share that several mirrors mount.

    <algorithm>/<2 hex>/<hex>   content, replaced whole
    coming/                     files on their way

The mirror removes nothing there: a full folder takes nothing more. A share whose server has gone
holds each thread that touches it, for minutes or for ever. So all is done on a few threads that do
nothing else; when all of them are held, the folder has nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from ...contracts.files import OpenFile
from ...contracts.second_tier import SecondTierFault
from ...oci.digest import Digest
from ...oci.ranges import ByteRange
from ...threads import Threads
from ..owner import give, make_folder

log = structlog.get_logger()

_NOTHING_OF_OURS = frozenset({errno.ENOENT, errno.ELOOP})  # no such file; a link

T = TypeVar("T")

_THREADS = 4
_UNDER_WAY = 64  # asks that wait for a thread, or have one: of more, the folder has nothing
_PIECE = 1 << 20
_LEFT_BEHIND = 86400.0  # seconds, after which a file on its way has no writer any more


class _Busy(OSError):
    """Too much waits for this folder."""


class FolderTier:
    """A SecondTier. `root` is made when the first content is put there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads(_THREADS, "second_tier")
        self._under_way = 0
        self._names = itertools.count()
        self._is_swept = False

    async def get(self, digest: Digest, range: ByteRange | None = None) -> FolderStream | None:
        try:
            opening = self.begin(_open, self._path(digest))
        except OSError as error:
            raise SecondTierFault(str(error)) from error
        try:
            fd, size = await asyncio.shield(opening)
        except OSError as error:
            _tell("open", error)
            if error.errno in _NOTHING_OF_OURS:
                return None
            raise SecondTierFault(str(error)) from error
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_opened)
            raise
        start, stop = (range.start, range.stop) if range else (0, None)
        if range is not None and start >= size:
            self.close_file(fd)
            return None
        return FolderStream(self, fd, size, start, min(stop or size, size))

    async def put(self, digest: Digest, file: OpenFile, size: int) -> bool:
        try:
            own = file.again()  # the caller may be cancelled, and close it
        except OSError as error:
            _tell("put", error)
            return False
        try:
            putting = self.begin(self._put, self._path(digest), own, size)
        except OSError as error:
            own.close()
            _tell("put", error)
            return False
        putting.add_done_callback(lambda _: own.close())
        try:
            await asyncio.shield(putting)
        except OSError as error:
            _tell("put", error)
            return False
        return True

    async def contains(self, digest: Digest) -> bool:
        try:
            return await asyncio.shield(self.begin(self._path(digest).is_file))
        except OSError as error:
            _tell("look", error)
            return False

    async def close(self) -> None:
        self._threads.leave()

    def begin(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """`work` on a thread of the folder's. Raises OSError when too much waits for one."""
        if self._under_way >= _UNDER_WAY:
            raise _Busy("too much waits for the second tier")
        try:
            future = self._threads.begin(work, *arguments)
        except RuntimeError as error:  # it is closed
            raise OSError(str(error)) from error
        self._under_way += 1
        future.add_done_callback(self._over)
        return future

    def close_file(self, fd: int) -> None:
        """Off the event loop: a share may hold the thread that closes a file. Where it holds all of
        them, the file stays open."""
        with contextlib.suppress(OSError):
            self.begin(os.close, fd)

    def _over(self, future: asyncio.Future[T]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # the caller may have been cancelled

    def _close_opened(self, opening: asyncio.Future[tuple[int, int]]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self.close_file(opening.result()[0])

    def _path(self, digest: Digest) -> Path:
        return self._root / digest.algorithm / digest.hex[:2] / digest.hex

    def _put(self, path: Path, file: OpenFile, size: int) -> None:
        coming = self._root / "coming"
        make_folder(coming)
        make_folder(path.parent)
        if not self._is_swept:
            self._is_swept = True
            _sweep(coming)
        name = coming / f"{path.name}.{os.uname().nodename}.{os.getpid()}.{next(self._names)}"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                give(fd, coming)
                _copy(file, fd, size)
                os.fsync(fd)  # a share tells of a full disk here
            finally:
                os.close(fd)
            os.rename(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


class FolderStream:
    """A TierStream."""

    def __init__(self, tier: FolderTier, fd: int, size: int, start: int, stop: int) -> None:
        self._tier = tier
        self._fd = fd
        self.size = size
        self.start = self._position = start
        self._stop = stop
        self._reading: asyncio.Future[bytes] | None = None
        self._is_open = True

    async def read(self) -> bytes:
        count = min(_PIECE, self._stop - self._position)
        if count <= 0:
            return b""
        try:
            if self._reading is None:
                self._reading = self._tier.begin(os.pread, self._fd, count, self._position)
            piece = await asyncio.shield(self._reading)
        except OSError as error:
            self._reading = None
            raise SecondTierFault(f"the second tier cannot be read: {error.strerror}") from error
        self._reading = None
        if not piece:
            raise SecondTierFault("a file of the second tier has become shorter")
        self._position += len(piece)
        return piece

    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._reading is None:
            self._tier.close_file(self._fd)
        else:  # a thread may be reading: the number is not to be another file's meanwhile
            self._reading.add_done_callback(lambda _: self._tier.close_file(self._fd))


def _open(path: Path) -> tuple[int, int]:
    """A descriptor and the file's size. Raises OSError. O_NONBLOCK: of a pipe somebody else would
    have to open the other end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return fd, found.st_size


def _copy(source: OpenFile, target: int, size: int) -> None:
    """Raises OSError, also when the source has fewer bytes."""
    at = 0
    while at < size:
        piece = memoryview(source.pread(min(_PIECE, size - at), at))
        if not piece:
            raise OSError(f"the file ends at {at}, before {size}")
        at += len(piece)
        while piece:
            piece = piece[os.write(target, piece) :]


def _sweep(coming: Path) -> None:
    """Removes what processes that were killed have left."""
    for path in coming.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _LEFT_BEHIND:
                path.unlink()


def _tell(operation: str, error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        log.warning("second_tier_failed", operation=operation, reason=str(error))
