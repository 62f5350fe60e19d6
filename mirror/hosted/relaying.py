"""Uploads on many nodes: a session is on the disk of the node where it was begun, whose mark its id
begins with. What any other node is asked of it, it asks that one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..contracts.fleet import Nodes, mark_of
from ..contracts.registry import Body
from ..contracts.uploads import Bring, OthersUploads, Uploads
from ..oci.digest import Digest
from ..oci.errors import UploadUnknown

T = TypeVar("T")

_MARK = len(mark_of(""))


class RelayedUploads:
    """Uploads of this node (`own`), and of all others."""

    def __init__(self, own: Uploads, others: OthersUploads, nodes: Nodes) -> None:
        self._own = own
        self._others = others
        self._nodes = nodes
        self._mark = mark_of(nodes.own)

    async def begin(self, repository: str) -> str:
        return self._mark + await self._own.begin(repository)

    async def append(self, repository: str, session: str, start: int | None, body: Body) -> int:
        own, others = self._own.append, self._others.append
        return await self._asked(
            session,
            lambda id: own(repository, id, start, body),
            lambda url, id: others(url, repository, id, start, body),
        )

    async def size(self, repository: str, session: str) -> int:
        return await self._asked(
            session,
            lambda id: self._own.size(repository, id),
            lambda url, id: self._others.size(url, repository, id),
        )

    async def under_way(self, repository: str) -> int:
        """What the other nodes have is not counted: they refuse it themselves, or the records."""
        return await self._own.under_way(repository)

    async def finish(
        self, repository: str, session: str, digest: Digest, bring: Bring | None = None
    ) -> int:
        return await self._asked(
            session,
            lambda id: self._own.finish(repository, id, digest, bring),
            lambda url, id: self._others.finish(url, repository, id, digest),
        )

    async def cancel(self, repository: str, session: str) -> None:
        await self._asked(
            session,
            lambda id: self._own.cancel(repository, id),
            lambda url, id: self._others.cancel(url, repository, id),
        )

    async def _asked(
        self,
        session: str,
        own: Callable[[str], Awaitable[T]],
        others: Callable[[str, str], Awaitable[T]],
    ) -> T:
        """Of the node whose session this is, by the id that it has there. One that was begun before
        there was a fleet is this node's, or nobody's."""
        mark, id = session[:_MARK], session[_MARK:]
        if mark == self._mark:
            return await own(id)
        url = self._nodes.url_of(mark)
        if url is None:
            raise UploadUnknown("the node that had this upload is gone: begin it anew")
        return await others(url, id)
