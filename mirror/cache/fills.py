"""Fills: one download a digest, however many ask, read by everybody while it grows.

A fill belongs to the mirror, not to the request that began it: it goes on when its clients leave.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ..interfaces import (
    Clock,
    ContentStore,
    Meter,
    Outcome,
    Partial,
    StoreFull,
    StreamContent,
    Upstream,
)
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.errors import RangeInvalid, RegistryError, Unavailable, Unknown, Untrustworthy
from ..oci.ranges import ByteRange
from ..oci.reference import Repository

log = structlog.get_logger()

# The last piece of a blob is held back until the digest is proven: no client can hold a whole
# wrong blob which it believes complete.
HELD_BACK = 64 << 10

# A blob below this is given out only once it is proven: it costs no time worth naming, and saves
# the clients that never ask again after wrong bytes (containerd, podman).
SMALL = 1 << 20

# Bytes that are gathered while the disk is busy with what came before: a fill's memory is bounded
# by twice this.
BATCH = 4 << 20


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a fill tries. In seconds.

    `first_byte` bounds the time to the first progress (35 s of waiting for a blob's first byte was
    borne by every client measured), `stalled` the time without progress after it.
    """

    first_byte: float = 30.0
    stalled: float = 120.0
    pause: float = 0.25
    longest_pause: float = 5.0


class Fill:
    """One blob on its way from the upstream to the disk, and to all who read it meanwhile."""

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self.size: int | None = None
        self.partial: Partial | None = None
        self.proven = False
        self.error: RegistryError | None = None
        self._written = 0
        self._change: asyncio.Future[None] | None = None

    @property
    def limit(self) -> int:
        """Up to where the bytes may be read by now."""
        if self.proven:
            return self._written
        if self.size is None:
            return max(0, self._written - HELD_BACK) if self._written > SMALL else 0
        if self.size < SMALL:
            return 0
        return max(0, min(self._written, self.size - HELD_BACK))

    def progress(self, written: int) -> None:
        self._written = written
        self.changed()

    def finish(self, size: int) -> None:
        """Every byte is there, and proven."""
        self.size, self.proven = size, True
        self.progress(size)

    def changed(self) -> None:
        """Wakes everybody who waits for this fill."""
        if self._change is not None:
            self._change.set_result(None)
            self._change = None

    async def readable(self, beyond: int) -> int:
        """As FileContent.readable."""
        while True:
            if self.error is not None:
                raise self.error.with_traceback(None)
            limit = self.limit
            if limit > beyond or self.proven:
                return limit
            if self._change is None:
                self._change = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._change)

    def open(self, outcome: Outcome) -> FillReader:
        """A reader of its own; only when `readable` has returned."""
        if self.partial is None:
            raise Unavailable(f"{self.digest} has not begun to come")
        return FillReader(self, self.partial.open(), outcome)


class FillReader:
    """A FileContent over a fill's growing file."""

    def __init__(self, fill: Fill, fd: int, outcome: Outcome) -> None:
        self._fill = fill
        self._fd = fd
        self._outcome = outcome

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(OCTET_STREAM, self._fill.digest, self._fill.size)

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    def fileno(self) -> int:
        return self._fd

    async def readable(self, beyond: int) -> int:
        return await self._fill.readable(beyond)

    def close(self) -> None:
        os.close(self._fd)


