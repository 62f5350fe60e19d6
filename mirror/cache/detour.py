"""A range far ahead of a fill, fetched on its own: its reader does not wait for gigabytes.

Nothing of it is kept, and no digest proves a part: it is the reader's to check the whole, as every
container client does. The fill goes on beside it.
"""

from __future__ import annotations

import asyncio
import os

import structlog

from ..interfaces import Outcome, Provenance, StreamContent, Upstream
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, Unavailable
from ..oci.ranges import ByteRange
from ..oci.reference import Repository

log = structlog.get_logger()

_AHEAD = 2 << 20  # bytes in memory: what is read before the client has taken what came before
_TRIES = 4  # streams without a byte in between


class Detour:
    """A FileContent for one reader, from an offset on. It reads on as its reader does."""

    def __init__(self, upstream: Upstream, repository: Repository, stream: StreamContent) -> None:
        self._upstream = upstream
        self._repository = repository
        self._stream: StreamContent | None = stream
        self._descriptor = stream.descriptor
        self._position = stream.start
        self._fd = -1
        self._barren = 0  # streams in a row that brought nothing

    @classmethod
    async def open(
        cls, upstream: Upstream, repository: Repository, digest: Digest, start: int
    ) -> Detour | None:
        """None when the upstream sends no part, or none that is vouched for: of others' bytes only
        the whole is proof. Raises RegistryError."""
        try:
            stream = await upstream.blob(repository, digest, ByteRange(start), vouched=True)
        except (Denied, Unavailable) as error:
            log.info("range not fetched on its own", digest=str(digest), reason=error.message)
            return None
        if stream.start == start and stream.descriptor.size is not None:
            log.info("range fetched on its own", digest=str(digest), start=start)
            return cls(upstream, repository, stream)
        await stream.close()
        return None

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
        return self._fd

    def damaged(self, reason: str) -> None:
        log.error("growing file cannot be read", digest=str(self.descriptor.digest), reason=reason)

    async def readable(self, beyond: int) -> int:
        if beyond == self._position and self._position != self._descriptor.size:
            await self._read()
        return self._position

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if self._stream is not None:
            # The reader leaves in the middle, as is its habit: nobody waits for the goodbye.
            closing = asyncio.ensure_future(self._stream.close())
            closing.add_done_callback(lambda done: done.exception())

    async def _read(self) -> None:
        """The next bytes, in a file of their own: the last ones have been sent by now."""
        fd = os.memfd_create("detour", os.MFD_CLOEXEC)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        end = self._position + _AHEAD
        while self._position < end and (piece := await self._piece()):
            os.pwrite(fd, piece, self._position)
            self._position += len(piece)
            if len(piece) < _AHEAD // 8:  # what trickles is passed on as it comes
                break

    async def _piece(self) -> bytes:
        while self._position != self._descriptor.size:
            try:
                if self._stream is None:
                    self._stream = await self._again()
                piece = await self._stream.read()
                if piece:
                    self._barren = 0
                    return piece
                raise Unavailable("the upstream's body ended early")
            except Unavailable:
                self._barren += 1
                if self._barren == _TRIES:
                    raise
                stream, self._stream = self._stream, None
                if stream is not None:
                    await stream.close()
        return b""

    async def _again(self) -> StreamContent:
        digest = self._descriptor.digest
        rest = ByteRange(self._position)
        stream = await self._upstream.blob(self._repository, digest, rest, vouched=True)
        if stream.start != self._position or stream.descriptor.size != self._descriptor.size:
            await stream.close()
            raise Unavailable("the upstream sends no parts any more")
        return stream
