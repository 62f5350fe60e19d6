"""Which registry answers."""

from __future__ import annotations

from collections.abc import Mapping

from ..contracts.context import RequestContext
from ..contracts.registry import BytesContent, FileContent, Registry, Resolved, TagPage
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, quoted
from ..oci.reference import Repository


class Routed:
    """A Registry of registries, each under the name that the configuration gives it.

    One that is not configured is refused (Denied): the mirror is no open proxy. Unless there are
    `others`, which answers for those.
    """

    def __init__(self, registries: Mapping[str, Registry], others: Registry | None = None) -> None:
        self._registries = registries
        self._others = others

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        return await self._of(repository).resolve(context, repository, tag)

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        return await self._of(repository).manifest(context, repository, digest)

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        return await self._of(repository).stat(context, repository, digest)

    async def blob(
        self, context: RequestContext, repository: Repository, digest: Digest, start: int = 0
    ) -> FileContent:
        return await self._of(repository).blob(context, repository, digest, start)

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        return await self._of(repository).referrers(context, repository, digest, artifact_type)

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        return await self._of(repository).tags(context, repository, count, last)

    def _of(self, repository: Repository) -> Registry:
        registry = self._registries.get(repository.registry, self._others)
        if registry is None:
            raise Denied(
                f"registry {quoted(repository.registry)} is not served here; "
                f"configured are {', '.join(sorted(self._registries))}"
            )
        return registry
