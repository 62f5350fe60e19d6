"""How long ago what a tag points to has appeared.

Two things tell. What this mirror saw itself, its history of the tag: that nobody can forge, so it
decides wherever the tag moved under the mirror's eyes. And the time of building that the image's
config names: its publisher writes that, and may write what they like, so it decides only for what a
tag pointed to when it was first asked for here. Where there is no such time either (charts and
other artifacts have none), it appeared when it was first seen here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Protocol

from cachetools import LRUCache

from ..clock import Clock
from ..contracts.context import RequestContext
from ..contracts.registry import Reader
from ..contracts.tags import TagEvent, TagStoreError
from ..oci.digest import Digest
from ..oci.documents import read_object
from ..oci.errors import Denied, Unknown, Untrustworthy
from ..oci.manifests import Child, Manifest, read_manifest
from ..oci.reference import Repository
from ..threads import aside, read_aside


class History(Protocol):
    """A TagStore, as far as it is read here."""

    async def history(self, repository: Repository, tag: str) -> Sequence[TagEvent]: ...

    async def has_forgotten(self, repository: Repository) -> bool: ...


_REMEMBERED = 10_000
_LARGEST_CONFIG = 4 << 20  # bytes
_USUAL = "linux/amd64"


class TagAges:
    """Ages of what tags point to; `registry` is asked for the images' configs.

    `most` is how many events a history has at most. One that is full has lost its beginning, and
    whoever moves a tag often enough could pass for that. So has that of a tag in a repository of
    which the memory has forgotten some: asking for enough other tags would do it.
    """

    def __init__(self, registry: Reader, history: History, most: int, clock: Clock) -> None:
        self._registry = registry
        self._history = history
        self._most = most
        self._clock = clock
        self._built: LRUCache[Digest, float | None] = LRUCache(_REMEMBERED)

    async def settled(
        self,
        context: RequestContext,
        repository: Repository,
        tag: str,
        current: Digest,
        min_age: float,
    ) -> AsyncIterator[tuple[Digest, float]]:
        """What the tag points to and pointed to, the newest first, as far as it appeared at least
        `min_age` seconds ago; with the seconds since an upstream last said so.

        Raises RegistryError when the upstream is needed for it and cannot be asked.
        """
        now = self._clock.wall()
        events = await self._events(repository, tag)
        last_seen = {event.digest: event.last_seen for event in reversed(events)}
        for digest in dict.fromkeys((current, *(event.digest for event in events))):
            if digest is None:
                continue
            appeared = await self._appeared(context, repository, digest, events, now)
            if appeared <= now - min_age:
                yield digest, max(0.0, now - last_seen.get(digest, now))

    async def _is_whole(self, repository: Repository, events: Sequence[TagEvent]) -> bool:
        """Whether these are all events that there ever were."""
        try:
            return len(events) < self._most and not await self._history.has_forgotten(repository)
        except TagStoreError:
            return True

    async def _events(self, repository: Repository, tag: str) -> Sequence[TagEvent]:
        try:
            return await self._history.history(repository, tag)
        except TagStoreError:
            return ()

    async def _appeared(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        events: Sequence[TagEvent],
        now: float,
    ) -> float:
        """In seconds since the epoch."""
        first_seen = min((each.first_seen for each in events if each.digest == digest), default=now)
        is_the_first = not events or events[-1].digest == digest
        if not is_the_first or not await self._is_whole(repository, events):
            return first_seen
        built = await self._built_at(context, repository, digest)
        return first_seen if built is None else min(built, first_seen)

    async def _built_at(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> float | None:
        """The `created` of the image's config (image-spec, config.md); None when there is none.

        Of an index, one of its images speaks for all: they are built together.
        """
        if digest not in self._built:
            try:
                self._built[digest] = await self._read(context, repository, digest)
            except (Unknown, Denied, Untrustworthy):
                return None
        return self._built[digest]

    async def _read(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> float | None:
        manifest = await self._manifest(context, repository, digest)
        if manifest.children:
            child = _speaker(manifest.children).descriptor.digest
            manifest = await self._manifest(context, repository, child)
        if manifest.config is None or (manifest.config.size or 0) > _LARGEST_CONFIG:
            return None
        content = await self._registry.blob(context, repository, manifest.config.digest)
        try:
            end = 0
            while end <= _LARGEST_CONFIG and (further := await content.readable(end)) > end:
                end = further
            data = await aside(content.pread, min(end, _LARGEST_CONFIG), 0)
        finally:
            content.close()
        return _time((await read_aside(read_object, data)).get("created"))

    async def _manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Manifest:
        content = await self._registry.manifest(context, repository, digest)
        return await read_aside(read_manifest, content.data, None)


def _speaker(children: Sequence[Child]) -> Child:
    images = [child for child in children if child.platform and child.platform.os != "unknown"]
    usual = [child for child in images if str(child.platform) == _USUAL]
    return (usual or images or list(children))[0]


def _time(text: object) -> float | None:
    """RFC 3339, as seconds since the epoch; a time without a zone is UTC."""
    if not isinstance(text, str) or len(text) > 64:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
