"""A tag memory in a dict."""

from __future__ import annotations

from mirror.contracts.tags import KnownTag, TagEvent, TagListing, TagRecord, TagStoreError
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository


class FakeTags:
    """A TagStore. While `failing`, all that reads or writes records fails."""

    def __init__(self) -> None:
        self.records: dict[tuple[Repository, str], TagRecord] = {}
        self.kept_for: dict[tuple[Repository, str], float] = {}
        self.events: dict[tuple[Repository, str], list[TagEvent]] = {}
        self.frozen_to: dict[tuple[Repository, str], Digest] = {}
        self.failing = False

    async def get(self, repository: Repository, tag: str) -> TagRecord | None:
        if self.failing:
            raise TagStoreError("it is failing")
        return self.records.get((repository, tag))

    async def put(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        if self.failing:
            raise TagStoreError("it is failing")
        self.records[repository, tag] = record
        self.kept_for[repository, tag] = keep_for

    async def delete(self, repository: Repository, tag: str) -> None:
        self.records.pop((repository, tag), None)

    async def page(self, after: str, limit: int) -> TagListing:
        if self.failing:
            raise TagStoreError("it is failing")
        return TagListing(
            [KnownTag(*place, record) for place, record in self.records.items()], None
        )

    async def history(self, repository: Repository, tag: str) -> list[TagEvent]:
        if self.failing:
            raise TagStoreError("it is failing")
        return self.events.get((repository, tag), [])

    async def has_forgotten(self, repository: Repository) -> bool:
        return False

    async def freeze(self, repository: Repository, tag: str, digest: Digest) -> None:
        self.frozen_to[repository, tag] = digest

    async def unfreeze(self, repository: Repository, tag: str) -> bool:
        return self.frozen_to.pop((repository, tag), None) is not None

    async def frozen(self, repository: Repository, tag: str) -> Digest | None:
        if self.failing:
            raise TagStoreError("it is failing")
        return self.frozen_to.get((repository, tag))

    async def close(self) -> None: ...
