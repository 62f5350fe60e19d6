"""Repositories of one's own in memory: what their records and their content have to keep to."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mirror.contracts.hosted import (
    Garbage,
    HostedManifest,
    HostedRepository,
    HostedTag,
    LooseBlob,
    Missing,
    Needed,
    Quota,
    QuotaExceeded,
    RetentionRule,
    Seen,
    TagImmutable,
    TagMove,
    TagOrder,
    Visibility,
)
from mirror.contracts.uploads import Held
from mirror.oci.digest import Digest
from mirror.oci.errors import ContentMismatch


@dataclass
class _Blob:
    size: int
    relied_at: float


@dataclass
class _Manifest:
    record: HostedManifest
    relied_at: float


@dataclass
class _Repository:
    record: HostedRepository
    blobs: dict[Digest, _Blob] = field(default_factory=dict)
    manifests: dict[Digest, _Manifest] = field(default_factory=dict)
    tags: dict[str, HostedTag] = field(default_factory=dict)
    history: list[TagMove] = field(default_factory=list)

    def needs(self, digest: Digest) -> HostedManifest | None:
        """The manifest that refers to this blob."""
        for manifest in self.manifests.values():
            if digest in manifest.record.blobs:
                return manifest.record
        return None

    def fixed(self, tag: str) -> bool:
        return any(fnmatchcase(tag, pattern) for pattern in self.record.immutable)

    def move(self, tag: HostedTag) -> None:
        self.tags[tag.name] = tag
        self.history.append(TagMove(tag.name, tag.digest, tag.moved_at, tag.moved_by))

    def drop(self, tag: str, now: float, by: str) -> None:
        del self.tags[tag]
        self.history.append(TagMove(tag, None, now, by))


class MemoryRecords:
    """HostedRecords and CollectionRecords, by brute force: a model for those of a database.

    `quotas`: bytes by namespace. `is_collecting`: some other process holds the lock.
    """

    def __init__(self) -> None:
        self.there: dict[str, _Repository] = {}
        self.quotas: dict[str, int] = {}
        self.is_collecting = False

    # Pull.

    async def repository(self, name: str) -> HostedRepository | None:
        found = self.there.get(name)
        return None if found is None else found.record

    async def resolve(self, repository: str, tag: str) -> HostedTag | None:
        found = self.there.get(repository)
        return None if found is None else found.tags.get(tag)

    async def has_manifest(
        self, repository: str, digest: Digest, renew: float | None = None
    ) -> bool:
        found = self.there.get(repository)
        manifest = None if found is None else found.manifests.get(digest)
        if manifest is not None and renew is not None:
            manifest.relied_at = max(manifest.relied_at, renew)
        return manifest is not None

    async def manifest(self, repository: str, digest: Digest) -> HostedManifest | None:
        found = self.there.get(repository)
        manifest = None if found is None else found.manifests.get(digest)
        return None if manifest is None else manifest.record

    async def blob(self, repository: str, digest: Digest, renew: float | None = None) -> int | None:
        found = self.there.get(repository)
        blob = None if found is None else found.blobs.get(digest)
        if blob is None:
            return None
        if renew is not None:
            blob.relied_at = max(blob.relied_at, renew)
        return blob.size

    async def tags(
        self, repository: str, count: int | None = None, last: str | None = None
    ) -> Sequence[HostedTag]:
        found = self.there.get(repository)
        tags = () if found is None else found.tags.values()
        names = sorted(tags, key=lambda tag: tag.name)
        return [tag for tag in names if last is None or tag.name > last][:count]

    async def tags_of(self, repository: str, digest: Digest) -> Sequence[str]:
        found = self.there.get(repository)
        tags = [] if found is None else [*found.tags.values()]
        return sorted(tag.name for tag in tags if tag.digest == digest)

    async def tagged(
        self,
        repository: str,
        order: TagOrder,
        count: int,
        after: tuple[str, float] | None = None,
    ) -> Sequence[tuple[HostedTag, HostedManifest]]:
        def place(name: str, moved_at: float) -> tuple[float, str]:
            return (0.0 if order is TagOrder.NAME else -moved_at, name)

        found = self.there.get(repository)
        tags = [] if found is None else [*found.tags.values()]
        tags.sort(key=lambda tag: place(tag.name, tag.moved_at))
        rest = [
            tag for tag in tags if after is None or place(tag.name, tag.moved_at) > place(*after)
        ]
        manifests = {} if found is None else found.manifests
        return [(tag, manifests[tag.digest].record) for tag in rest[:count]]

    async def manifests(
        self, repository: str, count: int | None = None, after: Digest | None = None
    ) -> Sequence[HostedManifest]:
        found = self.there.get(repository)
        records = () if found is None else [one.record for one in found.manifests.values()]
        ordered = sorted(records, key=lambda one: str(one.digest))
        return [one for one in ordered if after is None or str(one.digest) > str(after)][:count]

    async def image_sizes(
        self, repository: str, digests: Collection[Digest]
    ) -> Mapping[Digest, int]:
        found = self.there.get(repository)
        manifests = {} if found is None else found.manifests
        return {
            digest: manifests[digest].record.image_size for digest in digests if digest in manifests
        }

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str | None = None
    ) -> Sequence[HostedManifest]:
        return [
            one
            for one in await self.manifests(repository)
            if one.subject == subject and artifact_type in (None, one.artifact_type)
        ]

    async def repositories(
        self, seen: Seen, query: str = "", count: int | None = None, last: str | None = None
    ) -> Sequence[HostedRepository]:
        found = [
            one.record
            for name, one in sorted(self.there.items())
            if (last is None or name > last)
            and _is_seen(one.record, seen)
            and query.lower() in f"{name}\n{one.record.description}".lower()
        ]
        return found[:count]

    async def history(self, repository: str, tag: str, count: int = 100) -> Sequence[TagMove]:
        found = self.there.get(repository)
        moves = [] if found is None else [move for move in found.history if move.tag == tag]
        return moves[::-1][:count]

    # Push.

    async def create(
        self, repository: str, visibility: Visibility, now: float, by: str
    ) -> HostedRepository:
        made = _Repository(HostedRepository(repository, visibility, now))
        return self.there.setdefault(repository, made).record

    async def add_blob(
        self, repository: str, digest: Digest, size: int, now: float, by: str
    ) -> None:
        self._allow(repository, [(digest, size)])
        await self.create(repository, Visibility.PRIVATE, now, by)
        blobs = self.there[repository].blobs
        blob = blobs.setdefault(digest, _Blob(size, now))
        blob.relied_at = max(blob.relied_at, now)

    async def mount(
        self, repository: str, digest: Digest, sources: Sequence[str], now: float, by: str
    ) -> bool:
        for source in sources:
            found = self.there.get(source)
            if found is not None and digest in found.blobs:
                await self.add_blob(repository, digest, found.blobs[digest].size, now, by)
                found.blobs[digest].relied_at = max(found.blobs[digest].relied_at, now)
                return True
        return False

    async def owners(self, digest: Digest, count: int = 100) -> Sequence[str]:
        return [name for name, one in sorted(self.there.items()) if digest in one.blobs][:count]

    async def put_manifest(
        self, repository: str, manifest: HostedManifest, tag: str | None, now: float, by: str
    ) -> Digest | None:
        found = self.there.get(repository)
        blobs = {} if found is None else found.blobs
        manifests = {} if found is None else found.manifests
        missing = [digest for digest in manifest.blobs if digest not in blobs]
        missing += [digest for digest in manifest.manifests if digest not in manifests]
        if missing:
            raise Missing(missing)
        self._allow(repository, [(manifest.digest, manifest.size)])
        before = None if found is None or tag is None else found.tags.get(tag)
        is_moved = before is not None and before.digest != manifest.digest
        if found is not None and tag is not None and is_moved and found.fixed(tag):
            raise TagImmutable
        await self.create(repository, Visibility.PRIVATE, now, by)
        here = self.there[repository]
        sent = tuple(digest for digest in manifest.foreign if digest in here.blobs)
        manifest = dataclasses.replace(manifest, blobs=manifest.blobs + sent, foreign=())
        for digest in manifest.blobs:
            here.blobs[digest].relied_at = max(here.blobs[digest].relied_at, now)
        for digest in manifest.manifests:
            here.manifests[digest].relied_at = max(here.manifests[digest].relied_at, now)
        record = dataclasses.replace(manifest, pushed_at=now, pushed_by=by)
        here.manifests[manifest.digest] = _Manifest(record, now)
        here.record = dataclasses.replace(here.record, pushed_at=now)
        if tag is not None:
            here.move(HostedTag(tag, manifest.digest, now, by))
        return None if before is None else before.digest

    # Management.

    async def change(
        self,
        repository: str,
        *,
        visibility: Visibility | None = None,
        description: str | None = None,
        immutable: Sequence[str] | None = None,
        retention: Sequence[RetentionRule] | None = None,
    ) -> HostedRepository | None:
        found = self.there.get(repository)
        if found is None:
            return None
        was = found.record
        found.record = dataclasses.replace(
            was,
            visibility=was.visibility if visibility is None else visibility,
            description=was.description if description is None else description,
            immutable=was.immutable if immutable is None else tuple(immutable),
            retention=was.retention if retention is None else tuple(retention),
        )
        return found.record

    async def delete_repository(self, repository: str, now: float, by: str) -> bool:
        return self.there.pop(repository, None) is not None

    async def delete_tag(self, repository: str, tag: str, now: float, by: str) -> bool:
        found = self.there.get(repository)
        if found is None or tag not in found.tags:
            return False
        if found.fixed(tag):
            raise TagImmutable
        found.drop(tag, now, by)
        return True

    async def delete_manifest(self, repository: str, digest: Digest, now: float, by: str) -> bool:
        found = self.there.get(repository)
        if found is None or digest not in found.manifests:
            return False
        tags = [tag.name for tag in found.tags.values() if tag.digest == digest]
        if any(found.fixed(tag) for tag in tags):
            raise TagImmutable
        for tag in tags:
            found.drop(tag, now, by)
        del found.manifests[digest]
        return True

    async def delete_blob(self, repository: str, digest: Digest) -> bool:
        found = self.there.get(repository)
        if found is None or digest not in found.blobs:
            return False
        if (manifest := found.needs(digest)) is not None:
            raise Needed(manifest.digest)
        del found.blobs[digest]
        return True

    async def sizes(self, repositories: Sequence[str]) -> Mapping[str, int]:
        return {
            name: sum(blob.size for blob in found.blobs.values())
            + sum(each.record.size for each in found.manifests.values())
            for name in repositories
            if (found := self.there.get(name)) is not None
        }

    async def quota(self, namespace: str) -> Quota | None:
        limit = self.quotas.get(namespace)
        return None if limit is None else Quota(await self.usage(namespace), limit)

    async def usage(self, namespace: str) -> int:
        return sum(self._sizes(namespace).values())

    # Collection.

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        if self.is_collecting:
            yield False
            return
        self.is_collecting = True
        try:
            yield True
        finally:
            self.is_collecting = False

    async def garbage(self, relied_before: float, count: int) -> Garbage:
        blobs = [
            LooseBlob(name, digest, blob.size, len(await self.owners(digest)))
            for name, one in sorted(self.there.items())
            for digest, blob in one.blobs.items()
            if self._is_loose(name, digest, relied_before)
        ]
        repositories = [name for name in self.there if self._is_empty(name, relied_before)]
        return Garbage(blobs[:count], repositories[:count])

    async def remove(self, garbage: Garbage, relied_before: float) -> Garbage:
        blobs = [
            blob
            for blob in garbage.blobs
            if self._is_loose(blob.repository, blob.digest, relied_before)
        ]
        for blob in blobs:
            del self.there[blob.repository].blobs[blob.digest]
        repositories = [
            name for name in garbage.repositories if self._is_empty(name, relied_before)
        ]
        for name in repositories:
            del self.there[name]
        return Garbage(blobs, repositories)

    async def expire(
        self,
        repository: str,
        tags: Sequence[HostedTag],
        manifests: Sequence[HostedManifest],
        relied_before: float,
        now: float,
        by: str,
    ) -> tuple[Sequence[HostedTag], Sequence[HostedManifest]]:
        found = self.there.get(repository)
        if found is None:
            return (), ()
        gone = [tag for tag in tags if found.tags.get(tag.name) == tag]
        for tag in gone:
            found.drop(tag.name, now, by)
        tagged = {tag.digest for tag in found.tags.values()}
        leaving = {one.digest for one in manifests} & set(found.manifests)
        leaving = {
            digest
            for digest in leaving
            if digest not in tagged and found.manifests[digest].relied_at < relied_before
        }
        while True:  # what one that stays refers to stays
            kept = [one for digest, one in found.manifests.items() if digest not in leaving]
            needed = leaving & {digest for one in kept for digest in one.record.manifests}
            if not needed:
                break
            leaving -= needed
        removed = [found.manifests.pop(digest).record for digest in leaving]
        return gone, removed

    async def needed(self, digests: Collection[Digest]) -> Collection[Digest]:
        return self._needed() & set(digests)

    async def content(self, after: Digest | None, count: int) -> Sequence[Digest]:
        had = {digest for one in self.there.values() for digest in (*one.blobs, *one.manifests)}
        return _page(had, after, count)

    # What the rules are.

    def _needed(self) -> set[Digest]:
        needed: set[Digest] = set()
        for one in self.there.values():
            needed |= set(one.blobs) | set(one.manifests)
            for manifest in one.manifests.values():
                needed |= {*manifest.record.blobs, *manifest.record.manifests}
        return needed

    def _is_loose(self, repository: str, digest: Digest, relied_before: float) -> bool:
        found = self.there.get(repository)
        blob = None if found is None else found.blobs.get(digest)
        if found is None or blob is None:
            return False
        return blob.relied_at < relied_before and found.needs(digest) is None

    def _is_empty(self, repository: str, relied_before: float) -> bool:
        found = self.there.get(repository)
        if found is None or found.blobs or found.manifests:
            return False
        made = HostedRepository(repository, Visibility.PRIVATE, found.record.created_at)
        return found.record == made and made.created_at < relied_before

    def _sizes(self, namespace: str) -> dict[Digest, int]:
        sizes: dict[Digest, int] = {}
        for one in self.there.values():
            if one.record.namespace == namespace:
                sizes |= {digest: blob.size for digest, blob in one.blobs.items()}
                sizes |= {digest: each.record.size for digest, each in one.manifests.items()}
        return sizes

    def _allow(self, repository: str, more: Iterable[tuple[Digest, int]]) -> None:
        namespace = repository.partition("/")[0]
        limit, sizes = self.quotas.get(namespace), self._sizes(namespace)
        asked = sum(size for digest, size in more if digest not in sizes)
        used = sum(sizes.values())
        if limit is not None and asked and used + asked > limit:
            raise QuotaExceeded(namespace, used, limit, asked)


class MemoryHeld:
    """A HeldContent without a disk. `here` is all that the store has, `at` since when it is held;
    what is in `here` alone may be evicted."""

    is_shared = False

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.here: dict[Digest, bytes] = {}
        self.at: dict[Digest, float] = {}

    async def put_held(self, digest: Digest, data: bytes) -> None:
        if not digest.matches(data):
            raise ContentMismatch(f"it is not {digest}")
        self.here[digest] = data
        self.at[digest] = self._now()

    async def hold(self, digest: Digest) -> int | None:
        if digest not in self.here:
            return None
        self.at[digest] = self._now()
        return len(self.here[digest])

    async def let_go(self, digest: Digest) -> None:
        self.at.pop(digest, None)

    async def release(self, digest: Digest, held_before: float) -> int:
        if digest not in self.at or self.at[digest] >= held_before:
            return 0
        del self.at[digest]
        return len(self.here.pop(digest, b""))

    async def held(self, held_before: float, after: Digest | None, count: int) -> Sequence[Held]:
        old = [digest for digest, at in self.at.items() if at < held_before]
        return [
            Held(digest, len(self.here[digest]), self.at[digest])
            for digest in _page(old, after, count)
        ]

    async def keep(self, digests: Collection[Digest]) -> Sequence[Digest]:
        for digest in digests:
            if digest in self.here:
                self.at.setdefault(digest, self._now())
        return [digest for digest in digests if digest not in self.here]


def _page(digests: Iterable[Digest], after: Digest | None, count: int) -> list[Digest]:
    ordered = sorted(digests, key=str)
    return [digest for digest in ordered if after is None or str(digest) > str(after)][:count]


def _is_seen(repository: HostedRepository, seen: Seen) -> bool:
    return (
        seen.everything
        or repository.visibility is Visibility.PUBLIC
        or repository.namespace in seen.namespaces
        or any(fnmatchcase(repository.name, pattern) for pattern in seen.patterns)
    )
