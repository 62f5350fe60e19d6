"""A blob's body on its way from an endpoint."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import cast

import aiohttp
import structlog

from ...contracts.events import UpstreamRead, UpstreamRejected
from ...events import Events
from ...oci.descriptor import Descriptor
from ...oci.errors import Unavailable, Untrustworthy
from ..endpoint import MIB, Endpoint, Trust
from .receiver import Receiver

_log = structlog.get_logger()

_BLANK = b" \t\r\n\xef\xbb\xbf"  # with a byte order mark
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_MAGIC = slice(257, 262), b"ustar"  # POSIX, "ustar Interchange Format"


class BlobStream:
    """A StreamContent over one HTTP response. It waits for bytes for as long as the connection is
    there: Body, which reads it, knows what else to ask."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        descriptor: Descriptor,
        start: int,
        endpoint: Endpoint,
        events: Events,
    ) -> None:
        self._response = response
        self._descriptor = descriptor
        self._start = start
        self._endpoint = endpoint
        self._events = events
        self._total = 0  # bytes that came by aiohttp's reader
        self._receiver: Receiver | None = None

    @property
    def descriptor(self) -> Descriptor:
        return self._descriptor

    @property
    def start(self) -> int:
        return self._start

    @property
    def source(self) -> str:
        return self._endpoint.name

    @property
    def vouched(self) -> bool:
        return self._endpoint.trust is Trust.TAGS

    @property
    def doubted(self) -> bool:
        return not self.vouched

    @property
    def kept(self) -> bool:
        return False

    async def read(self) -> bytes:
        """See StreamContent. Cancelled, it may be called again, and no byte is lost."""
        if self._receiver is not None and (piece := cast(bytes, self._receiver.read_nowait())):
            self._tell(piece)
            return piece
        try:
            piece = await self._next()
        except (aiohttp.ClientError, OSError) as error:
            piece = self._came_before_the_break()
            if not piece:
                raise Unavailable(f"{self._endpoint.name} cut a blob short") from error
        self._tell(piece)
        return piece

    def _tell(self, piece: bytes) -> None:
        self._events.emit(UpstreamRead(self._endpoint.registry, self._endpoint.name, len(piece)))

    async def _next(self) -> bytes:
        if self._receiver is not None:
            # A view, with which a fill can do all that it does with bytes.
            return cast(bytes, await self._receiver.read())
        piece = await self._response.content.read(MIB)
        if not self._total:
            refuse_masked(self._response.headers, piece, self._endpoint.name)
        self._total += len(piece)
        self._receiver = Receiver.take_over(self._response, self._total)
        return piece

    def _came_before_the_break(self) -> bytes:
        """What was received and not read when the connection broke. aiohttp tells of the break
        first and would keep it, to be fetched a second time."""
        content = self._response.content
        error = content.exception()
        content.set_exception(None)  # type: ignore[arg-type]  # it takes one, and means none
        try:
            return content.read_nowait(MIB)
        finally:
            if error is not None:
                content.set_exception(error)

    def reject(self, reason: str) -> None:
        self._events.emit(UpstreamRejected(self._endpoint.registry, self._endpoint.name))
        _log.warning(
            "upstream_rejected",
            endpoint=self._endpoint.name,
            digest=str(self._descriptor.digest),
            reason=reason,
        )

    async def close(self) -> None:
        self._response.release()  # keeps the connection only when the body was read to its end
        if self._receiver is not None:
            self._receiver.close()


def refuse_masked(headers: Mapping[str, str], beginning: bytes, where: str) -> None:
    """Raises Untrustworthy for a web page, and for a blob that was encoded on its way, by what its
    headers and its first bytes say together: nothing more of it need be read.

    By the headers alone that cannot be said. Some hosts call every blob a web page, and object
    stores keep the Content-Encoding with which a layer, which is a tar in gzip, was uploaded; no
    client heeds either. What is let through has its digest to prove.
    """
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type == "text/html" and beginning.lstrip(_BLANK).startswith(b"<"):
        raise Untrustworthy(f"{where} sent a web page instead of a blob")
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("gzip", "x-gzip") and beginning.startswith(_GZIP_MAGIC):
        place, magic = _TAR_MAGIC
        unfolded = _unfolded(beginning, 512)
        if unfolded is not None and unfolded[place] != magic:
            raise Untrustworthy(f"{where} sent a blob with a Content-Encoding")


def _unfolded(beginning: bytes, most: int) -> bytes | None:
    """The first bytes of what is in this gzip; None where it is none."""
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(beginning, most)
    except zlib.error:
        return None
