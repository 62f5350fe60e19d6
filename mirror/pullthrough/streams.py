"""What is done with a StreamContent that is not the registry's own, whoever gives it."""

from __future__ import annotations

from ..contracts.registry import BytesContent, Outcome
from ..contracts.upstream import StreamContent
from ..oci.descriptor import Descriptor
from ..oci.errors import Untrustworthy
from ..oci.manifests import MAX_MANIFEST, media_type_of
from ..threads import read_aside


class FromOffset:
    """The bytes of a stream from `offset` on: of one that ignored the range, those before are
    passed over."""

    def __init__(self, stream: StreamContent, offset: int) -> None:
        self._stream = stream
        self._skip = offset - stream.start

    async def read(self) -> bytes:
        """As StreamContent.read."""
        while True:
            piece = await self._stream.read()
            passed = min(self._skip, len(piece))
            self._skip -= passed
            if passed < len(piece) or not piece:
                return piece[passed:]


async def proven_manifest(body: StreamContent) -> BytesContent | None:
    """The manifest that this stream of known size brings; None where it is none, or a wrong one,
    which is rejected. Closes the stream. Raises what its `read` does."""
    digest, size = body.descriptor.digest, body.descriptor.size or 0
    try:
        if size > MAX_MANIFEST:
            return None
        data = b""
        while len(data) < size and (piece := await body.read()):
            data += piece
        if not await read_aside(digest.matches, data):
            body.reject("the bytes of the manifest are not its digest's")
            return None
        media_type = await read_aside(media_type_of, data)
    except Untrustworthy:  # it is a blob, asked for as a manifest
        return None
    finally:
        await body.close()
    descriptor = Descriptor(media_type, digest, len(data))
    return BytesContent(descriptor, data, Outcome.HIT, vouched=False, source=body.source)
