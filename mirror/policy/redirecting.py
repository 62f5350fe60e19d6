"""Blobs that clients fetch from elsewhere: asked inside of the guards, who say whether they may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..contracts.context import RequestContext
from ..contracts.registry import FileContent, Reader, Redirected
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from .forwarding import Around

Find = Callable[[str, Repository, Digest], Awaitable[Redirected | None]]
"""Where a client, by its address, is sent for a blob."""


class Redirecting(Around):
    """A Reader around a cache."""

    def __init__(self, inner: Reader, find: Find) -> None:
        super().__init__(inner)
        self._find = find

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        if context.is_wanted:
            redirected = await self._find(context.client, repository, digest)
            if redirected is not None:
                return redirected
        return await self._inner.blob(context, repository, digest, part)
