"""Content is removed, a file or a row: to make room, as somebody wants it, or as nothing needs it
any more that had it stay.

A file that is marked as held stays, also where the account has lost that it is (a power failure
may take the last records): the files are the truth. Blocking, all of it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import structlog

from ...clock import Clock
from ...contracts.events import ContentEvicted, ContentPurged
from ...events import Events
from ...oci.digest import Digest
from .async_index import AsyncIndex
from .blob_files import HELD, BlobFiles
from .far_index import FarIndex
from .held_index import HeldIndex
from .small_rows import SmallRows

log = structlog.get_logger()


class _IsHeld(Exception):
    """The file says so, with this size."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(slots=True)
class _Unlinking:
    """The removal of one piece. A file's blocks come free when `close` is called, which takes
    100 ms for a big one: not while others wait for the account."""

    digest: Digest
    path: Path
    small: SmallRows
    unmarked_only: bool
    fd: int = -1
    written: float | None = None
    """When it was, in seconds since the epoch, if it was here and is removed."""
    row_stays: apsw.Error | OSError | None = None
    """Why its row could not be removed."""

    def open(self) -> None:
        with contextlib.suppress(OSError):
            self.fd = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def unlink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            found = self.path.lstat()
            if self.unmarked_only and found.st_mode & HELD and stat.S_ISREG(found.st_mode):
                raise _IsHeld(found.st_size)
            self.path.unlink()
            self.written = found.st_mtime
        self.row_stays = None
        try:
            came = self.small.remove(self.digest)
        except (apsw.Error, OSError) as error:
            self.row_stays = error
            raise
        if came is not None:
            self.written = came

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Removal:
    """From the store that these `blobs` and `small` ones are of."""

    def __init__(
        self,
        blobs: BlobFiles,
        small: SmallRows,
        async_index: AsyncIndex,
        clock: Clock,
        events: Events,
    ) -> None:
        self._blobs = blobs
        self._small = small
        self._async_index = async_index
        self._held = HeldIndex(async_index.index)
        self._far = FarIndex(async_index.index)
        self._clock = clock
        self._events = events
        self._unrecorded: set[Digest] = set()  # evicted, as the index could not be told

    def evict(self, digests: Sequence[Digest]) -> int:
        """To make room: returns the bytes that were recorded of it. What is held stays, and rows
        that their database does not let go of: another process may hold it, or its log finds no
        room on a full disk. Raises OSError, and apsw.Error when the index takes no record of it: it
        is told the next time."""
        before, self._unrecorded = self._unrecorded, set()
        again = [digest for digest in before if not self._is_here(digest)]
        gone, staying = 0, list[apsw.Error | OSError]()
        for digest in dict.fromkeys([*digests, *again]):
            entry = self._async_index.known(self._async_index.index.entry, digest)
            is_due = self._async_index.known(self._far.is_due, digest) or False
            unlinking = self._unlinking(digest, unmarked_only=True)
            try:
                size = self._remove(self._held.evict, digest, unlinking)
            except (apsw.Error, OSError) as error:
                if unlinking.row_stays is not None:
                    staying.append(unlinking.row_stays)
                    continue
                if isinstance(error, apsw.Error):
                    self._unrecorded.add(digest)
                raise
            finally:
                if unlinking.written is not None:
                    now = self._clock.wall()
                    unused = None if entry is None else max(0.0, now - entry.used_at)
                    age = max(0.0, now - unlinking.written)
                    known = 0 if entry is None else entry.size
                    self._events.emit(ContentEvicted(digest, known, unused, age, is_due))
            gone += self._async_index.index.taken(size or 0)
        if staying:
            log.warning("small_content_stays", pieces=len(staying), reason=str(staying[-1]))
        self._small.give_back()
        return gone

    def purge(self, digests: Sequence[Digest]) -> dict[Digest, int]:
        """What of this no content needs that is here, nor is pinned or held; what needs others is
        to be named first. Returns the sizes of what was here. Raises OSError, apsw.Error."""
        removed = {}
        for digest in digests:
            unlinking = self._unlinking(digest, unmarked_only=True)
            size = self._remove(self._held.remove_unneeded, digest, unlinking)
            if size is not None:
                removed[digest] = size
                self._events.emit(ContentPurged(digest, size))
        self._small.give_back()
        return removed

    def release(self, digest: Digest, before: float) -> int:
        """As HeldContent.release. Raises OSError, apsw.Error."""
        size = self._remove(
            lambda digest, unlink: self._held.release(
                digest, before, unlink, lambda: self._blobs.unmark(digest)
            ),
            digest,
            self._unlinking(digest, unmarked_only=False),
        )
        if size is None:
            return 0
        self._events.emit(ContentPurged(digest, size))
        return size

    def _is_here(self, digest: Digest) -> bool:
        return self._small.is_here(digest) or self._blobs.is_here(digest)

    def _unlinking(self, digest: Digest, *, unmarked_only: bool) -> _Unlinking:
        return _Unlinking(digest, self._blobs.path(digest), self._small, unmarked_only)

    def _remove(
        self,
        remove: Callable[[Digest, Callable[[], None]], int | None],
        digest: Digest,
        unlinking: _Unlinking,
    ) -> int | None:
        """What `remove`, of the index, says."""
        unlinking.open()
        try:
            return self._async_index.ask_here(remove, digest, unlinking.unlink)
        except _IsHeld as held:
            size = held.size
            log.warning("held_content_had_no_record", digest=str(digest))
            self._async_index.ask_here(self._held.hold, digest, self._clock.wall, lambda: size)
            return None
        except apsw.FullError:  # the record finds room when the file's blocks are free
            unlinking.close()
            return self._async_index.ask_here(remove, digest, unlinking.unlink)
        finally:
            unlinking.close()
