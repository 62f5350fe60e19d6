"""Which images may be read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from ..contracts.context import RequestContext
from ..contracts.registry import BytesContent, FileContent, Outcome, Registry, Resolved, TagPage
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, Unknown
from ..oci.patterns import Patterns
from ..oci.reference import Repository
from .tag_age import TagAges

log = structlog.get_logger()

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Allows or denies the repositories that `patterns` mean. `min_age`, in seconds, is how long
    ago what a tag points to must have appeared."""

    name: str
    patterns: Patterns
    allows: bool
    min_age: float = 0.0


class AccessGuard:
    """A Registry: another, as far as the first rule that means a repository lets it be read. What
    no rule means may be read.

    Deny rules hold for whatever is asked of a repository, by tag or by digest. The age of what a
    tag points to is for tags alone: who names a digest has chosen what it names.
    """

    def __init__(self, registry: Registry, rules: Sequence[AccessRule], ages: TagAges) -> None:
        self._registry = registry
        self._rules = rules
        self._ages = ages

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        rule = self._admit(repository)
        resolved = await self._registry.resolve(context, repository, tag)
        if rule is None or rule.min_age <= 0:
            return resolved
        async for digest, age in self._ages.settled(
            context, repository, tag, resolved.descriptor.digest, rule.min_age
        ):
            if digest == resolved.descriptor.digest:
                return resolved
            try:
                content = await self._registry.manifest(context, repository, digest)
            except (Unknown, Denied):  # gone by now
                continue
            log.info(
                "tag held back",
                image=f"{repository}:{tag}",
                rule=rule.name,
                request_id=context.request_id,
            )
            return Resolved(content.descriptor, Outcome.HIT, age)
        raise Denied(
            f"the rule {rule.name!r} of this mirror holds back {repository}:{tag}: what it points "
            f"to appeared less than {rule.min_age / _DAY:g} days ago, and nothing older is known"
        )

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        self._admit(repository)
        return await self._registry.manifest(context, repository, digest)

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        self._admit(repository)
        return await self._registry.stat(context, repository, digest)

    async def blob(
        self, context: RequestContext, repository: Repository, digest: Digest, start: int = 0
    ) -> FileContent:
        self._admit(repository)
        return await self._registry.blob(context, repository, digest, start)

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        self._admit(repository)
        return await self._registry.referrers(context, repository, digest, artifact_type)

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        self._admit(repository)
        return await self._registry.tags(context, repository, count, last)

    def _admit(self, repository: Repository) -> AccessRule | None:
        """The rule that lets this repository be read; None when no rule means it. Raises Denied."""
        rule = next((rule for rule in self._rules if rule.patterns.match(repository)), None)
        if rule is not None and not rule.allows:
            raise Denied(f"the rule {rule.name!r} of this mirror denies {repository}")
        return rule
