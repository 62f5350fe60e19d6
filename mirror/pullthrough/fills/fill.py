"""One fill as its readers see it: a growing file, or what is left of it in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf

import structlog

from ...contracts.files import Hasher, OpenFile
from ...contracts.registry import Outcome, Provenance
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable
from ...oci.ranges import ByteRange, with_span
from ...oci.reference import Repository
from .gaps import END, ROUND
from .spill import Passing, Segment, SpillBuffer
from .states import NEXT, FillState, check

log = structlog.get_logger()

# The last piece of a blob is held back until the digest is proven: no client can hold a whole
# wrong blob which it believes complete.
HELD_BACK = 64 << 10

# A blob below this is given out only once it is proven: it costs no time worth naming, and saves
# the clients that never ask again after wrong bytes (containerd, podman).
SMALL = 1 << 20

_PROVEN = {FillState.PROVEN, FillState.KEPT, FillState.UNCACHED, FillState.FOLLOWED}


FIRST = 64 << 10
"""Bytes that are given out before they are written: as many as leave with an answer's head."""


class FirstBytes:
    """An OpenFile of the first bytes of a blob, in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.count = len(data)

    def fileno(self) -> int:
        return -1

    def pread(self, count: int, offset: int) -> bytes:
        return self._data[offset : offset + count]

    def again(self) -> FirstBytes:
        return self

    def close(self) -> None:
        """Its memory goes with the last who has it."""


class Fill:
    """One blob on its way from the upstream to the disk, and to all who read it meanwhile.

    It is the Asker of what it asks of the upstream: wanted as long as a reader waits for bytes.

    Its file is open as long as it runs or somebody reads it.
    """

    def __init__(
        self, digest: Digest, repository: Repository, first_byte: float, number: int = 0
    ) -> None:
        self.number = number  # tells it from the other fills of this process, in events
        self.digest = digest
        self.repository = repository  # through which it is fetched
        self.provenance = Provenance.HERE  # to those who ask through that repository
        self.client = ""  # as Asker.client: who waits for it, or did
        self.clients: set[str] = set()  # all of them
        self.first_byte = first_byte  # seconds that those who wait have for it to make progress
        self.is_whole = False  # all of it was asked for, or there is a place to spare for the rest
        self.size: int | None = None
        self.error: RegistryError | None = None
        self.written = 0  # bytes that have come without a gap, proven or not
        self.came = 0  # bytes that have come at all
        self.goes_on_by_range = True  # False: whoever goes on with it has to begin anew
        self.vain_turns = 0  # places that it had and gave back before anything came
        self.work: object = None  # what brings it, for messages
        self.on_demand: Callable[[], None] = _nothing  # called when what is wanted changes
        self.on_left: Callable[[Fill], None] = _ignored  # called when the last reader leaves
        self.state = FillState.BEGUN
        self.readers: set[FillReader] = set()
        self.window: SpillBuffer | None = None  # what the disk does not take
        self._given: Sequence[tuple[int, int]] = ()  # behind `written`; may be read unproven
        self._buffers: list[SpillBuffer] = []
        self._file: Segment | None = None
        self._first: FirstBytes | None = None  # while they are on their way to the file
        self._waiting: list[asyncio.Future[None]] = []  # for a change
        self._doubted: int | None = None  # from here on, bytes are not given out unproven,
        self._doubted_until = 0.0  # as long as that is not waited for too long

    def __repr__(self) -> str:
        size = "?" if self.size is None else self.size
        return (
            f"<Fill {self.digest} {self.state}, {self.written} of {size} bytes, "
            f"{len(self.readers)} readers, {self.work}>"
        )

    def enter(self, state: FillState) -> None:
        """The only way from one state to another. Raises WrongState."""
        check(self.state, state)
        self.state = state
        if self.is_over:
            self.changed()
            self._close_if_over()

    @property
    def is_over(self) -> bool:
        """Nothing more will come, and what has come is in the store or will not be."""
        return not NEXT[self.state]

    @property
    def is_proven(self) -> bool:
        """All of it may be read."""
        return self.state in _PROVEN

    # For those who read.

    def reader(
        self,
        outcome: Outcome,
        repository: Repository,
        part: ByteRange | None = None,
        client: str = "",
    ) -> FillReader:
        """A reader of this part, or of the whole, who asked through this repository. Close it."""
        reader = FillReader(self, outcome, repository, part, client)
        self.readers.add(reader)
        self.on_demand()
        return reader

    def reader_ahead(self, outcome: Outcome, repository: Repository) -> FillReader:
        """A reader of the whole for whom nobody waits: it gives way to all, and what it has begun
        ends with it."""
        reader = _AheadReader(self, outcome, repository, None, "")
        self.readers.add(reader)
        return reader

    async def ended(self) -> None:
        """Returns when it is over. Raises RegistryError when the fill has failed."""
        while not self.is_over:
            await self.next_change()
        if self.error is not None:
            raise self.error.with_traceback(None)

    @property
    def is_read(self) -> bool:
        """Whether a client reads it."""
        return any(not reader.is_ahead for reader in self.readers)

    @property
    def is_wanted(self) -> bool:
        """As Asker.is_wanted."""
        return any(reader.is_waiting for reader in self.readers)

    deadline = inf
    """As Asker.deadline: those who wait have theirs, and the download has a patience of its own."""

    @property
    def is_asked_for(self) -> bool:
        """Whether anybody waits for it, or did; if not, it is fetched ahead of them all."""
        return self.first_byte > 0

    @property
    def limit(self) -> int:
        """Up to where the bytes may be read by now, from the beginning on."""
        if self.is_proven:
            return self.written
        if self.size is None:
            limit = self.written - HELD_BACK if self.written > SMALL else 0
        else:
            came = self.written if self._first is None else self._first.count
            limit = min(came, self.size - HELD_BACK) if self.size >= SMALL else 0
        if self._doubted is not None and asyncio.get_running_loop().time() < self._doubted_until:
            limit = min(limit, self._doubted)
        return max(0, limit)

    def reach(self, offset: int) -> int:
        """Up to where the bytes from `offset` on may be read by now, by who reads a range."""
        reach = self.limit
        if reach <= offset:
            for start, stop in self._given:
                if start <= offset < stop:
                    reach = stop
            for buffer in self._buffers:
                reach = max(reach, buffer.reach(offset))
        return reach

    def segment(self, offset: int) -> tuple[Segment, int | None]:
        """Where the byte at `offset` is, and up to where that file goes (None: to the end).
        What may be read in order is what will be proven: not what a range brought of the same."""
        if self._first is not None and offset < self._first.count:
            return Segment(0, self._first), self._first.count
        end = None if self.window is None else self.window.begin
        if self._file is None or offset >= self.limit or (end is not None and offset >= end):
            for buffer in (self.window, *self._buffers):  # the window's bytes are in order, too
                if buffer is not None and (found := buffer.find(offset)) is not None:
                    return found
        if self._file is None:
            raise Unavailable(f"{self.digest} has not begun to come")
        return self._file, end if end is not None and offset < end else None

    def leave(self, reader: FillReader) -> None:
        if reader in self.readers:
            self.readers.discard(reader)
            for buffer in self._buffers:
                buffer.forget(lambda run: bool(self._positions(run)))
            self.on_demand()
            self.changed()
            self._close_if_over()
            if not self.readers:
                self.on_left(self)

    # For those who write.

    @property
    def has_file(self) -> bool:
        return self._file is not None

    @property
    def file(self) -> OpenFile:
        """The growing file. Raises Unavailable where there is none."""
        if self._file is None:
            raise Unavailable(f"{self.digest} has not begun to come")
        return self._file.file

    def writes_to(self, file: OpenFile) -> None:
        """The growing file, which is the fill's to close from now on."""
        if self._file is None:
            self._file = Segment(0, file)
        else:  # the same file, whose writer has died: the readers keep what they have
            file.close()

    def spill(self, offset: int, hasher: Hasher) -> SpillBuffer:
        """From `offset` on, the bytes go through memory."""
        self.window = self.buffer(offset, hasher)
        return self.window

    def buffer(self, offset: int, hasher: Hasher) -> SpillBuffer:
        """Memory through which bytes go to the readers."""
        buffer = SpillBuffer(self.digest, offset, hasher, self._slowest)
        self._buffers.append(buffer)
        return buffer

    def begins(self, piece: bytes) -> None:
        """The first bytes of the blob have come, and are about to be written: who reads from there
        need not wait for that."""
        if not self.written:
            self._first = FirstBytes(bytes(piece[:FIRST]))
            self.changed()

    def progress(self, written: int) -> None:
        self.written, self._first = written, None
        self.changed()

    def give(self, start: int, stop: int) -> None:
        """These bytes, behind a gap, may be read unproven: whoever has sent them is not doubted."""
        self._given = with_span(self._given, start, stop)
        self.changed()

    def gives(self, spans: Sequence[tuple[int, int]]) -> None:
        """As `give`, for all that may be by now."""
        if spans and list(spans) != self._given:
            self._given = list(spans)
            self.changed()

    def doubt(self, start: int, seconds: float) -> None:
        """The bytes from `start` on are of somebody who is not trusted: they may be waited for
        so long, until they are proven."""
        if self._doubted is None:
            self._doubted_until = asyncio.get_running_loop().time() + seconds
        self._doubted = start if self._doubted is None else min(self._doubted, start)

    def prove(self, size: int) -> None:
        """Every byte is there, and proven: nobody who reads waits any more, whatever becomes of its
        place in the store."""
        self.size = self.written = size
        self.enter(FillState.PROVEN)
        self.changed()

    def fail(self, error: RegistryError, state: FillState = FillState.FAILED) -> None:
        """Nothing more will come, for this reason. What is proven is only not kept."""
        if self.is_proven:
            self.enter(FillState.UNCACHED)
            return
        self.error = error.bare()
        self.enter(state)

    def changed(self) -> None:
        """Wakes everybody who waits for this fill."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def next_change(self) -> None:
        change = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        try:
            await change
        except asyncio.CancelledError:  # a change may be long in coming, and be looked for often
            if change in self._waiting:
                self._waiting.remove(change)
            raise

    async def _slowest(self, run: Passing, least: int) -> int:
        while True:
            if not (positions := self._positions(run)):
                raise Unavailable("nobody reads any more, and there is no room to keep it")
            if min(positions) >= least:
                return min(positions)
            await self.next_change()

    def _positions(self, run: Passing) -> Sequence[int]:
        """Where the readers of these bytes are."""
        return [
            reader.position
            for reader in self.readers
            if not reader.is_ahead
            and run.lowest <= reader.position
            and (reader.position <= run.end + ROUND or reader.needs_whole)
            and run.begin < reader.stop
        ]

    def _close_if_over(self) -> None:
        if not self.is_over or self.readers:
            return
        if self._file is not None:
            self._file.file.close()
            self._file = None
        for buffer in self._buffers:
            buffer.close()
        self._buffers = []


class FillReader:
    """A FileContent over a fill, for who reads a part of it, or the whole.

    Who reads the whole is given the bytes from the beginning on, the last of them when they are
    proven. Who reads a part is given it as soon as it is there, also where bytes before it are
    missing: no digest proves a part, and whoever asks for one has to verify the whole. It is the
    Asker for its part.
    """

    deadline = inf
    """As Asker.deadline: the download has a patience of its own."""

    is_ahead = False
    """Whether no client reads by it."""

    def __init__(
        self,
        fill: Fill,
        outcome: Outcome,
        repository: Repository,
        part: ByteRange | None,
        client: str,
    ) -> None:
        self.client = client  # as Asker.client
        self.needs_whole = part is None  # also where the upstream sends no part that may be given
        self.start = part.start if part else 0
        self.stop = END if part is None or part.stop is None else part.stop
        self.position = self.start  # below it nothing is kept for this reader
        self.error: RegistryError | None = None  # there is no such part
        self.failures = 0  # connections in a row that brought nothing of its part
        self.not_before = 0.0  # when it is asked for again, in the event loop's time
        self._fill = fill
        self._outcome = outcome
        self._is_its_own = fill.repository == repository
        self._segment: Segment | None = None

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(OCTET_STREAM, self._fill.digest, self._fill.size)

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    @property
    def provenance(self) -> Provenance:
        return self._fill.provenance if self._is_its_own else Provenance.HERE

    @property
    def lacks(self) -> ByteRange | None:
        """What is to come yet of the part that it reads."""
        if self._fill.is_proven or self.error is not None:
            return None
        size = self._fill.size
        stop = self.stop if size is None else min(self.stop, size)
        start = max(self.position, self._fill.reach(self.position))
        return ByteRange(start, stop) if start < stop else None

    @property
    def is_wanted(self) -> bool:
        """As Asker.is_wanted."""
        return self.is_waiting

    @property
    def is_waiting(self) -> bool:
        """Whether more has to come for it."""
        if self.needs_whole:
            return not self._fill.is_proven
        return self.lacks is not None

    def take_whole(self) -> None:
        """From now on this reader waits for the whole: its part does not come on its own."""
        if not self.needs_whole:
            self.needs_whole = True
            self._fill.on_demand()

    def fails(self, error: RegistryError) -> None:
        """There is no such part."""
        self.error = error
        self._fill.changed()

    async def proven(self) -> None:
        self.take_whole()
        await self._fill.ended()

    def fileno(self) -> int:
        if self._segment is None:
            raise ValueError("ask what is readable first")
        return self._segment.file.fileno()

    def pread(self, count: int, offset: int) -> bytes:
        if self._segment is None:
            raise ValueError("ask what is readable first")
        return self._segment.file.pread(count, offset)

    def damaged(self, reason: str) -> None:
        log.error("growing_file_cannot_be_read", digest=str(self.descriptor.digest), reason=reason)

    async def readable(self, beyond: int) -> int:
        fill, self.position = self._fill, beyond
        if fill.window is not None:
            fill.changed()  # its writer may be waiting for this reader
        if not self.start <= beyond < self.stop:  # more than it has asked for
            self.take_whole()
        limit = await self._readable(beyond)
        if limit > beyond:
            self._segment, end = fill.segment(beyond)
            return limit if end is None else min(limit, end)
        return limit

    async def _readable(self, beyond: int) -> int:
        fill, is_part = self._fill, self.stop < END or self.start > 0
        while True:
            if fill.is_proven:
                return fill.written
            if self.error is not None:
                raise self.error.with_traceback(None)
            if fill.error is not None and fill.state is not FillState.PUT_OFF:
                raise fill.error.with_traceback(None)
            limit = fill.reach(beyond) if is_part else fill.limit
            if limit > beyond:
                return limit
            if is_part and fill.size is not None and beyond >= fill.size:
                return fill.size  # a part has an end without a proof
            if fill.error is not None:
                raise fill.error.with_traceback(None)
            await fill.next_change()

    def close(self) -> None:
        self._fill.leave(self)


class _AheadReader(FillReader):
    """See Fill.reader_ahead."""

    is_ahead = True

    @property
    def is_waiting(self) -> bool:
        return False


def _nothing() -> None:
    pass


def _ignored(fill: Fill) -> None:
    pass
