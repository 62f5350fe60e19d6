"""Lists of referrers: kept whole, answered filtered, and aged as tags are, so that the check of a
signature outlives the registry as its image does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ..contracts.context import RequestContext
from ..contracts.records import ReferrerList
from ..contracts.registry import BytesContent, Outcome
from ..contracts.upstream import Upstream
from ..oci import referrers
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Unavailable, Unknown
from ..oci.manifests import OCI_INDEX
from ..oci.reference import Repository
from ..threads import read_aside
from ..times import ANSWERS, STORES
from .freshness import Freshness, RecordState, judge_age
from .manifests import Manifests
from .policy import CachePolicy
from .revalidation import Revalidation
from .shared import Shared
from .tags.resolution import TagResolver


class Referrers:
    """The lists of one registry. Raises RegistryError."""

    def __init__(
        self,
        upstream: Upstream,
        tags: TagResolver,
        manifests: Manifests,
        shared: Shared,
        policy: CachePolicy,
    ) -> None:
        self._upstream = upstream
        self._tags = tags
        self._manifests = manifests
        self._policy = policy
        self._kept, self._links, self._served = shared.referrers, shared.links, shared.served
        self._clock = shared.clock
        self._asks: Revalidation[tuple[Repository, Digest], BytesContent] = Revalidation(
            shared.list_checks,
            policy.patience,
            lambda asked: upstream.is_down(asked[0], referrers.fallback_tag(asked[1])),
        )

    async def close(self) -> None:
        await self._asks.close()

    async def list(
        self,
        context: RequestContext,
        repository: Repository,
        subject: Digest,
        artifact_type: str | None,
    ) -> BytesContent:
        """The whole list, or the artifacts of one type in it: a registry need not filter, and a
        client that believes it was done does not."""
        content = await self._whole(context, repository, subject)
        if artifact_type is None:
            return content
        data = await read_aside(referrers.of_type, content.data, artifact_type)
        return replace(content, data=data, descriptor=_descriptor(data))

    async def _whole(
        self, context: RequestContext, repository: Repository, subject: Digest
    ) -> BytesContent:
        kept = await self._kept.get(repository, subject)
        state, now = RecordState.EXPIRED, self._clock.wall()
        if kept is not None:
            state = judge_age(kept.checked_at, now, self._periods(repository, kept.count))
        else:
            kept = await self._of_tag(repository, subject)
            state = RecordState.EXPIRED if kept is None else RecordState.STALE
        if kept is not None and state is RecordState.FRESH:
            return _content(kept, Outcome.HIT, now)
        old = None if kept is None or state is RecordState.EXPIRED else kept
        asking = context.lasting(ANSWERS.ask)
        content, joined = await self._asks.answer(
            context,
            (repository, subject),
            f"the referrers of {subject} in {repository}",
            state,
            None if old is None else _content(old, Outcome.STALE, now),
            lambda: self._ask(asking, repository, subject, kept),
        )
        if joined and content.outcome is Outcome.FILLED:
            return replace(content, outcome=Outcome.JOINED)
        return content

    async def _ask(
        self,
        context: RequestContext,
        repository: Repository,
        subject: Digest,
        kept: ReferrerList | None,
    ) -> BytesContent:
        data = await self._said(context, repository, subject)
        count = await read_aside(referrers.count, data)
        if kept is not None and kept.count and not count:
            # There were some: one word is not enough to take them away from everybody.
            if self._policy.rules.of(repository, "").keeps_gone:
                return _content(kept, Outcome.STALE, self._clock.wall())
            data = await self._said(context, repository, subject)
            count = await read_aside(referrers.count, data)
        now = self._clock.wall()
        found = ReferrerList(data, count, now)
        await self._kept.put(repository, subject, found)
        self._served.name(repository.registry, *await read_aside(referrers.named, data))
        same = kept is not None and kept.data == data
        return _content(found, Outcome.REVALIDATED if same else Outcome.FILLED, now)

    async def _said(
        self, context: RequestContext, repository: Repository, subject: Digest
    ) -> bytes:
        try:
            async with asyncio.timeout(STORES.list):
                return await self._upstream.referrers(context, repository, subject)
        except Unknown:
            return referrers.NONE
        except TimeoutError:
            raise Unavailable(
                f"the referrers of {subject} did not come within {STORES.list:g} s"
            ) from None

    async def _of_tag(self, repository: Repository, subject: Digest) -> ReferrerList | None:
        """What a client that knows no such API has asked for by tag, if the repository has shown
        it: a tag memory alone, which may be shared, opens nothing."""
        tag = await self._tags.remembered(repository, referrers.fallback_tag(subject))
        if tag is None or tag.descriptor.media_type != OCI_INDEX or self._links is None:
            return None
        digest = tag.descriptor.digest
        content = await self._manifests.stored(digest)
        if content is None or await self._links.seen(repository, digest) is None:
            return None
        count = await read_aside(referrers.count, content.data)
        return ReferrerList(content.data, count, self._clock.wall() - tag.age)

    def _periods(self, repository: Repository, count: int) -> Freshness:
        """Those of the repository's tags. A list is never immutable: signatures are made later. And
        that there are none is believed no longer than that there is no such tag."""
        periods = replace(self._policy.rules.of(repository, ""), immutable=False)
        return periods if count else replace(periods, ttl=min(periods.ttl, periods.negative_ttl))


def _content(kept: ReferrerList, outcome: Outcome, now: float) -> BytesContent:
    age = max(0.0, now - kept.checked_at)
    return BytesContent(_descriptor(kept.data), kept.data, outcome, age=age)


def _descriptor(data: bytes) -> Descriptor:
    return Descriptor(OCI_INDEX, Digest.of(data), len(data))
