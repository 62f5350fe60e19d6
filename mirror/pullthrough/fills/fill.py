"""One fill as its readers see it: a growing file, or what is left of it in memory."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from math import inf

import structlog

from ...contracts.files import Hasher, OpenFile
from ...contracts.registry import Outcome, Provenance
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable
from ...oci.reference import Repository
from .spill import Segment, SpillBuffer

log = structlog.get_logger()

# The last piece of a blob is held back until the digest is proven: no client can hold a whole
# wrong blob which it believes complete.
HELD_BACK = 64 << 10

# A blob below this is given out only once it is proven: it costs no time worth naming, and saves
# the clients that never ask again after wrong bytes (containerd, podman).
SMALL = 1 << 20


@dataclass(frozen=True, slots=True)
class Soon:
    """When a fill is said to reach a byte soon: in `within` seconds, at the speed that it showed
    over `measure` seconds."""

    within: float = 5.0
    measure: float = 0.5


class Fill:
    """One blob on its way from the upstream to the disk, and to all who read it meanwhile.

    It is the Asker of what it asks of the upstream: wanted as long as somebody reads it.

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
        self.size: int | None = None
        self.proven = False
        self.error: RegistryError | None = None
        self.window: SpillBuffer | None = None
        self.written = 0  # bytes that have come, proven or not
        self.goes_on_by_range = True  # False: whoever goes on with it has to begin anew
        self.vain_turns = 0  # places that it had and gave back before anything came
        self._file: Segment | None = None
        self._readers: set[FillReader] = set()
        self._running = True
        self._change: asyncio.Future[None] | None = None
        self._doubted: int | None = None  # from here on, bytes are not given out unproven,
        self._doubted_until = 0.0  # as long as that is not waited for too long

    # For those who read.

    def reader(self, outcome: Outcome, repository: Repository, start: int = 0) -> FillReader:
        """A reader of what is from `start` on, who asked through this repository. Close it."""
        reader = FillReader(self, outcome, repository, start)
        self._readers.add(reader)
        return reader

    async def readable(self, beyond: int) -> int:
        """As FileContent.readable."""
        while True:
            if self.error is not None:
                raise self.error.with_traceback(None)
            limit = self.limit
            if limit > beyond or self.proven:
                return limit
            await self._next_change()

    async def reaches(self, offset: int, soon: Soon) -> bool:
        """Whether the byte at `offset` may be read, now or soon: waits for it if so."""
        loop = asyncio.get_running_loop()
        began, written = loop.time(), self.written
        while True:
            if self.error is not None:
                raise self.error.with_traceback(None)
            if self.limit > offset or self.proven:
                return True
            elapsed = loop.time() - began
            if elapsed >= soon.measure:
                speed = (self.written - written) / elapsed
                if (offset - self.written) > speed * soon.within:
                    return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(soon.measure):
                    await self._next_change()

    async def ended(self) -> None:
        """Returns when nothing more will come. Raises RegistryError when the fill has failed."""
        while self._running:
            await self._next_change()
        if self.error is not None:
            raise self.error.with_traceback(None)

    @property
    def is_read(self) -> bool:
        return bool(self._readers)

    @property
    def is_wanted(self) -> bool:
        """As Asker.is_wanted."""
        return self.is_read

    deadline = inf
    """As Asker.deadline: those who wait have theirs, and the download has a patience of its own."""

    @property
    def is_asked_for(self) -> bool:
        """Whether anybody waits for it, or did; if not, it is fetched ahead of them all."""
        return self.first_byte > 0

    @property
    def limit(self) -> int:
        """Up to where the bytes may be read by now."""
        if self.proven:
            return self.written
        if self.size is None:
            limit = self.written - HELD_BACK if self.written > SMALL else 0
        else:
            limit = min(self.written, self.size - HELD_BACK) if self.size >= SMALL else 0
        if self._doubted is not None and asyncio.get_running_loop().time() < self._doubted_until:
            limit = min(limit, self._doubted)
        return max(0, limit)

    def segment(self, offset: int) -> tuple[Segment, int | None]:
        """Where the byte at `offset` is, and up to where that file goes (None: to the end)."""
        files = [self._file] if self._file else []
        files += self.window.segments if self.window else []
        for file, following in zip(files, [*files[1:], None], strict=True):
            if following is None or offset < following.start:
                return file, following.start if following else None
        raise Unavailable(f"{self.digest} has not begun to come")

    def leave(self, reader: FillReader) -> None:
        self._readers.discard(reader)
        self.changed()
        self._close_if_over()

    # For those who write.

    @property
    def has_file(self) -> bool:
        return self._file is not None

    def writes_to(self, file: OpenFile) -> None:
        """The growing file, which is the fill's to close from now on."""
        if self._file is None:
            self._file = Segment(0, file)
        else:  # the same file, whose writer has died: the readers keep what they have
            file.close()

    def spill(self, offset: int, hasher: Hasher) -> SpillBuffer:
        """From `offset` on, the bytes go through memory."""
        self.window = SpillBuffer(self.digest, offset, hasher, self._slowest)
        return self.window

    def progress(self, written: int) -> None:
        self.written = written
        self.changed()

    def doubt(self, start: int, seconds: float) -> None:
        """The bytes from `start` on are of somebody who is not trusted: they may be waited for
        so long, until they are proven."""
        if self._doubted is None:
            self._doubted_until = asyncio.get_running_loop().time() + seconds
        self._doubted = start if self._doubted is None else min(self._doubted, start)

    def finish(self, size: int) -> None:
        """Every byte is there, and proven."""
        self.size, self.proven = size, True
        self.progress(size)

    def fail(self, error: RegistryError) -> None:
        self.error = error.bare()

    def end(self) -> None:
        """Nothing more will come."""
        self._running = False
        self.changed()
        self._close_if_over()

    def changed(self) -> None:
        """Wakes everybody who waits for this fill."""
        if self._change is not None:
            self._change.set_result(None)
            self._change = None

    async def _next_change(self) -> None:
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._change)

    async def _slowest(self, least: int) -> int:
        while True:
            if not self._readers:
                raise Unavailable("nobody reads any more, and there is no room to keep it")
            slowest = min(reader.position for reader in self._readers)
            if slowest >= least:
                return slowest
            await self._next_change()

    def _close_if_over(self) -> None:
        if self._running or self._readers:
            return
        files = [self._file] if self._file else []
        if self.window is not None:
            files += self.window.segments
            self.window.segments = []
        self._file = None
        for segment in files:
            segment.file.close()


class FillReader:
    """A FileContent over a fill."""

    def __init__(self, fill: Fill, outcome: Outcome, repository: Repository, start: int) -> None:
        self._fill = fill
        self._outcome = outcome
        self._is_its_own = fill.repository == repository
        self._segment: Segment | None = None
        self.position = start  # below it nothing is kept for this reader

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(OCTET_STREAM, self._fill.digest, self._fill.size)

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    @property
    def provenance(self) -> Provenance:
        return self._fill.provenance if self._is_its_own else Provenance.HERE

    async def proven(self) -> None:
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
        self.position = beyond
        if self._fill.window is not None:
            self._fill.changed()  # its writer may be waiting for this reader
        limit = await self._fill.readable(beyond)
        self._segment, end = self._fill.segment(beyond)
        return limit if end is None else min(limit, end)

    def close(self) -> None:
        self._fill.leave(self)
