"""One blob over several connections, where one of them is slower than the link might be.

The work is a list of gaps, filled in parts from the front. Each connection takes the first part
that nobody brings yet; when there is none left, half of what another has still to bring. So the
bytes come nearly in order, readers and hashing follow closely, what is ahead of them is bounded,
and all connections end together. What one that breaks has not brought is a gap again, from the very
byte. Their number grows with success, and stops where more does not help or the upstream objects.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ...contracts.upstream import StreamContent
from ...oci.errors import RegistryError, Unavailable, Untrustworthy
from ...oci.ranges import ByteRange
from ...tasks import ended
from .write_behind import WriteBehind

if TYPE_CHECKING:
    from .download import Download

log = structlog.get_logger()

PROGRESS = 64 << 10
"""Bytes that count as progress: who sends less and breaks, again and again, is given up in the end.
"""

_FAILURES = 3  # of one connection in a row, before it is not opened again
_LOOKS = 4  # measurements in the time that more connections have to show that they help
_PAUSE = 3.0  # times `measure`: before it is tried again, and twice that the next time
_LATER = 0.1  # seconds for which a part is gathered: what is ahead nobody waits for


@dataclass(frozen=True, slots=True)
class ParallelPolicy:
    """When and how a download is parted. Sizes in bytes, `measure` in seconds.

    `over`: a blob, or the rest of one, that is smaller comes over one connection, unless it would
    take more than `long` seconds; so does one that comes with `fast` bytes a second, and one that
    no client has asked for yet. More connections are kept when they make it `gain` times as fast
    within `measure`. `part` is what a connection takes at a time: large beside what a round trip
    costs, small beside the blob. `connections` 1: never.
    """

    over: int = 64 << 20
    long: float = 3.0
    fast: float = 40 << 20
    part: int = 8 << 20
    connections: int = 8
    measure: float = 1.0
    gain: float = 1.25

    def may_part(self, size: int) -> bool:
        """Whether so many bytes may come over several connections."""
        return self.connections > 1 and size >= min(self.over, 2 * self.part)


ALONE = ParallelPolicy(connections=1)


@dataclass(slots=True)
class _Span:
    """What a connection is bringing: what is missing of it. Others may take from its end."""

    start: int
    stop: int


class ParallelDownload:
    """The rest of one download, from an open stream at its offset on."""

    def __init__(self, download: Download, stream: StreamContent) -> None:
        self._download = download
        self._parting = download.parting
        size = download.fill.size or 0
        self._gaps = _gaps(download.partial.offset, size, download.partial.ahead)
        self._is_large = size - download.partial.offset >= self._parting.over
        self._under_way: list[_Span] = []
        self._stream = stream
        self._came = 0
        self._wanted = 1  # connections
        self._connections = 0
        self._objection: RegistryError | None = None  # the last error
        self._refused = False  # one more connection was
        self._tasks: set[asyncio.Task[None]] = set()
        self._untried: set[asyncio.Task[None] | None] = set()  # those that brought nothing yet

    async def run(self) -> None:
        """Returns when there is no gap left. What has come stays, whatever happens.

        Raises Unavailable when nobody is left who fills them, and what the disk raised.
        """
        self._start(self._stream)
        growing = asyncio.create_task(self._grow())
        try:
            while self._tasks:
                done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                self._tasks -= done
                for task in done:
                    task.result()
            if self._gaps:
                said = self._objection.message if self._objection else "no connection was left"
                raise Unavailable(f"the rest did not come in parts: {said}")
        finally:
            tasks = [growing, *self._tasks]
            for task in tasks:
                task.cancel()
            await ended(tasks)

    # How many connections.

    async def _grow(self) -> None:
        speed = await self._measured()
        while not self._download.fill.is_asked_for:
            speed = await self._measured()
        pause = _PAUSE
        while self._wanted < self._parting.connections and self._is_slow(speed):
            before = self._wanted
            self._wanted = min(before * 2, self._parting.connections)
            while self._connections < self._wanted:
                self._start()
            faster = await self._faster_than(speed * self._parting.gain)
            if faster is None or self._refused:
                self._wanted = min(self._wanted, before)
                if self._refused:
                    return
                # It may have been the moment: what else is on the link comes and goes.
                await asyncio.sleep(pause * self._parting.measure)
                pause, speed = pause * 2, await self._measured()
                continue
            speed = faster
            log.info(
                "download_parted",
                digest=str(self._download.partial.digest),
                connections=self._wanted,
                bytes_per_second=round(speed),
            )

    def _is_slow(self, speed: float) -> bool:
        """Whether more connections are worth trying."""
        missing = [*self._gaps, *((span.start, span.stop) for span in self._under_way)]
        takes_long = sum(stop - start for start, stop in missing) > speed * self._parting.long
        return speed < self._parting.fast and (self._is_large or takes_long)

    async def _faster_than(self, least: float) -> float | None:
        """The speed, as soon as it is that; None when it is not in time."""
        for _ in range(_LOOKS):
            all_run = not self._untried
            speed = await self._measured()
            if all_run and speed >= least:
                return speed
        return None

    async def _measured(self) -> float:
        came, loop = self._came, asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(self._parting.measure / _LOOKS)
        return (self._came - came) / (loop.time() - began)

    def _start(self, stream: StreamContent | None = None) -> None:
        self._connections += 1
        task = asyncio.create_task(self._fill_gaps(stream))
        self._tasks.add(task)
        self._untried.add(task)

    # One connection after the other.

    async def _fill_gaps(self, stream: StreamContent | None) -> None:
        """`stream`: the one that is open already, and goes on to the end of the blob."""
        failures = 0
        try:
            while self._connections <= self._wanted and (span := self._claim()) is not None:
                start = span.start
                try:
                    await self._bring(span, stream)
                except RegistryError as error:
                    self._objection = error.bare()
                    again = isinstance(error, Unavailable)
                    failures = _FAILURES if not again else failures + 1
                finally:
                    self._under_way.remove(span)
                    if span.start < span.stop:
                        bisect.insort(self._gaps, (span.start, span.stop))
                if span.start - start >= PROGRESS:
                    failures = 0
                if failures >= _FAILURES:
                    self._wanted = max(1, min(self._wanted, self._connections - 1))
                    return
                stream = None
        finally:
            self._connections -= 1
            self._untried.discard(asyncio.current_task())

    async def _bring(self, span: _Span, stream: StreamContent | None) -> None:
        """Moves the span's start as far as its bytes came. Raises RegistryError, and what the disk
        raised."""
        goes_on = stream is not None
        stream = stream or await self._opened(span)
        try:
            await self._carry(span, stream, goes_on)
        finally:
            await stream.close()

    async def _opened(self, span: _Span) -> StreamContent:
        download = self._download
        try:
            stream = await download.ask(ByteRange(span.start, span.stop))
        except RegistryError:
            self._refused = True
            raise
        download.uses(stream, stream.start)
        if stream.start == span.start and stream.descriptor.size == download.fill.size:
            return stream
        self._refused = True
        await stream.close()
        if stream.start != span.start:
            raise Untrustworthy(f"{stream.source} sends no parts")
        raise Untrustworthy(f"{stream.source} has a blob of another size")

    async def _carry(self, span: _Span, stream: StreamContent, goes_on: bool) -> None:
        """`goes_on`: the stream does not end where the span does, which may go on with it."""
        source, writer = stream.source, self._writer(span, stream, goes_on)
        try:
            while span.start < span.stop or (goes_on and self._extend(span)):
                piece = await stream.read()
                if not piece:
                    raise Unavailable(f"{stream.source} sent less than it announced")
                if stream.source != source:  # which fell silent
                    await writer.flush()
                    self._download.uses(stream, span.start)
                    source, writer = stream.source, self._writer(span, stream, goes_on)
                self._untried.discard(asyncio.current_task())
                while goes_on and len(piece) > span.stop - span.start and self._extend(span):
                    pass
                piece = piece[: span.stop - span.start]
                span.start += len(piece)
                self._came += len(piece)
                await writer.put(piece)
                del piece  # as in Download._pump
        finally:
            # What has come is worth keeping, also when the stream breaks or the mirror stops.
            await writer.flush()

    def _writer(self, span: _Span, stream: StreamContent, goes_on: bool) -> WriteBehind:
        """Writes what this stream's source brings, from the span's start on."""
        download, source, at = self._download, stream.source, span.start

        async def place(pieces: Sequence[bytes]) -> None:
            nonlocal at
            start, at = at, at + sum(map(len, pieces))
            before = download.partial.offset
            await download.partial.place(start, pieces)
            download.sources.brought(source, start, at)
            download.came(at - start)
            if download.partial.offset > before:
                download.fill.progress(download.partial.offset)

        return WriteBehind(place) if goes_on else WriteBehind(place, at_once=0, later=_LATER)

    # The list of gaps.

    def _claim(self) -> _Span | None:
        """The next part that nobody brings yet; None when there is none worth a connection."""
        if self._gaps:
            start, stop = self._next_part(0)
        else:
            longest = max(self._under_way, key=lambda span: span.stop - span.start, default=None)
            if longest is None or longest.stop - longest.start < self._parting.part // 2:
                return None
            start, stop = (longest.start + longest.stop) // 2, longest.stop
            longest.stop = start
        span = _Span(start, stop)
        self._under_way.append(span)
        return span

    def _extend(self, span: _Span) -> bool:
        """Takes the part that follows, unless somebody else brings it or has brought it."""
        for number, (start, _) in enumerate(self._gaps):
            if start == span.stop:
                _, span.stop = self._next_part(number)
                return True
        return False

    def _next_part(self, number: int) -> tuple[int, int]:
        """Takes it from the beginning of this gap."""
        start, stop = self._gaps.pop(number)
        end = min(stop, start + self._parting.part)
        if end < stop:
            self._gaps.insert(number, (end, stop))
        return start, end


def _gaps(offset: int, size: int, ahead: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is missing of [offset, size) beside what is there ahead."""
    gaps = []
    for start, stop in ahead:
        gaps.append((offset, start))
        offset = stop
    if offset < size:
        gaps.append((offset, size))
    return gaps
