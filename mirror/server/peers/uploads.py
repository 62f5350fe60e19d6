"""What other nodes ask of the uploads of this one, for clients whose requests have come to them.

    PATCH  /fleet/1/uploads/<session>?repository=<name>[&start=<offset>]     appends the body
    GET    /fleet/1/uploads/<session>?repository=<name>                      its size
    PUT    /fleet/1/uploads/<session>?repository=<name>&digest=<digest>      ends it
    DELETE /fleet/1/uploads/<session>?repository=<name>                      removes it

Who may do so was decided by the node that asks. Answers are {"size": N}, and errors by their name.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

from aiohttp import hdrs, web

from ...contracts.content import StoreFull
from ...contracts.relayed import words_of
from ...contracts.uploads import Bring, Uploads
from ...oci.digest import Digest
from ...oci.errors import BadRequest, Interrupted, RegistryError, UploadUnknown
from ...peering import UPLOADS_PATH
from ...threads import aside
from ..hosted.bodies import BROKEN
from ..v2.target import parse_query, split

Take = Callable[[bytes | memoryview], None]

_OFFSET = re.compile(r"[0-9]{1,18}")
_PIECE = 512 << 10
_PATIENCE = 60.0  # seconds for which the other node may send nothing


class PeerUploads:
    """Answers one of these requests, of a node that has proven to be of the fleet. `bring` as of
    Uploads.finish."""

    def __init__(self, uploads: Uploads, bring: Bring | None) -> None:
        self._uploads = uploads
        self._bring = bring

    async def answer(self, request: web.BaseRequest) -> web.Response:
        try:
            size = await self._size(request)
        except (RegistryError, StoreFull) as error:
            return _failed(error)
        return _json(200, {"size": size})

    async def _size(self, request: web.BaseRequest) -> int:
        path, raw_query = split(request.raw_path)
        session, query = path.removeprefix(UPLOADS_PATH), parse_query(raw_query)
        uploads = self._uploads
        repository = query.get("repository", "")
        if not session or not repository:
            raise UploadUnknown("there is no such upload")
        match request.method:
            case hdrs.METH_PATCH:
                start = _offset(query.get("start"))
                return await uploads.append(repository, session, start, _Body(request))
            case hdrs.METH_PUT:
                digest = Digest.parse(query.get("digest", ""))
                return await uploads.finish(repository, session, digest, self._bring)
            case hdrs.METH_DELETE:
                await uploads.cancel(repository, session)
                return 0
            case _:
                return await uploads.size(repository, session)


def _offset(given: str | None) -> int | None:
    """Raises BadRequest: what is to stand at some offset is appended at no other."""
    if given is not None and not _OFFSET.fullmatch(given):
        raise BadRequest("start is no offset")
    return None if given is None else int(given)


class _Body:
    """A Body that comes through the parser, in pieces: the connection goes on behind it."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.size = request.content_length
        self._content = request.content

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._content.readany()
        except (*BROKEN, TimeoutError) as error:
            raise Interrupted(f"the body ended before it was whole ({error})") from error

    async def pour(self, take: Take) -> None:
        pieces: list[bytes] = []
        length = 0
        while piece := await self.read():
            pieces.append(piece)
            length += len(piece)
            if length >= _PIECE:
                await aside(take, b"".join(pieces))
                pieces, length = [], 0
        if pieces:
            await aside(take, b"".join(pieces))


def _failed(error: RegistryError | StoreFull) -> web.Response:
    status = error.status if isinstance(error, RegistryError) else 507
    return _json(status, words_of(error))


def _json(status: int, value: object) -> web.Response:
    data = json.dumps(value).encode()
    return web.Response(status=status, body=data, content_type="application/json")
