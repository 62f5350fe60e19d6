"""HostedRecords: repositories of one's own, in a database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from ....contracts.hosted import (
    HostedManifest,
    HostedRepository,
    HostedTag,
    Quota,
    RetentionRule,
    Seen,
    TagMove,
    TagOrder,
    Visibility,
)
from ....oci.digest import Digest
from . import deleting, pushing, reading
from .database import Database
from .far import rely_on_nothing

T = TypeVar("T")
Rely = Callable[[Connection, Digest, float], None]


class RepositoryRecords:
    """HostedRecords (see contracts)."""

    def __init__(self, database: Database, late: float = 0.0, rely: Rely = rely_on_nothing) -> None:
        """The time when somebody last relied on something may be up to `late` seconds too early:
        to ask for what was asked for a moment ago only reads. `rely`: what a push relies on beside
        the records (see far.py)."""
        self._read = database.read
        self._write = database.write
        self._late = late
        self._rely = rely

    # Pull.

    async def repository(self, name: str) -> HostedRepository | None:
        return await self._read(reading.repository, name)

    async def resolve(self, repository: str, tag: str) -> HostedTag | None:
        return await self._read(reading.resolve, repository, tag)

    async def has_manifest(
        self, repository: str, digest: Digest, renew: float | None = None
    ) -> bool:
        relied_at = await self._read(reading.manifest_relied_at, repository, digest)
        if relied_at is None:
            return False
        if renew is None or relied_at >= renew - self._late:
            return True
        return await self._write(pushing.rely_on_manifest, repository, digest, renew)

    async def manifest(self, repository: str, digest: Digest) -> HostedManifest | None:
        return await self._read(reading.manifest, repository, digest)

    async def blob(self, repository: str, digest: Digest, renew: float | None = None) -> int | None:
        found = await self._read(reading.blob, repository, digest)
        if found is None:
            return None
        size, relied_at = found
        if renew is None or relied_at >= renew - self._late:
            return size
        return await self._write(pushing.rely_on_blob, repository, digest, renew)

    async def tags(
        self, repository: str, count: int | None = None, last: str | None = None
    ) -> Sequence[HostedTag]:
        return await self._read(reading.list_tags, repository, count, last)

    async def tags_of(self, repository: str, digest: Digest) -> Sequence[str]:
        return await self._read(reading.tags_of, repository, digest)

    async def tagged(
        self,
        repository: str,
        order: TagOrder,
        count: int,
        after: tuple[str, float] | None = None,
    ) -> Sequence[tuple[HostedTag, HostedManifest]]:
        return await self._read(reading.tagged, repository, order, count, after)

    async def manifests(
        self, repository: str, count: int | None = None, after: Digest | None = None
    ) -> Sequence[HostedManifest]:
        return await self._read(reading.list_manifests, repository, count, after)

    async def image_sizes(
        self, repository: str, digests: Collection[Digest]
    ) -> Mapping[Digest, int]:
        return await self._read(reading.image_sizes, repository, tuple(digests))

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str | None = None
    ) -> Sequence[HostedManifest]:
        return await self._read(reading.referrers, repository, subject, artifact_type)

    async def repositories(
        self, seen: Seen, query: str = "", count: int | None = None, last: str | None = None
    ) -> Sequence[HostedRepository]:
        return await self._read(reading.list_repositories, seen, query, count, last)

    async def history(self, repository: str, tag: str, count: int = 100) -> Sequence[TagMove]:
        return await self._read(reading.history, repository, tag, count)

    # Push.

    async def create(
        self, repository: str, visibility: Visibility, now: float, by: str
    ) -> HostedRepository:
        return await self._write(pushing.create, repository, visibility, now, by)

    async def add_blob(
        self, repository: str, digest: Digest, size: int, now: float, by: str
    ) -> None:
        await self._push(digest, now, pushing.add_blob, repository, digest, size, now, by)

    async def mount(
        self, repository: str, digest: Digest, sources: Sequence[str], now: float, by: str
    ) -> bool:
        return await self._push(digest, now, pushing.mount, repository, digest, sources, now, by)

    async def owners(self, digest: Digest, count: int = 100) -> Sequence[str]:
        return await self._read(reading.owners, digest, count)

    async def put_manifest(
        self, repository: str, manifest: HostedManifest, tag: str | None, now: float, by: str
    ) -> Digest | None:
        return await self._push(
            manifest.digest, now, pushing.put_manifest, repository, manifest, tag, now, by
        )

    async def _push(
        self, digest: Digest, now: float, work: Callable[..., T], *arguments: object
    ) -> T:
        return await self._write(_relying, self._rely, digest, now, work, arguments)

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
        return await self._write(
            deleting.change, repository, visibility, description, immutable, retention
        )

    async def delete_repository(self, repository: str, now: float, by: str) -> bool:
        return await self._write(deleting.delete_repository, repository, now, by)

    async def delete_tag(self, repository: str, tag: str, now: float, by: str) -> bool:
        return await self._write(deleting.delete_tag, repository, tag, now, by)

    async def delete_manifest(self, repository: str, digest: Digest, now: float, by: str) -> bool:
        return await self._write(deleting.delete_manifest, repository, digest, now, by)

    async def delete_blob(self, repository: str, digest: Digest) -> bool:
        return await self._write(deleting.delete_blob, repository, digest)

    async def sizes(self, repositories: Sequence[str]) -> Mapping[str, int]:
        return await self._read(reading.sizes, tuple(repositories))

    async def quota(self, namespace: str) -> Quota | None:
        return await self._read(reading.quota, namespace)

    async def usage(self, namespace: str) -> int:
        return await self._read(reading.usage, namespace)


def _relying(
    connection: Connection,
    rely: Rely,
    digest: Digest,
    now: float,
    work: Callable[..., T],
    arguments: Sequence[object],
) -> T:
    rely(connection, digest, now)
    return work(connection, *arguments)
