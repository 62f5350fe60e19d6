"""One fill's way from the upstream to the disk: streams, resumed where they break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from ..interfaces import Clock, Hasher, Partial, StoreFull, StreamContent, Upstream
from ..oci.errors import Denied, RangeInvalid, RegistryError, Unavailable, Unknown, Untrustworthy
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from .fill import Fill
from .window import Window

log = structlog.get_logger()

# Bytes of one stream that count as progress: who sends less and breaks, again and again, is given
# up in the end.
_PROGRESS = 64 << 10

# Bytes that are gathered while the disk is busy with what came before: a fill's memory is bounded
# by twice this.
BATCH = 4 << 20


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a fill tries, in seconds, and how much it takes.

    `first_byte` bounds the time to the first progress (35 s of waiting for a blob's first byte was
    borne by every client measured), `stalled` the time without progress after it.
    """

    first_byte: float = 30.0
    stalled: float = 120.0
    pause: float = 0.25
    longest_pause: float = 5.0
    largest: int = 1 << 40  # bytes: a larger blob is refused


class _TooLarge(Denied):
    """The blob has more bytes than this mirror takes."""


class Download:
    """Brings a partial to its end: resumes where a stream breaks, within its patience."""

    def __init__(
        self,
        fill: Fill,
        partial: Partial,
        upstream: Upstream,
        repository: Repository,
        clock: Clock,
        patience: Patience,
        spill: Callable[[Fill, int, Hasher], Window],
    ) -> None:
        self.fill = fill
        self.partial = partial
        self.names: set[str] = set()
        self._spill = spill
        self._upstream = upstream
        self._repository = repository
        self._clock = clock
        self._patience = patience
        self._resumed = partial.offset > 0
        self._rejects: list[Callable[[str], None]] = []

    def reject(self, reason: str) -> None:
        """Tells every source of these bytes that the whole was wrong.

        Not when some were here before: a power cut may have spoilt those, and nobody knows.
        """
        if not self._resumed:
            for reject in self._rejects:
                reject(reason)

    async def commit(self) -> bool:
        """Makes the content visible; whether it is kept. Raises Untrustworthy."""
        try:
            await self.partial.commit()
        except OSError as error:
            if self.partial.hasher().hexdigest() != self.fill.digest.hex:
                raise
            # It is proven, and whoever reads it has it open; only its name finds no place.
            log.error("blob not stored", digest=str(self.fill.digest), reason=str(error))
            await self.partial.discard()
            return False
        return self.fill.window is None

    async def run(self) -> None:
        """Returns when every byte is there, not yet proven. Raises RegistryError, StoreFull."""
        self.fill.progress(self.partial.offset)
        pause = self._patience.pause
        progress_at = self._clock.monotonic()
        patience = self._patience.first_byte
        while True:
            before = self.partial.offset
            try:
                if await self._stream():
                    return
                reason: RegistryError = Unavailable("the upstream's body ended early")
            except _TooLarge:
                await self.partial.discard()  # nobody will ever want to go on with it
                raise
            except (Unknown, Untrustworthy, Denied):
                raise
            except Unavailable as error:
                reason = error
            now = self._clock.monotonic()
            if self.partial.offset - before >= _PROGRESS:
                progress_at, pause = now, self._patience.pause
                patience = self._patience.stalled
            wait = max(pause, min(reason.retry_after or 0, self._patience.longest_pause))
            if now + wait - progress_at > patience:
                raise reason
            log.info(
                "fill goes on after a fault",
                digest=str(self.partial.digest),
                offset=self.partial.offset,
                reason=reason.message,
            )
            await asyncio.sleep(wait)
            pause = min(pause * 2, self._patience.longest_pause)

    async def _stream(self) -> bool:
        """Reads one stream as far as it goes; whether the content's end was reached."""
        offset = self.partial.offset
        try:
            stream = await self._upstream.blob(
                self._repository, self.partial.digest, ByteRange(offset) if offset else None
            )
        except RangeInvalid as error:
            # Every byte came before, only the proof did not: the mirror was stopped.
            if error.size == offset and self.fill.size in (None, offset):
                return True
            raise Untrustworthy(
                f"{offset} bytes are here, but the upstream has {error.size}"
            ) from error
        try:
            await self._begin(stream)
            await self._pump(stream, skip=offset - stream.start)
        finally:
            await stream.close()
        return self.fill.size is None or self.partial.offset == self.fill.size

    async def _begin(self, stream: StreamContent) -> None:
        self.names.add(stream.source)
        self._rejects.append(stream.reject)
        size = stream.descriptor.size
        if size is None:
            return
        self._refuse_larger(size)
        if self.fill.size is None:
            self.fill.size = size
            try:
                await self.partial.announce(size)
            except StoreFull as error:
                await self._pass_through(error)
        elif self.fill.size != size:
            raise Untrustworthy(f"{stream.source} says {size} bytes, not {self.fill.size}")
        if self.partial.offset > size:
            raise Untrustworthy(f"{self.partial.offset} bytes are here, {stream.source} has {size}")

    def _refuse_larger(self, size: int) -> None:
        if size > self._patience.largest:
            raise _TooLarge(
                f"the blob has more than {self._patience.largest} bytes, which is more than this "
                "mirror takes"
            )

    async def _pump(self, stream: StreamContent, skip: int) -> None:
        """Carries bytes from the stream to the file."""
        coming = self.partial.offset
        writer = WriteBehind(self._take)
        try:
            while piece := await stream.read():
                if skip:  # the upstream ignored the range: what is here already is passed over
                    passed = min(skip, len(piece))
                    skip -= passed
                    piece = piece[passed:]
                coming += len(piece)
                self._refuse_larger(coming)
                if self.fill.size is not None and coming > self.fill.size:
                    raise Untrustworthy(
                        f"{stream.source} sent more than the {self.fill.size} bytes it announced"
                    )
                await writer.put(piece)
        finally:
            # What has come is worth keeping, also when the stream breaks or the mirror stops.
            await writer.flush()

    async def _take(self, pieces: Sequence[bytes]) -> None:
        """Writes these pieces, and tells the readers."""
        if self.fill.window is None:
            before = self.partial.offset
            try:
                await self.partial.append(pieces)
            except (StoreFull, OSError) as error:
                pieces = _behind(pieces, self.partial.offset - before)
                await self._pass_through(error)
            else:
                self.fill.progress(self.partial.offset)
                return
        for piece in pieces:  # one by one: the next may have to wait until this one was read
            await self.partial.append([piece])
            self.fill.progress(self.partial.offset)

    async def _pass_through(self, error: Exception) -> None:
        """The disk takes no more: what comes from now on goes to those who read, and is not kept.
        Nothing half-written stays."""
        log.error(
            "blob not stored",
            digest=str(self.partial.digest),
            reason=str(error),
            offset=self.partial.offset,
        )
        stored = self.partial
        self.partial = self._spill(self.fill, stored.offset, stored.hasher())
        await stored.discard()


