"""Tags: what they pointed to, for how long that is good, and who is asked when it is not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from ..interfaces import (
    Clock,
    ContentStore,
    Outcome,
    Resolved,
    TagRecord,
    TagStore,
    TagStoreError,
    Upstream,
)
from ..oci.descriptor import Descriptor
from ..oci.errors import ManifestUnknown, RegistryError, Unavailable, Unknown
from ..oci.patterns import Patterns
from ..oci.reference import Repository
from .flights import Flights
from .freshness import Freshness, State, age_of, judge
from .manifests import Manifests

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is held, in seconds.

    `stale`: for the upstream's word on a tag that could be answered stale. `unknown`: on one that
    is not known here; every client goes elsewhere after a tag's error.
    """

    stale: float = 0.8
    unknown: float = 12.0


class Tags:
    """The tags of one registry. A tag is answered only with its manifest in hand: its error is the
    last from which every client goes elsewhere."""

    def __init__(
        self,
        upstream: Upstream,
        manifests: Manifests,
        store: ContentStore,
        memory: TagStore,
        freshness: Freshness,
        pinned: Patterns,
        clock: Clock,
        patience: Patience,
    ) -> None:
        self._upstream = upstream
        self._manifests = manifests
        self._store = store
        self._memory = memory
        self._freshness = freshness
        self._pinned = pinned
        self._clock = clock
        self._patience = patience
        self._checks: Flights[tuple[Repository, str], Resolved] = Flights()

    async def close(self) -> None:
        await self._checks.close()

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """What the tag points to. Raises RegistryError."""
        record = await self._recall(repository, tag)
        now = self._clock.wall()
        state = judge(record, now, self._freshness)
        if state is State.FRESH and record is not None and record.descriptor is None:
            raise ManifestUnknown(f"{repository}:{tag} is not known upstream")
        known = await self._known(record)
        age = age_of(record, now) if record is not None else 0.0
        if state is State.FRESH and known is not None:
            return Resolved(known, Outcome.HIT, age)
        check, joined = self._checks.join(
            (repository, tag), lambda: self._check(repository, tag, record)
        )
        if known is None or state is State.EXPIRED:
            resolved = await self._within(self._patience.unknown, check, f"{repository}:{tag}")
            if joined and resolved.outcome is Outcome.FILLED:
                return replace(resolved, outcome=Outcome.JOINED)
            return resolved
        try:
            return await self._within(self._patience.stale, check, f"{repository}:{tag}")
        except Unknown:
            raise
        except RegistryError as error:
            log.info("answered stale", image=f"{repository}:{tag}", reason=error.message)
            return Resolved(known, Outcome.STALE, age)

    async def _check(self, repository: Repository, tag: str, record: TagRecord | None) -> Resolved:
        """Asks the upstream what the tag points to, and has that manifest in hand."""
        try:
            descriptor = await self._ask(repository, tag, record)
        except Unknown:
            negative = TagRecord(None, self._clock.wall())
            await self._remember(repository, tag, negative, self._freshness.negative_ttl)
            raise
        content = await self._manifests.get(repository, descriptor.digest)
        found = TagRecord(content.descriptor, self._clock.wall())
        await self._remember(repository, tag, found, self._freshness.keep_for)
        if self._pinned.match(repository, tag):
            await self._store.pin(f"{repository}:{tag}", content.descriptor.digest)
        same = record is not None and record.descriptor == content.descriptor
        return Resolved(content.descriptor, Outcome.REVALIDATED if same else Outcome.FILLED)

    async def _ask(self, repository: Repository, tag: str, record: TagRecord | None) -> Descriptor:
        try:
            return await self._upstream.resolve(repository, tag)
        except Unknown:
            if record is None or record.descriptor is None:
                raise
            # It was there: one word is not enough to take it away from everybody.
            return await self._upstream.resolve(repository, tag)

    async def _known(self, record: TagRecord | None) -> Descriptor | None:
        """What the record points to, if its manifest is in hand."""
        if record is None or record.descriptor is None:
            return None
        content = await self._manifests.stored(record.descriptor.digest)
        return content.descriptor if content else None

    async def _recall(self, repository: Repository, tag: str) -> TagRecord | None:
        try:
            return await self._memory.get(repository, tag)
        except TagStoreError:
            return None

    async def _remember(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        try:
            await self._memory.put(repository, tag, record, keep_for)
        except TagStoreError as error:
            log.warning("tag not remembered", image=f"{repository}:{tag}", reason=str(error))

    async def _within(self, seconds: float, check: asyncio.Task[Resolved], image: str) -> Resolved:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(check)
        except TimeoutError:
            raise Unavailable(
                f"the upstream said nothing of {image} within {seconds:g} s", retry_after=5
            ) from None
