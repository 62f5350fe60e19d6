"""What several streams have placed behind a partial's contiguous beginning, noted beside it.

As long as nothing is ahead, a partial is as long as what has come, and there is no note. With a
note the file has holes: the note says how far it has none, which is how far others may read, and
which spans behind that are there, which is what a resumed download need not fetch again. After a
crash it may lag behind the file; it never says more than was written.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import struct
from pathlib import Path

from ..owner import give

_HEAD = struct.Struct("<8sQI")  # a mark, the contiguous beginning, the number of spans
_SPAN = struct.Struct("<QQ")
_MARK = b"ahead-01"
_MOST = 1024  # spans; a download has as many as it has connections
_SAVE_EVERY = 4 << 20  # bytes placed between two notes: what a crash costs


def note_of(partial: Path) -> Path:
    """The file that the note of this partial is in."""
    return partial.with_name(partial.name + ".ahead")


class SparseSpans:
    """The spans of one partial, and their note. Not for several threads at once."""

    def __init__(self, partial: Path) -> None:
        self._path = note_of(partial)
        self._fd = -1
        self._unsaved = 0
        self.spans: list[tuple[int, int]] = []

    def begin(self, reached: int) -> None:
        """Makes the note, before the first byte with a hole before it is written."""
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            give(self._fd, self._path.parent)
            self.save(reached)

    def add(self, start: int, stop: int) -> None:
        """These bytes are there now."""
        at = bisect.bisect(self.spans, (start, stop))
        self.spans.insert(at, (start, stop))
        self.spans = _joined(self.spans)
        self._unsaved += stop - start

    def reached(self, offset: int) -> int:
        """How far the bytes go without a hole, when they are there up to `offset`."""
        while self.spans and self.spans[0][0] <= offset:
            offset = max(offset, self.spans.pop(0)[1])
        if self._fd >= 0:
            if self._unsaved >= _SAVE_EVERY:
                self.save(offset)
            else:
                os.pwrite(self._fd, _HEAD.pack(_MARK, offset, 0)[:16], 0)
        return offset

    def save(self, reached: int) -> None:
        """Notes everything."""
        if self._fd >= 0:
            spans = b"".join(_SPAN.pack(*span) for span in self.spans[:_MOST])
            head = _HEAD.pack(_MARK, reached, min(len(self.spans), _MOST))
            os.pwrite(self._fd, head + spans, 0)
            self._unsaved = 0

    def resume(self, size: int) -> int:
        """Takes up the note of an earlier writer of a file of this size; how far its bytes go
        without a hole."""
        noted = _read(self._path)
        if noted is None:
            return size
        reached, self.spans = noted
        self.spans = _joined(sorted((a, min(b, size)) for a, b in self.spans if a < size))
        self.begin(min(reached, size))
        return self.reached(min(reached, size))

    def reached_by_another(self) -> int | None:
        """How far another process' bytes go without a hole; None: as far as its file."""
        noted = _read(self._path)
        return None if noted is None else noted[0]

    def close(self) -> None:
        """Leaves the note to the next writer."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def end(self) -> None:
        """There are no holes any more, or no file."""
        if self._fd >= 0:
            self.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, with those that touch made one."""
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        elif start < stop:
            joined.append((start, stop))
    return joined


def _read(path: Path) -> tuple[int, list[tuple[int, int]]] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.pread(fd, _HEAD.size + _MOST * _SPAN.size, 0)
    finally:
        os.close(fd)
    if len(data) < _HEAD.size:
        return 0, []
    mark, reached, count = _HEAD.unpack_from(data)
    if mark != _MARK:
        return 0, []
    count = min(count, _MOST, (len(data) - _HEAD.size) // _SPAN.size)
    return reached, [_SPAN.unpack_from(data, _HEAD.size + i * _SPAN.size) for i in range(count)]
