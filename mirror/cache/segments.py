"""One blob over several connections, where one of them is slower than the link might be.

The work is a list of gaps. The stream that was there first fills the first of them from its
beginning; others take what is to come next, in parts, as ranges. So the bytes come nearly in order,
readers and hashing follow closely, and what is ahead of them is bounded. It grows with success,
and stops where more does not help or the upstream objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ..interfaces import StreamContent
from ..oci.errors import RegistryError, Unavailable, Untrustworthy
from ..oci.ranges import ByteRange
from .write_behind import WriteBehind

if TYPE_CHECKING:
    from .download import Download

log = structlog.get_logger()

_FAILURES = 3  # of one connection in a row, before it is not opened again


@dataclass(frozen=True, slots=True)
class Parting:
    """When and how a download is parted. Sizes in bytes, `measure` in seconds.

    `over`: a blob, or the rest of one, that is smaller comes over one connection; so does one that
    comes with `fast` bytes a second. More connections are kept when they make it `gain` times as
    fast. `part` is what a connection takes at a time: large beside what a round trip costs, small
    beside the blob. `connections` 1: never.
    """

    over: int = 64 << 20
    fast: float = 40 << 20
    part: int = 8 << 20
    connections: int = 8
    measure: float = 1.0
    gain: float = 1.25


class Segments:
    """The rest of one download, from an open stream at its offset on."""

    def __init__(self, download: Download, stream: StreamContent) -> None:
        self._download = download
        self._parting = download.parting
        size = download.fill.size or 0
        self._gaps = _gaps(download.partial.offset, size, download.partial.ahead)
        # The first gap is the stream's; its end moves when others help.
        self._front, self._front_stop = self._gaps.pop(0)
        self._placed = self._front
        self._stream = stream
        self._came = 0
        self._wanted = 1  # connections
        self._helpers: set[asyncio.Task[None]] = set()
        self._objection: RegistryError | None = None

    async def run(self) -> None:
        """Returns when there is no gap left, or nobody who fills it: see the partial's offset.

        Raises what broke the last connection. What has come stays.
        """
        front = asyncio.create_task(self._run_front())
        growing = asyncio.create_task(self._grow())
        try:
            await front
            self._wanted = max(self._wanted, 1)
            if self._gaps and not self._helpers:
                self._help()
            while self._helpers:
                await asyncio.wait(self._helpers, return_when=asyncio.FIRST_COMPLETED)
            if self._gaps:
                said = self._objection.message if self._objection else "no connection was left"
                raise Unavailable(f"the rest did not come in parts: {said}")
        finally:
            tasks = [front, growing, *self._helpers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # The stream that was there first.

    async def _run_front(self) -> None:
        writer = WriteBehind(self._place_at_front)
        try:
            while self._front < self._front_stop and (piece := await self._stream.read()):
                piece = piece[: self._front_stop - self._front]
                self._front += len(piece)
                self._came += len(piece)
                await writer.put(piece)
        finally:
            await writer.flush()
            rest, self._front_stop = (self._front, self._front_stop), self._front
            if rest[0] < rest[1]:
                self._give_back(*rest)

    async def _place_at_front(self, pieces: Sequence[bytes]) -> None:
        await self._place(self._placed, pieces)
        self._placed += sum(map(len, pieces))

    # The others.

    async def _grow(self) -> None:
        speed = await self._measured()
        while self._wanted < self._parting.connections and speed < self._parting.fast:
            before, self._wanted = self._wanted, min(self._wanted * 2, self._parting.connections)
            while len(self._helpers) < self._wanted - 1:
                self._help()
            await self._measured()  # while they connect
            faster = await self._measured()
            if faster < speed * self._parting.gain or self._objection is not None:
                self._wanted = before
                return
            speed = faster
            log.info(
                "download parted",
                digest=str(self._download.partial.digest),
                connections=self._wanted,
                bytes_per_second=round(speed),
            )

    async def _measured(self) -> float:
        came, loop = self._came, asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(self._parting.measure / 2)
        return (self._came - came) / (loop.time() - began)

    def _help(self) -> None:
        task = asyncio.create_task(self._run_helper())
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def _run_helper(self) -> None:
        failures = 0
        while failures < _FAILURES and (claim := self._claim()) is not None:
            start, stop = claim
            try:
                start = await self._bring(start, stop)
                failures = 0
            except Unavailable as error:
                failures, self._objection = failures + 1, error
            except RegistryError as error:
                failures, self._objection = _FAILURES, error
            finally:
                if start < stop:
                    self._give_back(start, stop)
            if len(self._helpers) >= self._wanted and self._front < self._front_stop:
                return

    async def _bring(self, start: int, stop: int) -> int:
        """Fetches this part; returns where it ended, which is `stop` when all went well."""
        download = self._download
        stream = await download.upstream.blob(
            download.repository, download.partial.digest, ByteRange(start, stop)
        )
        try:
            if stream.start != start:
                raise Untrustworthy(f"{stream.source} sends no parts")
            if stream.descriptor.size != download.fill.size:
                raise Untrustworthy(f"{stream.source} has a blob of another size")
            download.takes_from(stream)
            while start < stop and (piece := await stream.read()):
                piece = piece[: stop - start]
                self._came += len(piece)
                await self._place(start, [piece])
                start += len(piece)
            return start
        except Unavailable as error:
            self._objection = error
            return start
        finally:
            await stream.close()

    async def _place(self, at: int, pieces: Sequence[bytes]) -> None:
        # Shielded: when a stream ends by being cancelled, what it brought is written and counted.
        await asyncio.shield(self._download.partial.place(at, pieces))
        self._download.fill.progress(self._download.partial.offset)

    # The list of gaps.

    def _claim(self) -> tuple[int, int] | None:
        """The next part that nobody brings yet; None when there is none worth a connection."""
        if not self._gaps and self._front_stop - self._front >= 2 * self._parting.part:
            split = self._front + self._parting.part
            self._gaps.append((split, self._front_stop))
            self._front_stop = split
        if not self._gaps:
            return None
        start, stop = self._gaps.pop(0)
        if self._wanted > 1 and stop - start > self._parting.part:
            self._gaps.insert(0, (start + self._parting.part, stop))
            stop = start + self._parting.part
        return start, stop

    def _give_back(self, start: int, stop: int) -> None:
        self._gaps.append((start, stop))
        self._gaps.sort()
        if self._front < self._front_stop:  # it is still coming: what follows it is its own again
            while self._gaps and self._gaps[0][0] == self._front_stop:
                self._front_stop = self._gaps.pop(0)[1]


def _gaps(offset: int, size: int, ahead: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is missing of [offset, size) beside what is there ahead."""
    gaps = []
    for start, stop in ahead:
        gaps.append((offset, start))
        offset = stop
    if offset < size:
        gaps.append((offset, size))
    return gaps
