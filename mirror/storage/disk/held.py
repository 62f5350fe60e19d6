"""Content that has to stay: what was pushed is nowhere else.

It is in files, small content too: what is a row (see small_rows.py) becomes one. A database that is
damaged is lost with all that is in it, a disk that is damaged loses single files. That a file is
held is recorded in the account, which eviction looks at, and marked on the file itself, by its
mode: so a lost account, or lost records, let nothing be evicted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import apsw

from ...clock import Clock
from ...contracts.content import StoreFull
from ...contracts.uploads import Held
from ...oci.digest import Digest
from ...oci.errors import ContentMismatch
from ...threads import Threads
from ..owner import give, make_folder
from ..sqlite_files import DAMAGED
from .async_index import AsyncIndex
from .blob_files import HELD, BlobFiles
from .files import prepare, sync_directory, words, write_all
from .held_index import HeldIndex
from .index import Exceeded
from .ingest_key import SessionKey
from .partial import DiskFull
from .removal import Removal
from .small_rows import SmallRows
from .space import FULL, SpaceClaim, SpaceManager

T = TypeVar("T")

MODE = 0o600 | HELD
"""Of the file of an upload, from its beginning on."""


class DiskHeld:
    """The HeldContent of the store at `root`; `files` are the threads that touch its files."""

    is_shared = False

    def __init__(
        self,
        root: Path,
        blobs: BlobFiles,
        small: SmallRows,
        files: Threads,
        space: SpaceManager,
        async_index: AsyncIndex,
        removal: Removal,
        clock: Clock,
    ) -> None:
        self._root = root
        self._blobs = blobs
        self._small = small
        self._files = files
        self._space = space
        self._async_index = async_index
        self._index = HeldIndex(async_index.index)
        self._removal = removal
        self._clock = clock

    async def put_held(self, digest: Digest, data: bytes) -> None:
        if not digest.matches(data):
            raise ContentMismatch(f"the {len(data)} bytes that came are not {digest}")
        key = SessionKey.new("")
        path = self._root / "partials" / key.folder / key.name
        try:
            if await self._space.making_names(self._files, self._put, key, path, digest, data):
                return
            await self._space.reserve(SpaceClaim(key, len(data), 0, len(data)))
            await self._files.run(self.shelve, key, path, digest, len(data))
        except BaseException:
            await self._files.run(unlink, path)
            await self._space.release(key)
            raise

    async def hold(self, digest: Digest) -> int | None:
        size = await self._files.run(self._hold, digest)
        return await self._hold_row(digest) if size is None else size

    async def let_go(self, digest: Digest) -> None:
        await self._files.run(self.leave, digest)

    async def release(self, digest: Digest, held_before: float) -> int:
        return await self._files.run(self._removal.release, digest, held_before)

    async def held(self, held_before: float, after: Digest | None, count: int) -> Sequence[Held]:
        found = await self._async_index.ask(
            self._index.held_page, held_before, str(after or ""), count
        )
        return [Held(digest, size, held_at) for digest, size, held_at in found]

    async def keep(self, digests: Collection[Digest]) -> Sequence[Digest]:
        missing = await self._files.run(self._keep, digests)
        return [digest for digest in missing if await self._hold_row(digest) is None]

    async def _hold_row(self, digest: Digest) -> int | None:
        """As `hold`, of what is in no file: it becomes one."""
        try:
            data = self._small.read(digest)
        except DAMAGED:  # what was in there is lost
            return None
        except apsw.Error as error:
            raise StoreFull(f"small content cannot be read: {error}") from error
        if data is None or not digest.matches(data):
            return None
        await self.put_held(digest, data)
        return len(data)

    # What follows runs on a thread.

    def shelve(self, key: SessionKey, path: Path, digest: Digest, size: int) -> None:
        """Gives this file, which is on the disk and proven, its name among the content; what was
        there goes, it may be rotten. Blocking; raises StoreFull, OSError."""
        try:
            self._place(key, path, digest, size)
        except Exceeded as lack:
            raise StoreFull(f"{lack.lacking} bytes are lacking") from lack

    def leave(self, digest: Digest) -> None:
        """As `let_go`. Blocking; raises StoreFull, OSError."""
        self._counted(self._index.let_go, digest, lambda: self._blobs.unmark(digest))

    def _shelved(self, key: SessionKey, path: Path, digest: Digest, size: int) -> bool:
        """As `shelve`; False where no room was promised, and there is none."""
        try:
            self._place(key, path, digest, size)
        except Exceeded:
            return False
        return True

    def _place(self, key: SessionKey, path: Path, digest: Digest, size: int) -> None:
        target = self._blobs.path(digest)
        placed = False

        def place() -> None:
            nonlocal placed
            if placed:  # and the database was found damaged then
                return
            try:
                os.rename(path, target)
            except FileNotFoundError:  # the first of its directory
                make_folder(target.parent)
                sync_directory(target.parent.parent)
                os.rename(path, target)
            placed = True

        try:
            before = os.open(target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            before = -1
        try:
            self._counted(self._index.hold_new, digest, size, self._clock.wall, key, place)
        except OSError as error:
            if error.errno in FULL:
                raise DiskFull(words(error)) from error
            raise
        finally:
            if before >= 0:  # its blocks come free now, not while others wait for the account
                os.close(before)
        sync_directory(target.parent)
        with contextlib.suppress(apsw.Error, OSError):  # it is proven, and no harm beside the file
            self._small.remove(digest)

    def _put(self, key: SessionKey, path: Path, digest: Digest, data: bytes) -> bool:
        """Whether it is held; its file is there, where only room is lacking."""
        if self._blobs.is_here(digest) and self._hold(digest) is not None:
            return True
        self._write(path, data)
        return self._shelved(key, path, digest, len(data))

    def _write(self, path: Path, data: bytes) -> None:
        """A new file with these bytes, on the disk. Raises OSError."""
        fd = create(self._root, path)
        try:
            write_all(fd, data, 0)
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def _hold(self, digest: Digest) -> int | None:
        marked: list[int] = []
        try:
            size = self._counted(
                self._index.hold,
                digest,
                self._clock.wall,
                lambda: self._blobs.mark(digest, marked.append),
            )
            for fd in marked:  # it may have come without being synced
                os.fsync(fd)
        finally:
            for fd in marked:
                os.close(fd)
        if marked:
            sync_directory(self._blobs.path(digest).parent)
        return size

    def _keep(self, digests: Collection[Digest]) -> list[Digest]:
        is_held = self._index.is_held
        return [
            digest
            for digest in digests
            if not (self._async_index.ask_here(is_held, digest) and self._blobs.is_here(digest))
            and self._hold(digest) is None
        ]

    def _counted(self, work: Callable[..., T], *arguments: object) -> T:
        """Raises StoreFull where that cannot be recorded for all processes."""
        try:
            result = self._async_index.ask_here(work, *arguments)
        except apsw.Error as error:
            raise StoreFull(f"the account of the content takes no record: {error}") from error
        if self._async_index.index.is_away:
            raise StoreFull("the account of the content cannot be written")
        return result


def create(root: Path, path: Path) -> int:
    """A new file for what is to be held, in a folder of the store at `root`. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, MODE)
    except FileNotFoundError:  # somebody has removed the folder
        prepare(root)
        fd = os.open(path, flags, MODE)
    try:
        give(fd, path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
