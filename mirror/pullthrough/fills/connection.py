"""One connection of a download: one stream of the upstream, carried to the sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ...contracts.context import Asker
from ...contracts.upstream import StreamContent, Upstream
from ...oci.errors import RangeInvalid, RegistryError, Unavailable, Untrustworthy
from ...oci.ranges import ByteRange
from .fill import FillReader
from .gaps import END, NEAR, Gaps, Span
from .sink import Sink
from .write_behind import WriteBehind

_FULL = 768 << 10  # bytes of a piece: more was there already (see StreamContent.read)
_LATER = 0.1  # seconds for which a part is gathered: what is ahead nobody waits for


class Connection:
    """Brings a span. `part` not None: the first that brings the whole; it goes on behind its span,
    so many bytes at a time, as long as nobody else brings or has brought them. `reader`: who waits
    for just this span."""

    task: asyncio.Task[None]

    def __init__(
        self, sink: Sink, gaps: Gaps, span: Span, part: int | None, reader: FillReader | None
    ) -> None:
        self.span = span
        self.reader = reader
        self.client = None if reader is None else reader.client
        self.brought = 0  # bytes
        self.written = span.start  # up to where its bytes are written
        self.lost = END  # from here on, what it brought was not written
        self.is_open = False
        self.is_stopped = False
        self._error: RegistryError | None = None
        self._sink = sink
        self._gaps = gaps
        self._part = part

    @property
    def goes_on(self) -> bool:
        return self._part is not None

    @property
    def in_hand(self) -> int:
        """Bytes that have come and are not written yet."""
        return max(0, self.span.start - self.written) if self.brought else 0

    def begin(
        self,
        upstream: Upstream,
        opened: Callable[[Connection], None],
        ends: Callable[[], None],
    ) -> None:
        """`opened` is called when its stream is open, and when its first bytes have come; `ends`
        when it has ended."""
        self._upstream = upstream
        self._opened = opened
        self.task = asyncio.create_task(self._bring())
        self.task.add_done_callback(lambda _: ends())

    def stop(self) -> None:
        self.is_stopped = True
        self.task.cancel()

    def error(self) -> RegistryError | None:
        """Why it has ended before its time; None: it has not. Raises what is no RegistryError."""
        fault = None if self.task.cancelled() else self.task.exception()
        if self.is_stopped:
            return None
        if fault is not None:
            raise fault
        return self._error

    async def _bring(self) -> None:
        try:
            await self._bring_span()
        except RegistryError as error:  # without its frames, which know the stream and its memory
            self._error = error.bare()

    async def _bring_span(self) -> None:
        if not self.goes_on and self.span.start >= self.span.stop:
            return  # the blob ends before it, as has become known since it was taken
        stream = await self._stream()
        if stream is None:
            return
        try:
            await self._check(stream)
            self.is_open = True
            self._opened(self)
            await self._carry(stream)
        finally:
            await stream.close()

    async def _stream(self) -> StreamContent | None:
        """None: all the bytes are here, only the proof is not."""
        sink, span = self._sink, self.span
        try:
            return await self._ask()
        except Untrustworthy:
            sink.sources.strangers = True  # whoever it was is known already
            raise
        except RangeInvalid as error:
            if self.reader is not None:
                raise
            # Every byte came before, only the proof did not: the mirror was stopped.
            if error.size == span.start and sink.fill.size in (None, span.start):
                self._gaps.cut(span.start)
                return None
            sink.sources.strangers = True  # who says so may be the one that lies
            raise Untrustworthy(
                f"{span.start} bytes are here, but the upstream has {error.size}"
            ) from error

    async def _ask(self) -> StreamContent:
        """Asks the upstream, for as long as there is patience. Raises RegistryError."""
        fill, sink = self._sink.fill, self._sink
        asker: Asker = fill if self.reader is None else self.reader
        patience = sink.patience
        left: float | None = patience.policy.stalled
        if patience.has_progressed:
            left = patience.policy.stalled - patience.quiet_for()
        elif self.reader is None:
            left = None
        try:
            async with asyncio.timeout(left):
                return await self._upstream.blob(
                    asker,
                    fill.repository,
                    fill.digest,
                    self._asked,
                    vouched=self.reader is not None,
                )
        except TimeoutError:
            raise Unavailable(f"nothing came of it for {patience.quiet_for():.0f} s") from None

    @property
    def _asked(self) -> ByteRange | None:
        start, stop = self.span.start, self.span.stop
        if self.goes_on or (self.reader is not None and stop == self._gaps.stop):
            return ByteRange(start) if start else None
        return ByteRange(start, stop)

    async def _check(self, stream: StreamContent) -> None:
        """Raises Untrustworthy where the stream is of no use here."""
        sink, start = self._sink, self.span.start
        if self.goes_on:
            sink.fill.goes_on_by_range = stream.start == start
        elif stream.start != start:
            raise Untrustworthy(f"{stream.source} sends no parts")
        elif stream.descriptor.size is None:
            raise Untrustworthy(f"{stream.source} does not say how long the blob is")
        await sink.announced(stream, start)
        if stream.descriptor.size not in (None, self._gaps.stop):
            self._gaps.cut(stream.descriptor.size)

    async def _carry(self, stream: StreamContent) -> None:
        """Carries bytes from the stream to the sink. Raises RegistryError."""
        span, at = self.span, stream.start
        over = NEAR if at == span.start else END  # what is here is passed over, wherever it is
        source, writer = stream.source, self._writer(stream)
        next_at = span.start  # where the writer goes on
        try:
            while span.start < span.stop or self._extends(over):
                piece = await stream.read()
                if not piece:
                    self._ends(stream, at)
                    return
                if stream.source != source:  # which fell silent
                    await writer.flush()
                    self._sink.uses(stream, span.start)
                    source, writer, next_at = stream.source, self._writer(stream), span.start
                self._sink.waited += len(piece) if len(piece) >= _FULL else 0
                while piece:
                    if at < span.start:
                        passed = min(span.start - at, len(piece))
                        at, piece = at + passed, piece[passed:]
                        continue
                    if span.start == span.stop:
                        if not self._extends(over):
                            break
                        continue
                    if next_at != at:  # something between was here
                        await writer.flush()
                        writer, next_at = self._writer(stream), at
                    taken = piece[: span.stop - at]
                    piece = piece[len(taken) :]
                    at += len(taken)
                    span.start = next_at = at
                    if not self.brought:
                        self.brought = len(taken)
                        self._opened(self)
                    else:
                        self.brought += len(taken)
                    self._sink.refuse_larger(at)
                    # What passes through memory may come twice, of different sources.
                    if at == len(taken) and not self._sink.is_passing:
                        self._sink.fill.begins(taken)
                    await writer.put(taken)
                    del taken
                if piece and at == self._gaps.stop:
                    raise Untrustworthy(f"{source} sent more than the {at} bytes it announced")
                del piece  # its memory is used again, and the next one may be long in coming
            await self._see_end(stream, at)
        finally:
            # What has come is worth keeping, also when the stream breaks or the mirror stops.
            await writer.flush()

    def _extends(self, over: int) -> bool:
        """Whether it goes on with the next part."""
        return self._part is not None and self._gaps.extend(self.span, self._part, over)

    def _ends(self, stream: StreamContent, at: int) -> None:
        """The stream has come to its end before its span has."""
        if self._sink.fill.size is None and self.goes_on and at >= self.span.start:
            self._gaps.cut(at)
            return
        raise Unavailable(f"the upstream's body ended early: {stream.source} sent {at} bytes")

    async def _see_end(self, stream: StreamContent, at: int) -> None:
        """A body that goes to the end of the blob is read to its own: only then its connection
        serves the next. Raises Untrustworthy where there is more."""
        if at != self._gaps.stop or not self.goes_on:
            return
        try:
            piece = await stream.read()
        except Unavailable:
            return  # all is here
        if piece:
            raise Untrustworthy(f"{stream.source} sent more than the {at} bytes it announced")

    def _writer(self, stream: StreamContent) -> WriteBehind:
        """Writes what this stream's source brings, from the span's start on."""
        sink, source, doubted = self._sink, stream.source, stream.doubted
        at = self.written = self.span.start

        async def write(pieces: Sequence[bytes]) -> None:
            nonlocal at
            start, at = at, at + sum(map(len, pieces))
            try:
                await sink.take(start, pieces, source, doubted)
            except BaseException:
                self.lost = min(self.lost, start)
                raise
            self.written = at

        if self.goes_on or self.reader is not None:
            return WriteBehind(write)
        return WriteBehind(write, at_once=0, later=_LATER)
