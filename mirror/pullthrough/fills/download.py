"""One download: connections that fill the gaps of a blob, and begin again where they break.

The gaps are filled from the front, in parts. One connection goes on from part to part; several,
where that is faster, take parts each, and when there is none left, half of what another has still
to bring. So the bytes come nearly in order, readers and hashing follow closely, and what is ahead
of them is bounded. A range that a reader waits for has a connection of its own at once. What a
connection has not brought when it ends is a gap again, from the very byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import structlog

from ...contracts.upstream import Upstream
from ...frozen import dataclass
from ...oci.errors import (
    Denied,
    RangeInvalid,
    RegistryError,
    Unavailable,
    Unknown,
    Untrustworthy,
)
from ...tasks import ended
from .connection import Connection
from .fill import Fill, FillReader
from .gaps import END, NEAR, ROUND, Gaps, Span
from .parallel import ALONE, ParallelPolicy, grow
from .patience import PROGRESS
from .ranges import RangeConnections
from .sink import Sink, TooLarge
from .states import FillState

log = structlog.get_logger()

_FAILURES = 3  # of a range's connections in a row, before its reader waits for the whole
_CROWDED = 0.25  # seconds between two looks for a connection, where ranges have all there are


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """Over how many connections. `ranges`: those that all downloads share."""

    parting: ParallelPolicy
    ranges: RangeConnections


class Download:
    """Brings what is wanted of a fill to its sink, within its patience. As `Parted`
    (parallel.py) it is given more connections by `grow`."""

    def __init__(
        self,
        fill: Fill,
        sink: Sink,
        upstream: Upstream,
        policy: DownloadPolicy,
        has_spare: Callable[[], bool] = lambda: False,
    ) -> None:
        """`has_spare`: whether there is a place for what no client has asked for."""
        self.fill = fill
        self.sink = sink
        self.wanted = 1
        self.gaps = Gaps(sink.partial.offset, sink.partial.ahead, END)
        self._upstream = upstream
        self._policy = policy
        self._parting = policy.parting
        self._has_spare = has_spare
        self._connections: list[Connection] = []
        self._tried = 0  # connections that brought something beside each other
        self._refused = False  # one connection more was
        self._not_before = 0.0  # when the whole is asked for again, in the event loop's time
        self._is_crowded = False
        self._growing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._came_before = 0

    def __repr__(self) -> str:
        sources = sorted(self.sink.sources.rejects)
        return f"{self.gaps}, {len(self._connections)} connections, sources {sources}"

    async def run(self) -> None:
        """One turn. Returns when every byte is there, not yet proven (`is_complete`), or all that
        anybody waits for, while there is no place to spare for the rest. Raises RegistryError.

        Broken off to give its turn to others, it may be called again: its patience goes on.
        """
        self.fill.enter(FillState.OPENING)
        self.fill.progress(self.sink.partial.offset)
        if self.sink.patience.is_over:
            quiet = self.sink.patience.quiet_for()
            raise Unavailable(f"nothing came of it for {quiet:.0f} s")
        await self._bring()

    async def serve_ranges(self) -> None:
        """Brings what readers of ranges wait for, beside another process that writes the whole.
        Until it is cancelled."""
        while True:
            await self._bring()
            await self.fill.next_change()

    @property
    def is_complete(self) -> bool:
        return self.gaps.are_filled

    # As Parted.

    @property
    def came(self) -> int:
        return self.fill.came + sum(one.in_hand for one in self._connections)

    @property
    def waited(self) -> int:
        return self.sink.waited

    @property
    def missing(self) -> int:
        return self.gaps.count()

    @property
    def objects(self) -> bool:
        return self._refused

    @property
    def all_bring(self) -> bool:
        whole = self._of_whole()
        return self._tried >= self.wanted or all(one.brought for one in whole)

    def more(self) -> None:
        self._tried = min(self._tried, self.wanted // 2)
        self._wake.set()

    # One turn.

    async def _bring(self) -> None:
        partial, fill = self.sink.partial, self.fill
        self.gaps = Gaps(partial.offset, partial.ahead, END if fill.size is None else fill.size)
        self.sink.patience.begin()
        self._not_before = 0.0
        self._came_before, self.wanted = fill.came, 1
        fill.on_demand, self.sink.moved, fill.work = self._wake.set, self._moved, self
        try:
            while True:
                self._dispatch()
                if not self._connections and not self._waits():
                    return
                await self._next()
                for connection in [one for one in self._connections if one.task.done()]:
                    self._has_ended(connection)
        finally:
            await self._stop_all()
            # No circle: what the partial holds is to go with the last who knows it.
            fill.on_demand = self.sink.moved = _nothing
            fill.work = None

    def _waits(self) -> bool:
        """Whether more is to be brought, though no connection is open just now."""
        if self.gaps.are_filled:
            return False
        if self._is_whole_due() or any(True for _ in self._ranges()):
            return True
        if self.sink.is_passing or not self._has_spare():
            return False
        self.fill.is_whole = True  # nobody waits for the rest, and it keeps nobody from theirs
        self._wake.set()
        return True

    async def _next(self) -> None:
        """Returns when a connection has ended, something else is wanted, or it is time."""
        now = asyncio.get_running_loop().time()
        times = [reader.not_before for reader in self._ranges() if reader.not_before > now]
        if self._not_before > now:
            times.append(self._not_before)
        if self._is_crowded:
            times.append(now + _CROWDED)
        try:
            async with asyncio.timeout_at(min(times, default=None)):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _stop_all(self) -> None:
        tasks = [one.task for one in self._connections]
        if self._growing is not None:
            tasks.append(self._growing)
            self._growing = None
        for task in tasks:
            task.cancel()
        try:
            await ended(tasks)
        finally:
            for connection in self._connections:
                self._leaves(connection)
            self._connections.clear()

    # What is wanted, and who brings it.

    def _is_whole_due(self) -> bool:
        if self.fill.state is FillState.FOLLOWING:  # another process brings it
            return False
        if any(reader.needs_whole for reader in self.fill.readers):
            return True
        return self.fill.is_whole and not self.sink.is_passing

    def _ranges(self) -> Iterator[FillReader]:
        """Readers that wait for a range."""
        return (
            reader
            for reader in self.fill.readers
            if not reader.needs_whole and reader.lacks is not None
        )

    def _of_whole(self) -> list[Connection]:
        return [one for one in self._connections if one.reader is None]

    def _dispatch(self) -> None:
        """Opens connections for what is wanted, and stops those that bring what is not."""
        self._stop_unwanted()
        now = asyncio.get_running_loop().time()
        self._is_crowded = False
        for reader in list(self._ranges()):
            self._open_range(reader, now)
        if not self._is_whole_due() or now < self._not_before:
            return
        while (count := len(self._of_whole())) < self.wanted and not self.gaps.are_filled:
            span = self.gaps.first(self._parting.part)
            if span is None and self.wanted > 1:
                span = self.gaps.half(self._parting.part // 4)
            if span is None:
                return
            self._start(span, goes_on=count == 0)

    def _open_range(self, reader: FillReader, now: float) -> None:
        lacks = reader.lacks
        is_coming = any(one.reader is reader for one in self._connections)
        if lacks is None or now < reader.not_before or is_coming:
            return
        if self._parting is ALONE:
            reader.take_whole()
            return
        stop = END if lacks.stop is None else lacks.stop
        if (span := self._wanted(lacks.start, stop)) is None:
            if not self.gaps.comes(lacks.start, stop):  # it is here, and held back
                reader.take_whole()
        elif self._policy.ranges.take(reader.client):
            self._start(span, reader=reader)
        else:
            self.gaps.give_back(span)
            self._is_crowded = True

    def _wanted(self, start: int, stop: int) -> Span | None:
        """What is to be asked for of these bytes. Of what passes through memory nothing is there
        for another: who reads in order and who reads a range are brought the same bytes apart."""
        if not self.sink.is_passing:
            return self.gaps.wanted(start, stop)
        if self._of_whole() and start - self.sink.partial.offset < NEAR:
            return None
        return Span(start - start % ROUND, min(stop + -stop % ROUND, self.gaps.stop))

    def _start(self, span: Span, goes_on: bool = False, reader: FillReader | None = None) -> None:
        connection = Connection(
            self.sink, self.gaps, span, self._parting.part if goes_on else None, reader
        )
        connection.begin(self._upstream, self._opened, self._wake.set)
        self._connections.append(connection)

    def _opened(self, connection: Connection) -> None:
        """Its stream is open, or has brought its first bytes."""
        if connection.reader is not None:
            return
        if connection.brought:
            self._tried = max(self._tried, sum(one.brought > 0 for one in self._of_whole()))
        elif (
            self._growing is None
            and self.fill.size is not None
            and not self.sink.is_passing
            and self.fill.goes_on_by_range
            and self._parting.may_part(self.gaps.count())
        ):
            self._growing = asyncio.create_task(grow(self, self.fill, self._parting))

    def _stop_unwanted(self) -> None:
        is_whole_due = self._is_whole_due()
        for connection in self._connections:
            if connection.is_stopped:
                continue
            if connection.reader is None:
                if not is_whole_due:
                    connection.stop()
            elif connection.reader not in self.fill.readers or connection.reader.needs_whole:
                span = connection.span
                heirs = (
                    reader
                    for reader in self._ranges()
                    if (lacks := reader.lacks) and span.start <= lacks.start < span.stop
                )
                connection.reader = next(heirs, connection.reader)
                if connection.reader.needs_whole or connection.reader not in self.fill.readers:
                    connection.stop()

    def _moved(self) -> None:
        """The disk takes no more: only the connection at the front goes on, and those of ranges."""
        offset = self.sink.partial.offset
        front = next(
            (one for one in self._of_whole() if one.written <= offset <= one.span.start), None
        )
        kept = [one for one in self._connections if one is front or one.reader is not None]
        for connection in self._connections:
            if connection not in kept:
                connection.stop()
        start = offset if front is None else front.span.start
        self.gaps.restart(start, [] if front is None else [front.span])
        self.wanted = 1
        if self._growing is not None:
            self._growing.cancel()

    # When a connection ends.

    def _leaves(self, connection: Connection) -> None:
        span = connection.span
        span.start = min(span.start, connection.lost)
        self.gaps.give_back(span)
        if connection.client is not None:
            self._policy.ranges.give(connection.client)

    def _has_ended(self, connection: Connection) -> None:
        """What it has not brought is a gap again. Raises RegistryError when nothing is left to
        try."""
        self._connections.remove(connection)
        self._leaves(connection)
        error = connection.error()
        if error is None:
            return
        if connection.reader is not None:
            self._range_has_failed(connection, connection.reader, error)
        elif others := self._of_whole():
            self._refused |= not connection.is_open
            if connection.brought < PROGRESS:
                self.wanted = max(1, min(self.wanted, len(others)))
        else:
            self._refused |= not connection.goes_on and not connection.is_open
            self._has_failed(error, connection.goes_on)

    def _range_has_failed(
        self, connection: Connection, reader: FillReader, error: RegistryError
    ) -> None:
        """It is asked for again, or its reader waits for the whole."""
        progressed = connection.brought >= PROGRESS
        if isinstance(error, RangeInvalid) and (error.size is None or error.size <= reader.start):
            reader.fails(error)
            return
        is_alone = not self._of_whole() and self.fill.state is not FillState.FOLLOWING
        if isinstance(error, Unknown) and is_alone and not self.fill.came:
            raise error  # nobody brings it, or has brought any of it
        reader.failures = 0 if progressed else reader.failures + 1
        most = _FAILURES if self.sink.has_vouched else 1
        log.info(
            "range_broke_off",
            digest=str(self.fill.digest),
            start=connection.span.start,
            reason=error.message,
        )
        may_pass = isinstance(error, Unavailable) and not isinstance(error, Untrustworthy | Denied)
        if not may_pass or reader.failures >= most:
            reader.take_whole()
        else:
            pause = self.sink.patience.policy.pause * 2**reader.failures
            reader.not_before = asyncio.get_running_loop().time() + pause

    def _has_failed(self, error: RegistryError, was_first: bool) -> None:
        """No connection is left that brings the whole: a new one is opened in a while. Raises
        RegistryError when that is no use, or nothing has come for too long."""
        fill, sink = self.fill, self.sink
        if isinstance(error, TooLarge):
            raise error
        reason = error
        if not was_first:
            reason = Unavailable(f"the rest did not come in parts: {error.message}").bare()
        elif isinstance(error, Unknown):
            # Of what has just been coming, a replica that lags says nothing.
            if fill.came == self._came_before or not sink.patience.may_lag():
                raise error
            reason = Unavailable(error.message).bare()
        elif isinstance(error, Untrustworthy | Denied) or not isinstance(error, Unavailable):
            raise error
        if sink.is_passing and not fill.is_read:
            raise reason  # it is not kept, and nobody wants it any more
        if (wait := sink.patience.pause_after(reason, fill.first_byte)) is None:
            raise reason
        log.info(
            "fill_goes_on_after_a_fault",
            digest=str(fill.digest),
            offset=sink.partial.offset,
            reason=reason.message,
        )
        if fill.state in (FillState.DOWNLOADING, FillState.SPILLING) and not self._connections:
            fill.enter(FillState.OPENING)
        self._not_before = asyncio.get_running_loop().time() + wait


def _nothing() -> None:
    pass
