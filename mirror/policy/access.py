"""Which images may be read here."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from ..contracts.context import RequestContext
from ..contracts.registry import Outcome, Reader, Resolved
from ..frozen import dataclass
from ..oci.errors import Denied, Unknown
from ..oci.patterns import Patterns
from ..oci.reference import Repository
from .forwarding import Guarding
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


class AccessGuard(Guarding):
    """A Reader: another, as far as the first rule that means a repository lets it be read. What
    no rule means may be read.

    Deny rules hold for whatever is asked of a repository, by tag or by digest. The age of what a
    tag points to is for tags alone: who names a digest has chosen what it names.
    """

    lets_through = frozenset({"resolve", "manifest", "stat", "blob", "referrers", "tags"})

    def __init__(self, inner: Reader, rules: Sequence[AccessRule], ages: TagAges) -> None:
        super().__init__(inner)
        self._rules = rules
        self._ages = ages

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        rule = self._rule_of(repository)
        resolved = await self._inner.resolve(context, repository, tag)
        if rule is None or rule.min_age <= 0:
            return resolved
        async for digest, age in self._ages.settled(
            context, repository, tag, resolved.descriptor.digest, rule.min_age
        ):
            if digest == resolved.descriptor.digest:
                return resolved
            try:
                content = await self._inner.manifest(context, repository, digest)
            except (Unknown, Denied):  # gone by now
                continue
            log.info(
                "tag_held_back",
                image=f"{repository}:{tag}",
                rule=rule.name,
                request_id=context.request_id,
            )
            return Resolved(content.descriptor, Outcome.HIT, age)
        raise Denied(
            f"the rule {rule.name!r} of this mirror holds back {repository}:{tag}: what it points "
            f"to appeared less than {rule.min_age / _DAY:g} days ago, and nothing older is known"
        )

    async def admit(self, context: RequestContext, repository: Repository, method: str) -> None:
        self._rule_of(repository)

    def _rule_of(self, repository: Repository) -> AccessRule | None:
        """The rule that lets this repository be read; None when no rule means it. Raises Denied."""
        rule = next((rule for rule in self._rules if rule.patterns.match(repository)), None)
        if rule is not None and not rule.allows:
            raise Denied(f"the rule {rule.name!r} of this mirror denies {repository}")
        return rule
