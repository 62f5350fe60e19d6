"""Uploads of other nodes: what a client asks of one that was begun there is asked there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote, urlencode

import aiohttp
import structlog
from aiohttp import hdrs

from ...contracts.registry import Body
from ...contracts.relayed import error_of
from ...oci.digest import Digest
from ...oci.errors import RegistryError, UploadUnknown, quoted
from ...peering import UPLOADS_PATH, Ask
from .client import HttpPeers

log = structlog.get_logger()

_LARGEST_ANSWER = 64 << 10


class PeersUploads:
    """An OthersUploads."""

    def __init__(self, peers: HttpPeers) -> None:
        self._peers = peers

    async def append(
        self, url: str, repository: str, session: str, start: int | None, body: Body
    ) -> int:
        query = {} if start is None else {"start": str(start)}
        return await self._ask(hdrs.METH_PATCH, url, repository, session, query, body)

    async def size(self, url: str, repository: str, session: str) -> int:
        return await self._ask(hdrs.METH_GET, url, repository, session, {})

    async def finish(self, url: str, repository: str, session: str, digest: Digest) -> int:
        query = {"digest": str(digest)}
        return await self._ask(hdrs.METH_PUT, url, repository, session, query)

    async def cancel(self, url: str, repository: str, session: str) -> None:
        await self._ask(hdrs.METH_DELETE, url, repository, session, {})

    async def _ask(
        self,
        method: str,
        url: str,
        repository: str,
        session: str,
        query: Mapping[str, str],
        body: Body | None = None,
    ) -> int:
        path = f"{UPLOADS_PATH}{quote(session, safe='')}"
        path += "?" + urlencode({"repository": repository, **query})
        sent = None if body is None else _Sent(body)
        ask = Ask(method, path)
        try:
            async with self._peers.sending(url, ask, sent) as answer:
                data = await answer.content.read(_LARGEST_ANSWER)
                return _size(url, answer.status, data)
        except (aiohttp.ClientError, OSError) as error:
            if sent is not None and sent.error is not None:
                raise sent.error from None
            log.warning("upload_not_relayed", node=url, reason=str(error) or type(error).__name__)
            raise UploadUnknown("the node that had this upload is gone: begin it anew") from error


def _size(url: str, status: int, data: bytes) -> int:
    """Raises what the other node has raised."""
    try:
        told = json.loads(data)
        if status == 200:
            return int(told["size"])
        error = error_of(told)
    except (ValueError, KeyError, TypeError) as wrong:
        log.warning(
            "upload_not_relayed",
            node=url,
            reason=f"{status} {quoted(data.decode(errors='replace')[:200])}",
        )
        raise UploadUnknown("the node that had this upload does not answer for it") from wrong
    raise error


class _Sent:
    """A body on its way. `error`: why it was not sent whole."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.size = body.size
        self.error: RegistryError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._body.read():
                yield piece
        except RegistryError as error:
            self.error = error
            raise
