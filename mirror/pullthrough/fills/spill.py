"""Where a fill's bytes go when the disk will not take them: a few MiB of memory that its readers
empty. They get their bytes, nothing is kept, and the slowest of them sets the pace."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...contracts.files import Hasher, OpenFile
from ...oci.digest import Digest
from ...oci.errors import Untrustworthy
from ...threads import aside

CAPACITY = 16 << 20
"""Bytes that the slowest reader may lag behind. Above what a fill writes at once."""

_SEGMENT = 2 << 20
_LARGEST = 4 * _SEGMENT  # more than any has


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Bytes from `start` on, each at its own offset in the file."""

    start: int
    file: OpenFile


class PassingFile(OpenFile, Protocol):
    """Bytes that pass through memory."""

    def write(self, data: bytes | memoryview, offset: int) -> int:
        """Writes behind those that are there and end at `offset`; how many bytes were taken.
        Blocking; raises OSError."""


def passing(start: int) -> PassingFile:
    """An empty file, in memory, for bytes from `start` on. A sparse one, which can be sent without
    a copy, unless descriptors have run out, or no file may be as long as that (`ulimit -f`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY or start + _LARGEST <= limit:
        with contextlib.suppress(OSError):
            return _MemoryFile(os.memfd_create("fill", os.MFD_CLOEXEC))
    return _MemoryBytes(start)


class _MemoryFile:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(self._fd, data, offset)

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def again(self) -> _MemoryFile:
        return _MemoryFile(os.dup(self._fd))

    def close(self) -> None:
        os.close(self._fd)


class _MemoryBytes:
    """Bytes for which no file can be had."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._bytes = bytearray()

    def fileno(self) -> int:
        return -1

    def write(self, data: bytes | memoryview, offset: int) -> int:
        self._bytes.extend(data)
        return len(data)

    def pread(self, count: int, offset: int) -> bytes:
        at = offset - self._start
        return bytes(self._bytes[at : at + count])

    def again(self) -> _MemoryBytes:
        return self

    def close(self) -> None:
        """Its memory goes with the last who has it."""


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
        self._last: PassingFile = _MemoryBytes(offset)  # of the last segment
        self._hash = hasher
        self._slowest = slowest

    async def announce(self, size: int) -> None:
        """Any size: it only passes through."""
        self.size = size

    async def append(self, pieces: Sequence[bytes]) -> None:
        coming = sum(map(len, pieces))
        read = await self._slowest(self.offset + coming - CAPACITY)
        while len(self.segments) > 1 and self.segments[1].start <= read:
            self.segments.pop(0).file.close()
        for piece in pieces:
            if not self.segments or self.offset - self.segments[-1].start >= _SEGMENT:
                self._last = passing(self.offset)
                self.segments.append(Segment(self.offset, self._last))
            await aside(self._write, self._last, piece)

    @property
    def ahead(self) -> Sequence[tuple[int, int]]:
        return ()

    @property
    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        return ()

    async def place(self, at: int, pieces: Sequence[bytes], vouched: bool = False) -> None:
        raise NotImplementedError("what passes through memory comes in order")

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        if self._hash.hexdigest() != self.digest.hex:
            raise Untrustworthy(f"the {self.offset} bytes that came are not {self.digest}")

    async def suspend(self) -> None:
        """Nothing is kept; the segments are the fill's, which closes them after its readers."""

    async def discard(self) -> None:
        """As `suspend`."""

    def open(self) -> OpenFile:
        raise NotImplementedError("a window is read by its segments")

    def hasher(self) -> Hasher:
        return self._hash

    def _write(self, file: PassingFile, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            written = file.write(view, self.offset)
            self._hash.update(view[:written])
            self.offset += written
            view = view[written:]
