"""Byte ranges: Range and Content-Range (RFC 9110, 14)."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

from ..frozen import dataclass
from .errors import RangeInvalid

# A position has 18 digits at most: an exabyte, and safely below the 2^63 of a file offset. It also
# keeps int() away from digit strings as long as a header may be.
_MAX_DIGITS = 18
_FAR = 10**_MAX_DIGITS

_SPEC = re.compile(r"(?=-?[0-9])([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(
    r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to but not including `stop`; `stop` None: to the end.

    Never empty: Range and Content-Range cannot say that.
    """

    start: int
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise ValueError(f"no byte lies in [{self.start}, {self.stop})")


def parse_range(header: str | None, size: int | None) -> ByteRange | None:
    """What a client's Range header asks of content of `size` bytes (RFC 9110, 14.2).

    None: answer with the whole content (200). That is the right answer, and an allowed one, to no
    header, another unit than bytes, a malformed header, and several ranges at once, which no
    registry client sends.

    With a `size`, the range given back has a `stop` and lies within the content. Without one (a
    fill whose length is not known yet) it is as the client wrote it, and a suffix (`bytes=-5`),
    which only the end could place, is answered with the whole.

    `bytes=0-` of an empty content is the whole too, not 416: containerd 2.1 can be set to send it
    with every request.

    Raises RangeInvalid when a well-formed single range holds no byte of the content (416).
    """
    spec = _single_spec(header)
    if spec is None:
        return None
    first, last = spec.groups()
    stop: int | None = None
    if first:
        start = _position(first)
        stop = _position(last) + 1 if last else None
        if stop is not None and stop <= start:
            return None
        if size is None:
            return ByteRange(start, stop)
    else:
        if size is None:
            return None
        start = max(0, size - _position(last))
    if start == size == 0:
        return None
    if start >= size:
        raise RangeInvalid(size)
    return ByteRange(start, size if stop is None else min(stop, size))


def _single_spec(header: str | None) -> re.Match[str] | None:
    """The one range of a bytes header, as `first-last`; None when there is no such thing."""
    unit, _, ranges = (header or "").partition("=")
    if unit.strip(" \t").lower() != "bytes":
        return None
    # The list syntax allows empty elements (RFC 9110, 5.6.1.2): `bytes=,0-1` is one range.
    specs = [spec for part in ranges.split(",") if (spec := part.strip(" \t"))]
    return _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None


def _position(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _MAX_DIGITS else _FAR


def format_range(range: ByteRange) -> str:
    """The Range header that asks for these bytes.

    >>> format_range(ByteRange(0, 10)), format_range(ByteRange(10))
    ('bytes=0-9', 'bytes=10-')
    """
    return (
        f"bytes={range.start}-" if range.stop is None else f"bytes={range.start}-{range.stop - 1}"
    )


def format_unsatisfied(size: int) -> str:
    """The Content-Range of a 416: how long the content really is (RFC 9110, 15.5.17).

    >>> format_unsatisfied(10)
    'bytes */10'
    """
    return f"bytes */{size}"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Which part a 206 holds: bytes from `start` up to but not including `stop`.

    `total` is the size of the whole content in bytes, None when the sender does not know it.

    >>> str(ContentRange(0, 10, 100))
    'bytes 0-9/100'
    """

    start: int
    stop: int
    total: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop or (self.total is not None and self.stop > self.total):
            raise ValueError(f"[{self.start}, {self.stop}) is no part of {self.total} bytes")

    @classmethod
    def parse(cls, header: str | None) -> ContentRange | None:
        """What the header of a 206 says; None when it is missing, malformed, contradicts itself,
        or says that there was no such range (`bytes */10`).

        None rather than an error: to a reader, all of those mean that it does not know which bytes
        come, and that it must not use them.
        """
        match = _CONTENT_RANGE.fullmatch((header or "").strip(" \t"))
        if match is None:
            return None
        first, last, total = match.groups()
        try:
            return cls(int(first), int(last) + 1, None if total == "*" else int(total))
        except ValueError:
            return None

    def __str__(self) -> str:
        total = "*" if self.total is None else self.total
        return f"bytes {self.start}-{self.stop - 1}/{total}"


def with_span(spans: Sequence[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """These spans, which are in order and none of which touch, and one more.

    >>> with_span([(0, 2), (4, 6), (9, 10)], 6, 8)
    [(0, 2), (4, 8), (9, 10)]
    >>> with_span([(0, 2), (4, 6), (9, 10)], 1, 9)
    [(0, 10)]
    """
    first = bisect.bisect_left(spans, start, key=lambda span: span[1])
    last = bisect.bisect_right(spans, stop, key=lambda span: span[0])
    if first < last:
        start, stop = min(start, spans[first][0]), max(stop, spans[last - 1][1])
    return [*spans[:first], (start, stop), *spans[last:]]
