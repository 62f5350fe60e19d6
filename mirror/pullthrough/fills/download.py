"""One fill's way from the upstream to the disk: streams, resumed where they break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from ...asking.replicas import LONGEST, doubts
from ...clock import Clock
from ...contracts.content import Partial, StoreFull
from ...contracts.files import Hasher
from ...contracts.registry import Provenance
from ...contracts.upstream import StreamContent, Upstream
from ...oci.errors import (
    Denied,
    RangeInvalid,
    RateLimited,
    RegistryError,
    Unavailable,
    Unknown,
    Untrustworthy,
)
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from .fill import Fill
from .parallel import PROGRESS, ParallelDownload, ParallelPolicy
from .provenance import Sources
from .spill import SpillBuffer
from .write_behind import WriteBehind

log = structlog.get_logger()

_WORD = 5.0  # seconds that the registry has to say how long a blob is, which others bring meanwhile


@dataclass(frozen=True, slots=True)
class DownloadPatience:
    """How long a fill tries, in seconds, and how much it takes.

    `first_byte` bounds the time to the first progress (35 s of waiting for a blob's first byte was
    borne by every client measured): no try is begun beyond it, and one that is under way ends by
    itself. `stalled` bounds the time since the last progress after it, in which an ask has to be
    answered, too: two tries, of which each is silent for as long as a body may be. For `doubt`,
    bytes that nobody vouches for are given out only once they are proven: who has read wrong ones
    can often not be helped any more (containerd, podman); who waits can, by another endpoint.
    """

    first_byte: float = 30.0
    doubt: float = 20.0
    stalled: float = 90.0
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
        patience: DownloadPatience,
        spill: Callable[[Fill, int, Hasher], SpillBuffer],
        parting: ParallelPolicy,
    ) -> None:
        self.fill = fill
        self.partial = partial
        # What was here before is strangers' work: a power cut may have spoilt it, too.
        self.sources = Sources(strangers=partial.offset > 0)
        self.upstream = upstream
        self.repository = repository
        self.parting = parting
        self._spill = spill
        self._all_comes_now = False  # and none of it was kept before
        self._vouched = False  # whether the registry itself has said how long it is
        self._source = ""  # of the bytes that are written
        self._at = 0  # where in the content the next piece of it belongs
        self._clock = clock
        self._patience = patience
        self._came = 0  # bytes since the last progress
        self._progress_at: float | None = None  # since the first turn
        self._progressed = False

    async def commit(self) -> bool:
        """Makes the content visible; whether it is kept. Raises Untrustworthy."""
        try:
            await self.partial.commit()
        except OSError as error:
            if self.partial.hasher().hexdigest() != self.fill.digest.hex:
                raise
            # It is proven, and whoever reads it has it open; only its name finds no place.
            log.error("blob_not_stored", digest=str(self.fill.digest), reason=str(error))
            await self.partial.discard()
            return False
        return self.fill.window is None

    async def run(self) -> None:
        """Returns when every byte is there, not yet proven. Raises RegistryError, StoreFull.

        Broken off to give its turn to others, it may be called again: its patience goes on.
        """
        self._all_comes_now = self.partial.offset == 0 and not self.partial.ahead
        self.fill.progress(self.partial.offset)
        begun, lagging = self.partial.offset, doubts(self._patience.pause, LONGEST)
        pause = self._patience.pause
        if self._progress_at is None:
            self._progress_at = self._clock.monotonic()
        elif self._quiet_for() > self._patience.stalled:
            raise Unavailable(f"nothing came of it for {self._quiet_for():.0f} s")
        while True:
            before = self._progress_at
            try:
                if await self._stream():
                    return
                reason: RegistryError = Unavailable("the upstream's body ended early")
            except _TooLarge:
                await self.partial.discard()  # nobody will ever want to go on with it
                raise
            except Unknown as error:
                # Of what has just been coming, a replica that lags says nothing.
                if self.partial.offset == begun or next(lagging, None) is None:
                    raise
                reason = Unavailable(error.message).bare()
            except (Untrustworthy, Denied):
                raise
            except Unavailable as error:
                if self.fill.window is not None and not self.fill.is_read:
                    raise  # it is not kept, and nobody wants it any more
                reason = error.bare()
            if self._progress_at > before:
                pause = self._patience.pause
            asked = reason.retry_after or 0
            if not isinstance(reason, RateLimited):  # trouble is often over sooner than it says
                asked = min(asked, self._patience.longest_pause)
            wait = max(pause, asked)
            patience = self._patience.stalled if self._progressed else self.fill.first_byte
            if self._quiet_for() + wait > patience:
                raise reason
            log.info(
                "fill_goes_on_after_a_fault",
                digest=str(self.partial.digest),
                offset=self.partial.offset,
                reason=reason.message,
            )
            await asyncio.sleep(wait)
            pause = min(pause * 2, self._patience.longest_pause)

    def _quiet_for(self) -> float:
        """Seconds since the last progress."""
        now = self._clock.monotonic()
        return now - (now if self._progress_at is None else self._progress_at)

    async def _stream(self) -> bool:
        """Reads one stream as far as it goes; whether the content's end was reached."""
        offset = self.partial.offset
        try:
            stream = await self.ask(ByteRange(offset) if offset else None)
        except Untrustworthy:
            self.sources.strangers = True  # whoever it was is known already
            raise
        except RangeInvalid as error:
            # Every byte came before, only the proof did not: the mirror was stopped.
            if error.size == offset and self.fill.size in (None, offset):
                return True
            self.sources.strangers = True  # who says so may be the one that lies
            raise Untrustworthy(
                f"{offset} bytes are here, but the upstream has {error.size}"
            ) from error
        try:
            self.fill.goes_on_by_range = stream.start == offset
            await self._begin(stream)
            if self._may_be_parted(stream):
                try:
                    await ParallelDownload(self, stream).run()
                except (StoreFull, OSError) as error:
                    await self._without_room(error)  # the rest in order, over one connection
            else:
                await self._pump(stream, skip=offset - stream.start)
        finally:
            await stream.close()
        return self.fill.size is None or self.partial.offset == self.fill.size

    async def ask(self, part: ByteRange | None) -> StreamContent:
        """Asks the upstream, for as long as there is patience. Raises RegistryError."""
        left = self._patience.stalled - self._quiet_for() if self._progressed else None
        try:
            async with asyncio.timeout(left):
                return await self.upstream.blob(
                    self.fill, self.repository, self.partial.digest, part
                )
        except TimeoutError:
            raise Unavailable(f"nothing came of it for {self._quiet_for():.0f} s") from None

    def _may_be_parted(self, stream: StreamContent) -> bool:
        size, offset = self.fill.size, self.partial.offset
        if size is None or self.fill.window is not None or stream.start != offset:
            return False
        return bool(self.partial.ahead) or self.parting.may_part(size - offset)

    async def _begin(self, stream: StreamContent) -> None:
        self.uses(stream, stream.start)
        size = stream.descriptor.size
        if size is None:
            return
        self._refuse_larger(size)
        if self.fill.size not in (None, size):
            raise Untrustworthy(f"{stream.source} says {size} bytes, not {self.fill.size}")
        if self.partial.offset > size:
            raise Untrustworthy(f"{self.partial.offset} bytes are here, {stream.source} has {size}")
        self.fill.size = size
        while self.fill.window is None and self.partial.size != size:
            try:
                await self.partial.announce(size)
            except (StoreFull, OSError) as error:
                await self._without_room(error)

    def came(self, count: int) -> None:
        """So many bytes more were written."""
        self._came += count
        if self._came >= PROGRESS:
            self._came = 0
            self._progress_at, self._progressed = self._clock.monotonic(), True

    def uses(self, stream: StreamContent, at: int) -> None:
        """Bytes of this stream, as its source is now, are going to be part of the whole, from the
        offset `at` on."""
        self.sources.add(stream)
        self._vouched = self._vouched or stream.vouched
        self.partial.trusted = self._vouched
        # Only the registry itself says by delivering it that the repository has it: of whatever is
        # asked for by its digest, any other endpoint can say that, and send anything.
        if stream.vouched:
            self.fill.provenance = Provenance.VOUCHED
            return
        self.fill.doubt(at, self._patience.doubt)
        self._all_comes_now = self._all_comes_now and not stream.kept
        if self.fill.provenance is not Provenance.VOUCHED:
            self.fill.provenance = Provenance.BROUGHT if self._all_comes_now else Provenance.HERE

    def _refuse_larger(self, size: int) -> None:
        if size > self._patience.largest:
            raise _TooLarge(
                f"the blob has more than {self._patience.largest} bytes, which is more than this "
                "mirror takes"
            )

    async def _pump(self, stream: StreamContent, skip: int) -> None:
        """Carries bytes from the stream to the file."""
        self._at = coming = self.partial.offset
        self._source = stream.source
        writer = WriteBehind(self._take)
        try:
            while piece := await stream.read():
                if stream.source != self._source:  # which fell silent
                    await writer.flush()
                    self.uses(stream, coming)
                    self._source, writer = stream.source, WriteBehind(self._take)
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
                del piece  # its memory is used again, and the next one may be long in coming
        finally:
            # What has come is worth keeping, also when the stream breaks or the mirror stops.
            await writer.flush()

    async def _take(self, pieces: Sequence[bytes]) -> None:
        """Writes these pieces, and tells the readers. What parts of an earlier try have brought
        is passed over."""
        passed, self._at = self.partial.offset - self._at, self._at + sum(map(len, pieces))
        pieces = _behind(pieces, passed)
        while self.fill.window is None:
            before = self.partial.offset
            try:
                await self._append(pieces)
                return
            except (StoreFull, OSError) as error:
                pieces = _behind(pieces, self.partial.offset - before)
                await self._without_room(error)
        for piece in pieces:  # one by one: the next may have to wait until this one was read
            await self._append([piece])

    async def _append(self, pieces: Sequence[bytes]) -> None:
        at, count = self.partial.offset, sum(map(len, pieces))
        await self.partial.append(pieces)
        self.sources.brought(self._source, at, at + count)
        self.came(count)
        self.fill.progress(self.partial.offset)

    async def _without_room(self, error: StoreFull | OSError) -> None:
        """Goes on where the disk has taken no more: there is room for more where the registry says
        that the blob is so long; else what comes passes through."""
        if isinstance(error, StoreFull) and not self._vouched and await self._is_of_its_size():
            self.partial.trusted = self._vouched = True
        else:
            await self._pass_through(error)

    async def _is_of_its_size(self) -> bool:
        """Whether the registry itself says that the blob is as long as another endpoint says.
        Raises Untrustworthy where it says another size."""
        try:
            async with asyncio.timeout(_WORD):
                found = await self.upstream.stat(self.fill, self.repository, self.partial.digest)
        except (RegistryError, TimeoutError):
            return False
        if found.size is not None and self.fill.size not in (None, found.size):
            raise Untrustworthy(f"{self.fill.size} bytes, where the registry has {found.size}")
        return found.size == self.fill.size

    async def _pass_through(self, error: Exception) -> None:
        """The disk takes no more: what comes from now on goes to those who read, and is not kept.
        Nothing half-written stays."""
        log.error(
            "blob_not_stored",
            digest=str(self.partial.digest),
            reason=str(error),
            offset=self.partial.offset,
        )
        stored = self.partial
        self.partial = self._spill(self.fill, stored.offset, stored.hasher())
        await asyncio.shield(stored.discard())  # also when this fill has to give its turn


def _behind(pieces: Sequence[bytes], done: int) -> list[bytes]:
    """The pieces without their first `done` bytes."""
    rest = []
    for piece in pieces:
        passed = min(done, len(piece))
        done -= passed
        if passed < len(piece):
            rest.append(piece[passed:])
    return rest
