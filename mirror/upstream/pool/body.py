"""A blob's body on its way: over one connection, until another is better.

One watcher only. A connection that falls silent is not given up: the rest is asked for beside it,
from the very byte, and the first connection that brings something goes on. Beside one that only
drips the rest is asked for too, and the first that brings more than drops goes on: a blob of 4 MiB
from one endpoint, whose first connection dripped, came so in 3 s, and else not within a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ...clock import Clock
from ...frozen import dataclass
from ...oci.descriptor import Descriptor
from ...oci.errors import Unavailable
from ...oci.ranges import ByteRange
from ...tasks import ended
from ...times import BODIES
from ..endpoint import KIB
from .bandwidth import Bandwidth
from .source import LEAD, Source

# A connection that is so many times slower than the registry's fastest endpoint, and below LEAD a
# second, is doubted, though it is not so slow that it would be given up.
_FAR_BELOW = 16.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What is too quiet, in seconds, and what is too slow, in bytes a second.

    After `silent` seconds without a byte the rest is asked for beside the silent connection. Where
    the endpoints bear no connection more, the silent one is given up after `alone`, so that its
    place serves the next. A body of which no connection has brought a byte for `longest` fails:
    clients were seen to bear 35 s. So does one that came with less than `slow_speed` in
    `slow_window` seconds of waiting, over all its connections together. After `doubt` seconds of
    that the rest is asked for beside it; then after twice as many each time: where all are slow,
    that costs them bytes. What many bodies share is slow through no fault of one: see Bandwidth.
    """

    silent: float = BODIES.silent
    alone: float = BODIES.alone
    longest: float = BODIES.longest
    doubt: float = BODIES.doubt
    slow_window: float = BODIES.slow
    slow_speed: float = 4.0 * KIB


class Others(Protocol):
    """Other connections for the same blob, from the same endpoints."""

    async def beside(self, silent: Source, rest: ByteRange) -> Source:
        """The connection that brings the next byte: the silent one, or one that is asked for the
        rest beside it, other endpoints first; those that lose are closed. Raises Unavailable."""

    async def rival(self, slow: Source, rest: ByteRange) -> Source:
        """A connection that is asked for the rest beside a slow one, which goes on meanwhile: see
        `Source.in_front_of`. Raises Unavailable."""

    def usual_speed(self) -> float:
        """Bytes a second that the fastest of the endpoints has shown; 0 where none was
        measured."""


class Pace:
    """A speed in bytes a second, measured over windows of `window` seconds of waiting."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._waited = 0.0
        self._came = 0

    def took(self, waited: float, count: int) -> None:
        self._waited += waited
        self._came += count

    @property
    def speed(self) -> float | None:
        """None until the window is over."""
        return self._came / self._waited if self._waited >= self._window else None

    def begin(self, times: float = 1.0) -> None:
        """Begins a new window, which is so many times as long."""
        self._window *= times
        self._waited, self._came = 0.0, 0


class Body:
    """A StreamContent. `source`, `vouched` and `reject` are those of the endpoint whose bytes were
    read last: they may change from one read to the next. `stop`: where the asked range ends."""

    def __init__(
        self,
        source: Source,
        stop: int | None,
        others: Others,
        bandwidth: Bandwidth,
        clock: Clock,
        watch: Watch,
    ) -> None:
        self._source = source
        self._start = self._position = source.start
        self._stop = stop
        self._others = others
        self._bandwidth = bandwidth
        self._clock = clock
        self._watch = watch
        self._doubt = Pace(watch.doubt)
        self._pace = Pace(watch.slow_window)
        self._race: asyncio.Task[Source] | None = None  # a rival's, and where it began
        self._race_from = 0
        self._is_open = True
        bandwidth.begins()

    @property
    def descriptor(self) -> Descriptor:
        return self._source.descriptor

    @property
    def start(self) -> int:
        return self._start

    @property
    def source(self) -> str:
        return self._source.name

    @property
    def vouched(self) -> bool:
        return self._source.vouched

    @property
    def doubted(self) -> bool:
        return self._source.doubted

    @property
    def kept(self) -> bool:
        return False

    @property
    def reject(self) -> Callable[[str], None]:
        return self._source.reject

    async def read(self) -> bytes:
        """See StreamContent. Time between two reads does not count as the upstream's."""
        if (
            self._position == self._stop
        ):  # a range's last byte is here: the upstream's end is not waited for
            return b""
        await self._heed_speed()
        began = self._clock.monotonic()
        try:
            if self._source.has_come:
                piece = await self._source.read()
            else:
                async with asyncio.timeout(self._watch.silent):
                    piece = await self._source.read()
        except TimeoutError:
            if not await self._race_is_won():
                self._source = await self._others.beside(self._source, self._rest)
            piece = await self._source.read()
        self._position += len(piece)
        if piece:
            waited = self._clock.monotonic() - began
            self._doubt.took(waited, len(piece))
            self._pace.took(waited, len(piece))
            self._bandwidth.came(len(piece))
        return piece

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._bandwidth.ends()
        try:
            rival = await self._end_race()
            if rival is not None:
                await rival.close()
        finally:
            await self._source.close()

    @property
    def _rest(self) -> ByteRange:
        return ByteRange(self._position, self._stop)

    async def _heed_speed(self) -> None:
        """Between two pieces: what has come was handed on. Raises Unavailable."""
        if self._race is not None:
            if self._race.done() or self._position - self._race_from >= LEAD:
                await self._race_is_won()
        elif (speed := self._doubt.speed) is not None:
            is_doubted = self._is_doubted(speed)
            self._doubt.begin(2.0 if is_doubted else 1.0)
            if is_doubted:
                self._race = asyncio.ensure_future(self._others.rival(self._source, self._rest))
                self._race_from = self._position
        if (speed := self._pace.speed) is not None:
            self._pace.begin()
            if self._is_below(self._watch.slow_speed, speed):
                error = Unavailable(
                    f"{self.source} sends a blob at {speed:.0f} bytes/s; "
                    f"less than {self._watch.slow_speed:.0f} is given up"
                )
                self._source.breaks(error)
                raise error

    def _is_doubted(self, speed: float) -> bool:
        usual = min(LEAD, self._others.usual_speed() / _FAR_BELOW)
        return self._is_below(max(self._watch.slow_speed, usual), speed)

    def _is_below(self, least: float, speed: float) -> bool:
        """Whether the body is slower than this, and not because it shares a link with others."""
        return speed < least and not self._bandwidth.is_shared_fairly(speed, least)

    async def _race_is_won(self) -> bool:
        """Ends the race with a rival, if there is one; whether the rival goes on from here."""
        rival = await self._end_race()
        if rival is None:
            return False
        if not rival.goes_on_after(self._position - self._race_from):
            await rival.close()
            return False
        slow, self._source = self._source, rival
        await slow.close()
        return True

    async def _end_race(self) -> Source | None:
        """The rival, if it has come."""
        race, self._race = self._race, None
        if race is None:
            return None
        race.cancel()
        try:
            await ended([race])
        except asyncio.CancelledError:
            if (rival := _came_of(race)) is not None:
                await rival.close()
            raise
        return _came_of(race)


def _came_of(race: asyncio.Task[Source]) -> Source | None:
    return None if race.cancelled() or race.exception() is not None else race.result()
