"""Tags: what they pointed to, for how long that is good, and who is asked when it is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import replace
from math import isfinite

import structlog

from ...asking.retry_policy import retrying
from ...contracts.context import RequestContext
from ...contracts.events import TagChecked, TagMoved
from ...contracts.registry import FETCHED, BytesContent, Outcome, Resolved
from ...contracts.tags import TagRecord, TagStoreError
from ...contracts.upstream import Upstream
from ...frozen import dataclass
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.digest import Digest
from ...oci.errors import ManifestUnknown, RegistryError, Unknown
from ...oci.reference import Repository
from ...times import ANSWERS
from ..freshness import Freshness, RecordState, age_of, judge
from ..manifests import Manifests
from ..policy import CachePolicy
from ..revalidation import Lagging, Revalidation, silent
from ..shared import Shared
from .pins import Pinned

log = structlog.get_logger()

_FROZEN = 1.0  # seconds within which it is to be known that a tag is no longer frozen

# Words of endpoints on one tag, each of another manifest that cannot be had, before it is given up.
_MOST_WORDS = 8


@dataclass(frozen=True, slots=True)
class _Ask:
    """What the upstream is asked of a tag. `record`: what it pointed to when that was last said."""

    context: RequestContext
    repository: Repository
    tag: str
    record: TagRecord | None
    periods: Freshness

    @property
    def image(self) -> str:
        return f"{self.repository}:{self.tag}"


class TagResolver:
    """The tags of one registry. A tag is answered only with its manifest in hand: its error is the
    last from which every client goes elsewhere."""

    def __init__(
        self, upstream: Upstream, manifests: Manifests, shared: Shared, policy: CachePolicy
    ) -> None:
        self._upstream = upstream
        self._manifests = manifests
        self._policy = policy
        self._store, self._memory, self._events = shared.store, shared.tags, shared.events
        self._clock = shared.clock
        self._frozen = Pinned(policy.pins, shared.tags, shared.clock)
        self._asks: Revalidation[tuple[Repository, str], Resolved] = Revalidation(
            shared.tag_checks, policy.patience, lambda asked: upstream.is_down(*asked)
        )

    async def close(self) -> None:
        await self._asks.close()

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        """What the tag points to. Raises RegistryError."""
        image = f"{repository}:{tag}"
        frozen = await self._frozen.digest(repository, tag)
        if frozen is not None:
            return await self._held(context, repository, frozen, image, "frozen to")
        periods = self._policy.rules.of(repository, tag)
        record = await self._recall(repository, tag, periods)
        now = self._clock.wall()
        present = periods.stretched() if self._upstream.is_scarce() else periods
        state = judge(record, now, present)
        if state is RecordState.FRESH and record is not None and record.descriptor is None:
            raise ManifestUnknown(f"{image} is not known upstream")
        known = await self._known(record)
        age = age_of(record, now) if record is not None else 0.0
        if state is RecordState.FRESH and known is not None:
            return Resolved(known, Outcome.HIT, age, present.fresh_for(age))
        if state is RecordState.FRESH and record is not None and record.descriptor is not None:
            # What it points to is known: only the manifest has gone from here.
            with contextlib.suppress(Unknown):
                digest = record.descriptor.digest
                fetched = await self._held(context, repository, digest, image, "remembered as")
                return replace(fetched, age=age, fresh_for=present.fresh_for(age))
        old = None
        if known is not None and state is not RecordState.EXPIRED:
            old = Resolved(known, Outcome.STALE, age)
        asking = context.lasting(ANSWERS.ask)
        resolved, joined = await self._asks.answer(
            context,
            (repository, tag),
            image,
            state,
            old,
            lambda: self._ask(_Ask(asking, repository, tag, record, periods)),
        )
        if joined and resolved.outcome is Outcome.FILLED:
            return replace(resolved, outcome=Outcome.JOINED)
        return resolved

    async def remembered(self, repository: Repository, tag: str) -> Resolved | None:
        """What the tag pointed to when that was last said, unless it is too old or its manifest is
        not here. The upstream is not asked."""
        periods = self._policy.rules.of(repository, tag)
        record = await self._recall(repository, tag, periods)
        known = await self._known(record)
        now = self._clock.wall()
        if record is None or known is None or judge(record, now, periods) is RecordState.EXPIRED:
            return None
        return Resolved(known, Outcome.STALE, age_of(record, now))

    async def _held(
        self, context: RequestContext, repository: Repository, digest: Digest, image: str, how: str
    ) -> Resolved:
        """A tag that is known to point there, with its manifest in hand."""
        try:
            async with asyncio.timeout(self._policy.patience.unknown):
                content = await self._manifests.get(context, repository, digest)
        except Unknown as error:
            raise ManifestUnknown(f"{image} is {how} {digest}: {error.message}") from error
        except TimeoutError:
            raise silent(self._policy.patience.unknown, f"{image}, {how} {digest}") from None
        vouched = content.outcome in FETCHED and content.vouched
        return Resolved(content.descriptor, content.outcome, fresh_for=_FROZEN, vouched=vouched)

    async def _ask(self, ask: _Ask) -> Resolved:
        """Asks the upstream what the tag points to, and has that manifest in hand."""
        began = self._clock.monotonic()
        age = None if ask.record is None else age_of(ask.record, self._clock.wall())

        def tell(result: str, reason: str = "") -> None:
            took = self._clock.monotonic() - began
            asked = ask.repository, ask.tag, age, ask.periods.ttl
            self._events.emit(TagChecked(*asked, took, result, reason))

        try:
            resolved = await self._answered(ask)
        except RegistryError as error:
            tell("gone" if isinstance(error, Unknown) else "failed", error.message)
            raise
        if resolved.outcome is Outcome.STALE:
            tell("gone", "it is kept, as the configuration wants it")
        elif resolved.outcome is Outcome.REVALIDATED:
            tell("unchanged")
        else:
            tell("found" if ask.record is None or ask.record.descriptor is None else "moved")
        return resolved

    async def _answered(self, ask: _Ask) -> Resolved:
        try:
            content = await self._believable(ask)
        except Unknown as error:
            kept = await self._known(ask.record) if ask.periods.keeps_gone else None
            if kept is not None and ask.record is not None:
                log.info(
                    "tag_kept_though_gone",
                    image=ask.image,
                    said=error.message,
                    request_id=ask.context.request_id,
                )
                return Resolved(kept, Outcome.STALE, age_of(ask.record, self._clock.wall()))
            negative = TagRecord(None, self._clock.wall())
            await self._remember(ask.repository, ask.tag, negative, ask.periods.negative_ttl)
            self._tell(ask, negative)
            raise
        found = TagRecord(content.descriptor, self._clock.wall())
        await self._remember(ask.repository, ask.tag, found, ask.periods.keep_for)
        self._tell(ask, found)
        if self._policy.kept.match(ask.repository, ask.tag):
            await self._store.pin(ask.image, content.descriptor.digest)
        same = ask.record is not None and ask.record.descriptor == content.descriptor
        outcome = Outcome.REVALIDATED if same else Outcome.FILLED
        return Resolved(content.descriptor, outcome, vouched=True)

    def _tell(self, ask: _Ask, said: TagRecord) -> None:
        before, after = (
            known.descriptor.digest if known is not None and known.descriptor is not None else None
            for known in (ask.record, said)
        )
        if before != after:
            self._events.emit(TagMoved(ask.repository, ask.tag, before, after))

    async def _believable(self, ask: _Ask) -> BytesContent:
        """The manifest that the upstream says the tag points to. One that is missing is doubted for
        a while: a replica may have to catch up. Raises RegistryError; Unknown of the tag alone."""

        def waited_out(error: RegistryError) -> None:
            log.info(
                "tag_asked_again",
                image=ask.image,
                reason=error.message,
                request_id=ask.context.request_id,
            )

        return await retrying(
            ask.context,
            lambda: self._next_word(ask),
            {Lagging: self._policy.trouble.doubts(promised=True)},
            failed=waited_out,
        )

    async def _next_word(self, ask: _Ask) -> BytesContent:
        """The manifest of the first endpoint's word of which the manifest can be had: one endpoint
        may name what nobody has, or what is no manifest. Else the error of the first word's."""
        passed_over: dict[Digest, RegistryError] = {}
        for _ in range(_MOST_WORDS):
            try:
                said = await self._said(ask, passed_over)
            except RegistryError:
                if passed_over:
                    break
                raise
            if isinstance(said, BytesContent):
                return await self._manifests.came(ask.repository, said)
            try:
                return await self._manifests.named(ask.context, ask.repository, said.digest)
            except Unknown as error:  # replicas that do not agree: of the tag it says nothing
                passed_over[said.digest] = Lagging(
                    f"the upstream says that {ask.image} is {said.digest}, and has no such "
                    f"manifest: {error.message}"
                )
            except RegistryError as error:
                passed_over[said.digest] = error
        raise next(iter(passed_over.values()))

    async def _said(self, ask: _Ask, passed_over: Collection[Digest]) -> Descriptor | BytesContent:
        if ask.record is None and not passed_over:
            return await self._upstream.tagged(ask.context, ask.repository, ask.tag)
        try:
            return await self._upstream.resolve(ask.context, ask.repository, ask.tag, passed_over)
        except Unknown:
            if ask.record is None or ask.record.descriptor is None or ask.periods.keeps_gone:
                raise
            # It was there: one word is not enough to take it away from everybody.
            return await self._upstream.resolve(ask.context, ask.repository, ask.tag, passed_over)

    async def _known(self, record: TagRecord | None) -> Descriptor | None:
        """What the record points to, if its manifest is in hand."""
        if record is None or record.descriptor is None:
            return None
        content = await self._manifests.stored(record.descriptor.digest)
        return content.descriptor if content else None

    async def _recall(
        self, repository: Repository, tag: str, periods: Freshness
    ) -> TagRecord | None:
        """The record; where it was forgotten and age is no matter, the last of the history."""
        try:
            record = await self._memory.get(repository, tag)
            if record is not None or isfinite(periods.stale):
                return record
            last = next(iter(await self._memory.history(repository, tag)), None)
        except TagStoreError:
            return None
        if last is None or last.digest is None:
            return None
        # Of what media type it is, the manifest itself says.
        return TagRecord(Descriptor(OCTET_STREAM, last.digest, None), last.last_seen)

    async def _remember(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        try:
            await self._memory.put(repository, tag, record, keep_for)
        except TagStoreError as error:
            log.warning("tag_not_remembered", image=f"{repository}:{tag}", reason=str(error))
