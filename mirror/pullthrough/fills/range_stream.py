"""A range far ahead of a fill, fetched on its own: its reader does not wait for gigabytes.

Nothing of it is kept, and no digest proves a part: it is the reader's to check the whole, as every
container client does. The fill goes on beside it.

A reader that keeps up is given what comes over one connection. One that is slow holds none while it
reads: it is given small pieces, each asked for when it wants it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from ...contracts.context import RequestContext
from ...contracts.registry import Outcome, Provenance
from ...contracts.upstream import StreamContent, Upstream
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import Denied, Unavailable
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from .spill import PassingFile, passing

log = structlog.get_logger()

# Bytes in memory: what is read before the client has taken what came before. Twice as much each
# time it is back for more in time, and the least again when it is not.
_LEAST = 256 << 10
_MOST = 2 << 20
_IN_TIME = 1.0  # seconds for which a connection is kept for it

_AT_ONCE = 128  # detours
_OF_CLIENT = 32  # containerd asks for a layer in many ranges
# No stream more is opened when fewer bytes than these came in so many seconds of waiting.
_PROGRESS = 64 << 10
_PATIENCE = 90.0  # in which an ask has to be answered, too
_PAUSE = 0.25  # seconds before the next one is, and twice that the next time


class RangeStreams:
    """Those of this process: a bounded number, of which one client has a share."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    async def open(
        self,
        context: RequestContext,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        start: int,
    ) -> RangeStream | None:
        """None when there are too many, or the upstream sends no part, or none that is vouched for:
        of others' bytes only the whole is proof. Raises RegistryError."""
        client = context.client
        if self._open.total() >= _AT_ONCE or self._open[client] >= _OF_CLIENT:
            log.info(
                "too_many_ranges_fetched_on_their_own",
                digest=str(digest),
                request_id=context.request_id,
            )
            return None
        self._open[client] += 1
        detour = None
        try:
            detour = await self._begin(context, upstream, repository, digest, start)
        finally:
            if detour is None:
                self._ended(client)
        return detour

    async def _begin(
        self,
        context: RequestContext,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        start: int,
    ) -> RangeStream | None:
        try:
            stream = await upstream.blob(
                context, repository, digest, ByteRange(start), vouched=True
            )
        except (Denied, Unavailable) as error:
            log.info(
                "range_not_fetched_on_its_own",
                digest=str(digest),
                reason=error.message,
                request_id=context.request_id,
            )
            return None
        if stream.start == start and stream.descriptor.size is not None:
            log.info(
                "range_fetched_on_its_own",
                digest=str(digest),
                start=start,
                request_id=context.request_id,
            )
            return RangeStream(
                context, upstream, repository, stream, lambda: self._ended(context.client)
            )
        await stream.close()
        return None

    def _ended(self, client: str) -> None:
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]


class RangeStream:
    """A FileContent for one reader, from an offset on. It reads on as its reader does."""

    def __init__(
        self,
        context: RequestContext,
        upstream: Upstream,
        repository: Repository,
        stream: StreamContent,
        ended: Callable[[], None],
    ) -> None:
        self._context = context
        self._upstream = upstream
        self._repository = repository
        self._stream: StreamContent | None = stream
        self._ended = ended
        self._descriptor = stream.descriptor
        self._size = stream.descriptor.size or 0
        self._position = stream.start
        self._stop = self._size  # of what the stream brings
        self._ahead = _LEAST
        self._waits: asyncio.TimerHandle | None = None  # for the reader to be back
        self._file: PassingFile | None = None
        self._came = 0  # bytes since the last progress
        self._waited = 0.0  # seconds, for these

    @property
    def descriptor(self) -> Descriptor:
        return self._descriptor

    @property
    def outcome(self) -> Outcome:
        return Outcome.FILLED

    @property
    def provenance(self) -> Provenance:
        return Provenance.VOUCHED

    async def proven(self) -> None:
        raise Unavailable("a part of a blob proves nothing")

    def fileno(self) -> int:
        if self._file is None:
            raise ValueError("ask what is readable first")
        return self._file.fileno()

    def pread(self, count: int, offset: int) -> bytes:
        if self._file is None:
            raise ValueError("ask what is readable first")
        return self._file.pread(count, offset)

    def damaged(self, reason: str) -> None:
        log.error("growing_file_cannot_be_read", digest=str(self.descriptor.digest), reason=reason)

    async def readable(self, beyond: int) -> int:
        if beyond == self._position and self._position != self._size:
            if self._waits is not None:
                self._waits.cancel()
                if self._stream is not None:
                    self._ahead = min(2 * self._ahead, _MOST)
            await self._read()
            self._waits = asyncio.get_running_loop().call_later(_IN_TIME, self._is_slow)
        return self._position

    def close(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
        if self._file is not None:
            self._file.close()
        self._leave_stream()
        self._ended()

    def _is_slow(self) -> None:
        self._ahead = _LEAST
        self._leave_stream()

    def _leave_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            # In the middle, as is readers' habit: nobody waits for the goodbye.
            closing = asyncio.ensure_future(stream.close())
            closing.add_done_callback(lambda done: done.exception())

    async def _read(self) -> None:
        """The next bytes, in a file of their own: the last ones have been sent by now."""
        file = passing(self._position)
        if self._file is not None:
            self._file.close()
        self._file = file
        end = self._position + self._ahead
        while self._position < min(end, self._size):
            piece = await self._piece()
            file.write(piece, self._position)
            self._position += len(piece)
            if len(piece) < _LEAST:  # what trickles is passed on as it comes
                break
            del piece  # as in Download._pump

    async def _piece(self) -> bytes:
        loop = asyncio.get_running_loop()
        began, pause = loop.time() - self._waited, _PAUSE
        while True:
            try:
                if self._stream is None or self._position == self._stop:
                    self._leave_stream()
                    async with asyncio.timeout_at(began + _PATIENCE):
                        self._stream = await self._again()
                if piece := await self._stream.read():
                    self._came += len(piece)
                    self._waited = loop.time() - began
                    if self._came >= _PROGRESS:
                        self._came, self._waited = 0, 0.0
                    return piece
                raise Unavailable("the upstream's body ended early")
            except TimeoutError:
                raise Unavailable("nothing more came of the range") from None
            except Unavailable:
                self._leave_stream()
                if loop.time() + pause - began > _PATIENCE:
                    raise
                await asyncio.sleep(pause)
                pause *= 2

    async def _again(self) -> StreamContent:
        """A slow reader's goes no further than it will read, so that nothing is sent in vain."""
        digest = self._descriptor.digest
        is_slow = self._ahead == _LEAST
        stop = min(self._position + self._ahead, self._size) if is_slow else None
        rest = ByteRange(self._position, stop)
        stream = await self._upstream.blob(
            self._context, self._repository, digest, rest, vouched=True
        )
        if stream.start != self._position or stream.descriptor.size != self._size:
            await stream.close()
            raise Unavailable("the upstream sends no parts any more")
        self._stop = stop or self._size
        return stream
