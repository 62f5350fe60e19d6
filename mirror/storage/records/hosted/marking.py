"""Records of repositories, of which every change is told to all processes of this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....contracts.hosted import (
    HostedManifest,
    HostedRepository,
    HostedTag,
    RetentionRule,
    Visibility,
)
from ....oci.digest import Digest
from .database import Database
from .far import FarContentRecords
from .repositories import Rely, RepositoryRecords


class MarkingRecords(RepositoryRecords, FarContentRecords):
    """HostedRecords, CollectionRecords and ShelfRecords. `changed` is told of the repository once
    that is recorded, and also where nobody knows whether it is. `late` and `rely` as of
    RepositoryRecords."""

    def __init__(
        self, database: Database, changed: Callable[[str], None], late: float, rely: Rely
    ) -> None:
        RepositoryRecords.__init__(self, database, late, rely)
        FarContentRecords.__init__(self, database)
        self._changed = changed

    async def put_manifest(
        self, repository: str, manifest: HostedManifest, tag: str | None, now: float, by: str
    ) -> Digest | None:
        try:
            return await super().put_manifest(repository, manifest, tag, now, by)
        finally:
            self._changed(repository)

    async def change(
        self,
        repository: str,
        *,
        visibility: Visibility | None = None,
        description: str | None = None,
        immutable: Sequence[str] | None = None,
        retention: Sequence[RetentionRule] | None = None,
    ) -> HostedRepository | None:
        try:
            return await super().change(
                repository,
                visibility=visibility,
                description=description,
                immutable=immutable,
                retention=retention,
            )
        finally:
            self._changed(repository)

    async def delete_repository(self, repository: str, now: float, by: str) -> bool:
        try:
            return await super().delete_repository(repository, now, by)
        finally:
            self._changed(repository)

    async def delete_tag(self, repository: str, tag: str, now: float, by: str) -> bool:
        try:
            return await super().delete_tag(repository, tag, now, by)
        finally:
            self._changed(repository)

    async def delete_manifest(self, repository: str, digest: Digest, now: float, by: str) -> bool:
        try:
            return await super().delete_manifest(repository, digest, now, by)
        finally:
            self._changed(repository)

    async def delete_blob(self, repository: str, digest: Digest) -> bool:
        try:
            return await super().delete_blob(repository, digest)
        finally:
            self._changed(repository)

    async def expire(
        self,
        repository: str,
        tags: Sequence[HostedTag],
        manifests: Sequence[HostedManifest],
        relied_before: float,
        now: float,
        by: str,
    ) -> tuple[Sequence[HostedTag], Sequence[HostedManifest]]:
        try:
            return await super().expire(repository, tags, manifests, relied_before, now, by)
        finally:
            self._changed(repository)
