"""What of the content is in the second tier too, for whoever gives it there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import apsw
import structlog

from ...clock import Clock
from ...contracts.content import ContentInMemory
from ...contracts.registry import Outcome
from ...contracts.second_tier import Backlog, Due, FarStanding
from ...oci.digest import Digest
from ...oci.errors import Unavailable
from .async_index import AsyncIndex
from .blob_files import BlobFiles
from .far_index import FarIndex
from .open_file import StoredFile
from .small_rows import SmallRows, in_memory

log = structlog.get_logger()

T = TypeVar("T")


class DiskFar:
    """A FarRecords: of this index, and the files beside it."""

    def __init__(
        self,
        blobs: BlobFiles,
        small: SmallRows,
        async_index: AsyncIndex,
        clock: Clock,
        doubt: Callable[[Digest, str], None],
    ) -> None:
        """`doubt`: is told of content that could not be read."""
        self._blobs = blobs
        self._small = small
        self._async_index = async_index
        self._index = FarIndex(async_index.index)
        self._clock = clock
        self._doubt = doubt

    def is_far(self, digest: Digest) -> bool:
        return self._async_index.known(self._index.standing, digest) is FarStanding.FAR

    async def note(self, digest: Digest, standing: FarStanding) -> None:
        now = self._clock.wall()
        await self._async_index.note(self._index.note, digest, standing, now)

    async def given(self, due: Due) -> None:
        await self._async_index.note(self._index.given, due, self._clock.wall())

    async def sources(self) -> Sequence[str]:
        return await self._ask(self._index.sources) or ()

    async def due(
        self, source: str, newest: bool, passed_over: Collection[Digest], count: int
    ) -> Sequence[Due]:
        return await self._ask(self._index.due, source, newest, passed_over, count) or ()

    async def doubt(self, after: str, count: int, noted_before: float) -> str | None:
        return await self._ask(self._index.doubt, after, count, noted_before)

    async def backlog(self) -> Backlog:
        return await self._ask(self._index.backlog) or Backlog(0, None)

    async def open(self, digest: Digest) -> StoredFile | ContentInMemory | None:
        with contextlib.suppress(apsw.Error):
            row = self._small.read(digest)
            if row is not None and digest.matches(row):
                return in_memory(row, digest, Outcome.HIT)
        try:
            fd = self._blobs.open(digest)
        except Unavailable:  # descriptors have run out: clients come first
            return None
        if fd is None:
            return None
        size = os.fstat(fd).st_size
        if size != self._async_index.known(self._async_index.index.size, digest):
            os.close(fd)  # who opens it to read it sees to that
            return None
        return StoredFile(fd, digest, size, Outcome.HIT, lambda reason: self._doubt(digest, reason))

    async def _ask(self, work: Callable[..., T], *arguments: object) -> T | None:
        try:
            return await self._async_index.ask(work, *arguments)
        except (apsw.Error, OSError) as error:
            log.warning("index_does_not_answer", reason=str(error))
            return None