class WriteBehind:
    """Writes pieces while the next ones are read: at once when the disk is idle, else gathered, up
    to BATCH bytes, until it is."""

    def __init__(self, write: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        self._write = write
        self._gathered: list[bytes] = []
        self._waiting = 0  # bytes in `_gathered`
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None

    async def put(self, piece: bytes) -> None:
        """Takes a piece; waits while too much is gathered. Raises what writing raised before."""
        await self._room.wait()
        if self._task is not None and self._task.done():
            self._task.result()
        self._gathered.append(piece)
        self._waiting += len(piece)
        if self._task is None:
            self._task = asyncio.create_task(self._write_all())
        if self._waiting >= BATCH:
            self._room.clear()

    async def flush(self) -> None:
        """Returns when everything is written, even if the caller is being cancelled."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _write_all(self) -> None:
        try:
            while self._gathered:
                batch, self._gathered, self._waiting = self._gathered, [], 0
                self._room.set()
                await self._write(batch)
            self._task = None
        finally:
            self._room.set()


def _behind(pieces: Sequence[bytes], done: int) -> list[bytes]:
    """The pieces without their first `done` bytes."""
    rest = []
    for piece in pieces:
        passed = min(done, len(piece))
        done -= passed
        if passed < len(piece):
            rest.append(piece[passed:])
    return rest
