"""An Upstream around another: it states only what it changes."""

from __future__ import annotations

from collections.abc import Collection

from ..contracts.context import Asker
from ..contracts.registry import BytesContent, TagPage
from ..contracts.upstream import StreamContent, Upstream
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository


class ForwardingUpstream:
    """Passes everything on to `inner`."""

    def __init__(self, inner: Upstream) -> None:
        self._inner = inner

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        return await self._inner.resolve(asker, repository, tag, passed_over)

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        """Whoever is around `inner` may have the manifest, which is asked for next."""
        return await self.resolve(asker, repository, tag)

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        return await self._inner.manifest(asker, repository, digest)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        return await self._inner.stat(asker, repository, digest)

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        return await self._inner.blob(asker, repository, digest, range, vouched)

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        return await self._inner.referrers(asker, repository, digest)

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        return await self._inner.tags(asker, repository, count, last)

    def is_down(self, repository: Repository, tag: str) -> bool:
        return self._inner.is_down(repository, tag)

    def is_scarce(self) -> bool:
        return self._inner.is_scarce()
