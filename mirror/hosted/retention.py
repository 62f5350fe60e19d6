"""Retention: the rules of repositories are followed, when it is time and when somebody asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog

from ..clock import Clock
from ..contracts.events import ManifestDeleted, RetentionEnded, TagDeleted
from ..contracts.hosted import (
    CollectionRecords,
    HostedManifest,
    HostedRecords,
    HostedRepository,
    HostedTag,
    Seen,
)
from ..events import Events
from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.reference import Repository
from .retention_rules import Expiry, expiring

log = structlog.get_logger()

BY = "retention"
"""Who does it, for histories, the audit log and webhooks."""

_PAGE = 500


class Records(HostedRecords, CollectionRecords, Protocol):
    """Both are kept by one database."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What was taken out of all repositories; `failed`: of so many the rules could not be
    followed."""

    tags: int = 0
    manifests: int = 0
    failed: int = 0


class Retention:
    """`registry`: the name that repositories are given to others by. `grace`: what a manifest
    without a tag has at least, for the index that is to name it may come yet."""

    def __init__(
        self,
        registry: str,
        records: Records,
        events: Events,
        clock: Clock,
        grace: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._records = records
        self._events = events
        self._now = clock.wall
        self._grace = grace

    async def plan(self, repository: str) -> Expiry:
        """What its rules would take away now."""
        found = await self._records.repository(repository)
        return Expiry() if found is None else await self._plan(found, self._now())

    async def apply(self, repository: str, by: str = BY) -> Expiry:
        """Takes it away; gives what has gone. What was pushed since it was planned stays."""
        planned_at = self._now()
        found = await self._records.repository(repository)
        return Expiry() if found is None else await self._apply(found, planned_at, by)

    async def run(self) -> Followed:
        """The rules of all repositories. One that cannot be followed holds up no other."""
        tags = manifests = failed = 0
        try:
            repositories = [found async for found in self._with_rules()]
        except Exception as error:
            log.error("retention_failed", repository="", exc_info=error)
            self._events.emit(RetentionEnded(self._now(), 0, 0, 1))
            return Followed(failed=1)
        for found in repositories:
            try:
                gone = await self.apply(found.name)  # by its rules as they are by now
            except Exception as error:
                failed += 1
                log.error("retention_failed", repository=found.name, exc_info=error)
                continue
            tags += len(gone.tags)
            manifests += len(gone.manifests)
        self._events.emit(RetentionEnded(self._now(), tags, manifests, failed))
        return Followed(tags, manifests, failed)

    async def _with_rules(self) -> AsyncIterator[HostedRepository]:
        last: str | None = None
        while page := await self._records.repositories(Seen(everything=True), "", _PAGE, last):
            last = page[-1].name
            for found in page:
                if found.retention:
                    yield found

    async def _plan(self, found: HostedRepository, now: float) -> Expiry:
        if not found.retention:
            return Expiry()
        # Manifests first: one that is pushed before its tags are read is not taken for untagged.
        manifests = await self._manifests(found.name)
        tags = await self._tags(found.name)
        return expiring(found.retention, found.immutable, tags, manifests, now)

    async def _apply(self, found: HostedRepository, planned_at: float, by: str) -> Expiry:
        plan = await self._plan(found, planned_at)
        manifests = {one.digest: one for one in await self._manifests(found.name)}
        gone_tags: set[str] = set()
        gone: set[Digest] = set()
        # A manifest that had no tag may be one that a push goes by; one whose tag goes is not.
        for had_tag, before in ((True, planned_at), (False, planned_at - self._grace())):
            leaving = [
                manifests[one.digest]
                for one in plan.manifests
                if one.had_tag is had_tag and one.digest in manifests
            ]
            tags = [one.tag for one in plan.tags if one.tag is not None] if had_tag else []
            if leaving or tags:
                removed = await self._records.expire(
                    found.name, tags, leaving, before, self._now(), by
                )
                gone_tags |= {tag.name for tag in removed[0]}
                gone |= {one.digest for one in removed[1]}
        self._tell(found.name, gone_tags, gone, by)
        return Expiry(
            [one for one in plan.tags if one.tag is not None and one.tag.name in gone_tags],
            [one for one in plan.manifests if one.digest in gone],
        )

    def _tell(self, name: str, tags: set[str], manifests: set[Digest], by: str) -> None:
        repository = Repository(self._registry, name)
        for tag in sorted(tags):
            self._events.emit(TagDeleted(repository, tag, by))
        for digest in sorted(manifests, key=str):
            self._events.emit(ManifestDeleted(repository, digest, by))
        if tags or manifests:
            log.info(
                "retention_followed",
                repository=name,
                tags=len(tags),
                manifests=len(manifests),
                by=by,
            )

    async def _manifests(self, name: str) -> list[HostedManifest]:
        found: list[HostedManifest] = []
        while page := await self._records.manifests(
            name, _PAGE, found[-1].digest if found else None
        ):
            found += page
        return found

    async def _tags(self, name: str) -> list[HostedTag]:
        found: list[HostedTag] = []
        while page := await self._records.tags(name, _PAGE, found[-1].name if found else None):
            found += page
        return found
