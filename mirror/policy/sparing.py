"""Pulls that an upstream counts are left to clients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from ..contracts.content import ContentStore
from ..contracts.context import RequestContext
from ..contracts.registry import BytesContent, Reader, Resolved
from ..oci.digest import Digest
from ..oci.reference import Repository
from .forwarding import Around

Pulling = Callable[[Repository, str], AbstractAsyncContextManager[None]]
"""In which the manifest of a tag, or of a digest, is pulled. To enter it raises RegistryError where
it may not be."""


class Sparing(Around):
    """A Reader: another, which pulls no manifest that is not here but within `pulling`."""

    def __init__(self, inner: Reader, store: ContentStore, pulling: Pulling) -> None:
        super().__init__(inner)
        self._store = store
        self._pulling = pulling

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        async with self._pulling(repository, tag):
            return await self._inner.resolve(context, repository, tag)

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        content = await self._store.open(digest)
        if content is not None:
            content.close()
            return await self._inner.manifest(context, repository, digest)
        async with self._pulling(repository, str(digest)):
            return await self._inner.manifest(context, repository, digest)
