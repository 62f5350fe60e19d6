"""Where a fill's bytes go when the disk will not take them: a few MiB of memory that its readers
empty. They get their bytes, nothing is kept, and the slowest of them sets the pace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ...contracts.files import Hasher, OpenFile
from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.errors import Unavailable, Untrustworthy
from ...threads import aside

CAPACITY = 16 << 20
"""Bytes that the slowest reader may lag behind. Above what a fill writes at once."""

RANGE_CAPACITY = 2 << 20
"""The same for who reads a range: there may be many. Above what a connection brings at once."""

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


@dataclass(slots=True)
class Passing:
    """Bytes that follow each other and pass through memory, from `begin` to `end`: what is kept of
    them. They are for readers that are at `lowest` or behind."""

    begin: int
    end: int
    lowest: int
    capacity: int
    segments: list[Segment]
    last: PassingFile | None = None  # of the last segment
    is_written: bool = False  # a piece is on its way to its end


Slowest = Callable[[Passing, int], Awaitable[int]]
"""Where the slowest of these bytes' readers is. Waits, at most as long as a reader may be slow, for
all of them to be there at least. Raises Unavailable when they have none."""


class SpillBuffer:
    """What a Partial does (see contracts), but that nothing is kept.

    Bytes that follow on each other from `begin` on are hashed, as those of a partial are; they are
    for all who read behind that. Those of a range pass beside them, for who reads that range.
    """

    def __init__(self, digest: Digest, offset: int, hasher: Hasher, slowest: Slowest) -> None:
        self.digest = digest
        self.begin = offset
        self.size: int | None = None
        self.trusted = True
        self._hash = hasher
        self._slowest = slowest
        self._main = Passing(offset, offset, 0, CAPACITY, [])
        self._ranges: list[Passing] = []
        self._in_order = asyncio.Lock()  # ranges may come to where the bytes in order are

    @property
    def offset(self) -> int:
        return self._main.end

    async def announce(self, size: int) -> None:
        """Any size: it only passes through."""
        self.size = size

    async def append(self, pieces: Sequence[bytes]) -> None:
        await self.place(self.offset, pieces)

    @property
    def ahead(self) -> Sequence[tuple[int, int]]:
        return ()

    @property
    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        return ()

    async def place(self, at: int, pieces: Sequence[bytes], vouched: bool = False) -> None:
        """As Partial.place; waits for readers that are slow. Of a range, what is not vouched for is
        dropped: it was on its way to the disk, and nothing here may be read of it unproven."""
        for piece in pieces:
            if at > self.offset:
                if vouched:
                    await self._pass_range(self._range(at), memoryview(piece))
            else:
                async with self._in_order:
                    if view := memoryview(piece)[self.offset - at :]:
                        await self._pass(self._main, view)
            at += len(piece)

    def reach(self, offset: int) -> int:
        """Up to where the bytes of a range from `offset` on are there."""
        return max((run.end for run in self._ranges if run.begin <= offset < run.end), default=0)

    def find(self, offset: int) -> tuple[Segment, int | None] | None:
        """As Fill.segment; None: it is not here."""
        for run in (self._main, *self._ranges):
            if run.begin <= offset < run.end:
                stops = [*(segment.start for segment in run.segments[1:]), run.end]
                for segment, stop in zip(run.segments, stops, strict=True):
                    if segment.start <= offset < stop:
                        return segment, stop
        return None

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        await self.prove()

    async def prove(self) -> None:
        if self._hash.hexdigest() != self.digest.hex:
            raise Untrustworthy(f"the {self.offset} bytes that came are not {self.digest}")

    async def suspend(self) -> None:
        """Nothing is kept; what is here is the fill's, which closes it after its readers."""

    async def discard(self) -> None:
        """As `suspend`."""

    def open(self) -> OpenFile:
        raise OSError("what passes through memory is read in segments")

    def hasher(self) -> Hasher:
        return self._hash

    def close(self) -> None:
        for run in (self._main, *self._ranges):
            self._drop(run, len(run.segments))

    def forget(self, is_read: Callable[[Passing], bool]) -> None:
        """A reader has left: ranges that are for no other go."""
        for run in [run for run in self._ranges if not run.is_written and not is_read(run)]:
            self._ranges.remove(run)
            self._drop(run, len(run.segments))

    async def _pass_range(self, run: Passing, view: memoryview) -> None:
        run.is_written = True
        try:
            await self._pass(run, view)
        finally:
            run.is_written = False

    def _range(self, at: int) -> Passing:
        for run in self._ranges:
            if run.end == at and not run.is_written:  # another connection may bring the same
                return run
        self._ranges.append(Passing(at, at, at, RANGE_CAPACITY, []))
        return self._ranges[-1]

    async def _pass(self, run: Passing, view: memoryview) -> None:
        try:
            read = await self._slowest(run, run.end + len(view) - run.capacity)
        except Unavailable:
            if run is not self._main:
                self._ranges.remove(run)
                self._drop(run, len(run.segments))
            raise
        behind = [segment for segment in run.segments[1:] if segment.start <= read]
        self._drop(run, len(behind))
        if run.last is None or run.end - run.segments[-1].start >= min(_SEGMENT, run.capacity // 2):
            run.last = passing(run.end)
            run.segments.append(Segment(run.end, run.last))
        await aside(self._write, run, run.last, view)

    def _drop(self, run: Passing, count: int) -> None:
        for segment in run.segments[:count]:
            segment.file.close()
        run.segments = run.segments[count:]
        run.begin = run.segments[0].start if run.segments else run.end

    def _write(self, run: Passing, file: PassingFile, view: memoryview) -> None:
        while view:
            written = file.write(view, run.end)
            if run is self._main:
                self._hash.update(view[:written])
            run.end += written
            view = view[written:]
