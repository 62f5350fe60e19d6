"""What several streams have placed behind a partial's contiguous beginning, noted beside it.

As long as nothing is ahead, a partial is as long as what has come, and there is no note. With a
note the file has holes: the note says how far it has none, and which spans behind that are there.
So other processes know what may be read, and a resumed download what need not be fetched again. It
is written after the bytes, each time: it never says more than was written.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

from ...frozen import dataclass
from ...oci.ranges import with_span
from ..owner import give

_HEAD = struct.Struct("<8sI")  # a mark, the CRC of what follows
_BODY = struct.Struct("<QII")  # the contiguous beginning, the numbers of spans, and of vouched ones
_SPAN = struct.Struct("<QQ")
_MARK = b"ahead-03"
_MOST = 1024  # spans of each kind; of more, what is nearest to the beginning is noted
_LOOKS = 8  # at a note that its writer is just overwriting


def note_of(partial: Path) -> Path:
    """The file that the note of this partial is in."""
    return partial.with_name(partial.name + ".ahead")


@dataclass(frozen=True, slots=True)
class Note:
    """`reached`: how far a partial has no hole. `spans`: what is there behind that; `vouched`: what
    of them the registry itself has sent."""

    reached: int
    spans: list[tuple[int, int]]
    vouched: list[tuple[int, int]]


class SparseSpans:
    """The spans of one partial, and their note. Not for several threads at once."""

    def __init__(self, partial: Path) -> None:
        self._partial = partial
        self._path = note_of(partial)
        self._fd = -1
        self.spans: list[tuple[int, int]] = []
        self.vouched: list[tuple[int, int]] = []

    def begin(self, reached: int) -> None:
        """Makes the note, before the first byte with a hole before it is written."""
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            give(self._fd, self._path.parent)
            self.save(reached)

    def add(self, start: int, stop: int, reached: int, vouched: bool) -> None:
        """These bytes are there now, in a file that has no hole as far as it `reached`."""
        self.spans = with_span(self.spans, start, stop)
        if vouched:
            self.vouched = with_span(self.vouched, start, stop)
        self.save(reached)

    def reached(self, offset: int) -> int:
        """How far the bytes go without a hole, when they are there up to `offset`."""
        while self.spans and self.spans[0][0] <= offset:
            offset = max(offset, self.spans.pop(0)[1])
        while self.vouched and self.vouched[0][1] <= offset:
            self.vouched.pop(0)
        self.save(offset)
        return offset

    def save(self, reached: int) -> None:
        """Notes everything, if there is a note."""
        if self._fd >= 0:
            spans, vouched = self.spans[:_MOST], self.vouched[:_MOST]
            body = _BODY.pack(reached, len(spans), len(vouched))
            body += b"".join(_SPAN.pack(*span) for span in [*spans, *vouched])
            os.pwrite(self._fd, _HEAD.pack(_MARK, zlib.crc32(body)) + body, 0)

    def resume(self, size: int) -> int:
        """Takes up the note of an earlier writer of a file of this size; how far its bytes go
        without a hole."""
        note = noted(self._partial)
        if note is None:
            return size
        self.spans, self.vouched = _within(note.spans, size), _within(note.vouched, size)
        self.begin(min(note.reached, size))
        return self.reached(min(note.reached, size))

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


def noted(partial: Path) -> Note | None:
    """What is noted of this partial by now; None: it has no holes. What is no note of ours, or
    cannot be read, says that nothing is there."""
    for _ in range(_LOOKS):
        try:
            fd = os.open(note_of(partial), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:  # no descriptor, say: there may be holes, and what is one is not known
            break
        try:
            data = os.pread(fd, _HEAD.size + _BODY.size + 2 * _MOST * _SPAN.size, 0)
        finally:
            os.close(fd)
        note = _read(data)
        if note is not None:
            return note
    return Note(0, [], [])


def _read(data: bytes) -> Note | None:
    """None where its check is wrong: of a reader that came while it was written, too."""
    if len(data) < _HEAD.size + _BODY.size:
        return None
    mark, check = _HEAD.unpack_from(data)
    reached, count, vouched = _BODY.unpack_from(data, _HEAD.size)
    stop = _HEAD.size + _BODY.size + (count + vouched) * _SPAN.size
    if mark != _MARK or max(count, vouched) > _MOST or zlib.crc32(data[_HEAD.size : stop]) != check:
        return None
    spans = [_SPAN.unpack_from(data, at) for at in range(_HEAD.size + _BODY.size, stop, _SPAN.size)]
    return Note(reached, spans[:count], spans[count:])


def _within(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """These spans of a file of this size, in order, with those that touch made one."""
    within: list[tuple[int, int]] = []
    for start, stop in spans:
        if start < min(stop, size):
            within = with_span(within, start, min(stop, size))
    return within