class Fills:
    """The one table of the fills of this process."""

    def __init__(
        self,
        store: ContentStore,
        meter: Meter,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._store = store
        self._meter = meter
        self._clock = clock or Clock()
        self._patience = patience or Patience()
        self._running: dict[Digest, tuple[Fill, asyncio.Task[None]]] = {}

    def running(self, digest: Digest) -> Fill | None:
        """The fill of this digest, if there is one."""
        found = self._running.get(digest)
        return found[0] if found else None

    def join(
        self, digest: Digest, upstream: Upstream, repository: Repository
    ) -> tuple[Fill, Outcome]:
        """The running fill of this digest, or a new one from this upstream."""
        if fill := self.running(digest):
            return fill, Outcome.JOINED
        fill = Fill(digest)
        task = asyncio.create_task(self._run(fill, upstream, repository), name=f"fill {digest}")
        self._running[digest] = fill, task
        task.add_done_callback(lambda _: self._running.pop(digest))
        return fill, Outcome.FILLED

    async def close(self) -> None:
        """Stops all fills; what they have written stays, to be resumed."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, fill: Fill, upstream: Upstream, repository: Repository) -> None:
        self._meter.fill_started()
        result = "failed"
        try:
            partial = await self._store.partial(fill.digest)
            if partial is None:
                raise Unavailable(f"{fill.digest} is being written by another process")
            fill.partial = partial
            download = Download(fill, partial, upstream, repository, self._clock, self._patience)
            try:
                await download.run()
                await partial.commit()
            except Untrustworthy as error:
                download.reject(error.message)
                await partial.discard()
                raise
            finally:
                await partial.suspend()
            result = "committed"
            fill.finish(partial.offset)
            log.info(
                "filled", digest=str(fill.digest), size=fill.size, sources=sorted(download.names)
            )
        except Untrustworthy as error:
            result, fill.error = "rejected", error
        except RegistryError as error:
            fill.error = error
        except asyncio.CancelledError:
            result = "suspended"
            fill.error = Unavailable("the mirror is stopping", retry_after=5)
            raise
        except (StoreFull, OSError) as error:
            log.error("fill failed on this side", digest=str(fill.digest), reason=repr(error))
            fill.error = Unavailable("the mirror cannot store this blob", retry_after=30)
        except Exception as error:
            log.exception("fill failed", digest=str(fill.digest))
            fill.error = Unavailable(f"the mirror failed: {type(error).__name__}", retry_after=30)
        finally:
            self._meter.fill_ended(result)
            fill.changed()


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
    ) -> None:
        self.fill = fill
        self.partial = partial
        self.names: set[str] = set()
        self._upstream = upstream
        self._repository = repository
        self._clock = clock
        self._patience = patience
        self._rejects: list[Callable[[str], None]] = []

    def reject(self, reason: str) -> None:
        """Tells every source of these bytes that the whole was wrong."""
        for reject in self._rejects:
            reject(reason)

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
            except (Unknown, Untrustworthy):
                raise
            except Unavailable as error:
                reason = error
            now = self._clock.monotonic()
            if self.partial.offset > before:
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
        if self.fill.size is None:
            await self.partial.reserve(size)
            self.fill.size = size
        elif self.fill.size != size:
            raise Untrustworthy(f"{stream.source} says {size} bytes, not {self.fill.size}")
        if self.partial.offset > size:
            raise Untrustworthy(f"{self.partial.offset} bytes are here, {stream.source} has {size}")

    async def _pump(self, stream: StreamContent, skip: int) -> None:
        """Carries bytes from the stream to the file."""
        coming = self.partial.offset
        writer = WriteBehind(self.partial, self.fill.progress)
        try:
            while piece := await stream.read():
                if skip:  # the upstream ignored the range: what is here already is passed over
                    passed = min(skip, len(piece))
                    skip -= passed
                    piece = piece[passed:]
                coming += len(piece)
                if self.fill.size is not None and coming > self.fill.size:
                    raise Untrustworthy(
                        f"{stream.source} sent more than the {self.fill.size} bytes it announced"
                    )
                await writer.put(piece)
        finally:
            # What has come is worth keeping, also when the stream breaks or the mirror stops.
            await writer.flush()


class WriteBehind:
    """Writes pieces to a partial while the next ones are read: at once when the disk is idle, else
    gathered, up to BATCH bytes, until it is."""

    def __init__(self, partial: Partial, progress: Callable[[int], None]) -> None:
        self._partial = partial
        self._progress = progress
        self._gathered: list[bytes] = []
        self._waiting = 0  # bytes in `_gathered`
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None

    async def put(self, piece: bytes) -> None:
        """Takes a piece; waits while too much is gathered. Raises what writing raised before."""
        await self._room.wait()
        self._gathered.append(piece)
        self._waiting += len(piece)
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        elif self._task.done():
            self._task.result()
        if self._waiting >= BATCH:
            self._room.clear()

    async def flush(self) -> None:
        """Returns when everything is written, even if the caller is being cancelled."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _write(self) -> None:
        try:
            while self._gathered:
                batch, self._gathered, self._waiting = self._gathered, [], 0
                self._room.set()
                self._progress(await self._partial.append(batch))
            self._task = None
        finally:
            self._room.set()
