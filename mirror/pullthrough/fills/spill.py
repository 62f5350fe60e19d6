"""Where a fill's bytes go when the disk will not take them: a few MiB of memory that its readers
empty. They get their bytes, nothing is kept, and the slowest of them sets the pace."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ...contracts.content import Hasher
from ...oci.digest import Digest
from ...oci.errors import Untrustworthy
from ...threads import aside

CAPACITY = 16 << 20
"""Bytes that the slowest reader may lag behind. Above what a fill writes at once."""

_SEGMENT = 2 << 20
_LARGEST = 4 * _SEGMENT  # more than any has


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Bytes from `start` on: at their own offsets in the file `fd`; or in `memory`, where no file
    can be had for them (`fd` is -1 then)."""

    start: int
    fd: int
    memory: bytearray | None = None

    @classmethod
    def passing(cls, start: int) -> Segment:
        """An empty one, in memory. As a sparse file, which can be sent without a copy, unless
        descriptors have run out, or no file may be as long as that (`ulimit -f`)."""
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit == resource.RLIM_INFINITY or start + _LARGEST <= limit:
            with contextlib.suppress(OSError):
                return cls(start, os.memfd_create("fill", os.MFD_CLOEXEC))
        return cls(start, -1, bytearray())

    def append(self, data: bytes | memoryview, offset: int) -> int:
        """Blocking; raises OSError. How many bytes of the data were taken, behind those that are
        there and end at `offset`."""
        if self.memory is None:
            return os.pwrite(self.fd, data, offset)
        self.memory.extend(data)
        return len(data)

    def pread(self, count: int, offset: int) -> bytes:
        """As os.pread. Blocking; raises OSError."""
        if self.memory is None:
            return os.pread(self.fd, count, offset)
        at = offset - self.start
        return bytes(self.memory[at : at + count])

    def close(self) -> None:
        if self.memory is None:
            os.close(self.fd)


class SpillBuffer:
    """A Partial (see contracts) that keeps nothing.

    `slowest` tells the offset below which nobody reads any more, and waits, at most as long as a
    reader may be slow, until it is at least the one asked for; it raises when nobody reads at all.
    """

    def __init__(
        self,
        digest: Digest,
        offset: int,
        hasher: Hasher,
        slowest: Callable[[int], Awaitable[int]],
    ) -> None:
        self.digest = digest
        self.offset = offset
        self.size: int | None = None
        self.trusted = True
        self.segments: list[Segment] = []
        self._hash = hasher
        self._slowest = slowest

    async def announce(self, size: int) -> None:
        """Any size: it only passes through."""
        self.size = size

    async def append(self, pieces: Sequence[bytes]) -> None:
        coming = sum(map(len, pieces))
        read = await self._slowest(self.offset + coming - CAPACITY)
        while len(self.segments) > 1 and self.segments[1].start <= read:
            self.segments.pop(0).close()
        for piece in pieces:
            if not self.segments or self.offset - self.segments[-1].start >= _SEGMENT:
                self.segments.append(Segment.passing(self.offset))
            await aside(self._write, self.segments[-1], piece)

    @property
    def ahead(self) -> Sequence[tuple[int, int]]:
        return ()

    async def place(self, at: int, pieces: Sequence[bytes]) -> None:
        raise NotImplementedError("what passes through memory comes in order")

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        if self._hash.hexdigest() != self.digest.hex:
            raise Untrustworthy(f"the {self.offset} bytes that came are not {self.digest}")

    async def suspend(self) -> None:
        """Nothing is kept; the segments are the fill's, which closes them after its readers."""

    async def discard(self) -> None:
        """As `suspend`."""

    def open(self) -> int:
        raise NotImplementedError("a window is read by its segments")

    def hasher(self) -> Hasher:
        return self._hash

    def _write(self, segment: Segment, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            written = segment.append(view, self.offset)
            self._hash.update(view[:written])
            self.offset += written
            view = view[written:]
