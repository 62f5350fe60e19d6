"""What tags point to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..frozen import dataclass
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.reference import Repository


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What a tag pointed to. `descriptor` None: the upstream said that there is no such tag.

    `checked_at` is when an upstream last said so, in seconds since the epoch.
    """

    descriptor: Descriptor | None
    checked_at: float


@dataclass(frozen=True, slots=True)
class TagEvent:
    """What a tag pointed to for a while; `digest` None: there was no such tag any more.

    When that was first and last said, in seconds since the epoch. By clocks that may have been
    wrong: events are in the order in which they were noted, whatever their times.
    """

    digest: Digest | None
    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class KnownTag:
    """A tag and its record, as a listing gives it."""

    repository: Repository
    tag: str
    record: TagRecord


@dataclass(frozen=True, slots=True)
class TagListing:
    """A part of all tags. `following`: the marker that the next page comes after; None: there is no
    other page."""

    tags: Sequence[KnownTag]
    following: str | None


class TagStore(Protocol):
    """Small records that age. A store that cannot answer raises TagStoreError, in bounded time."""

    async def get(self, repository: Repository, tag: str) -> TagRecord | None: ...

    async def put(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        """Remembers for `keep_for` seconds, and forgets by itself; notes it in the history."""

    async def delete(self, repository: Repository, tag: str) -> None:
        """Forgets the record. The history stays."""

    async def page(self, after: str, limit: int) -> TagListing:
        """About `limit` of the tags that have a record, after this marker ("" for the first page):
        of one page, the marker of the next. A page may have fewer, or none, with more to follow.

        In no order that counts. A tag that has a record while all pages are asked for is in one of
        them at least; one that is put or deleted meanwhile may be in them or not. For listings:
        more than a pull may wait for. Raises ValueError for a marker that no page gave.
        """

    async def history(self, repository: Repository, tag: str) -> Sequence[TagEvent]:
        """What the tag pointed to, the newest first.

        Kept far longer than records, within bounds of its own. Saying the same again is no new
        event. A tag that never was has no history, however often that was said.
        """

    async def has_forgotten(self, repository: Repository) -> bool:
        """Whether, for want of room, some of this repository's history was forgotten: a tag whose
        history says nothing may then have been known."""

    async def freeze(self, repository: Repository, tag: str, digest: Digest) -> None:
        """Makes this what `frozen` says, on all nodes that share the store within a second, until
        it is unfrozen."""

    async def unfreeze(self, repository: Repository, tag: str) -> bool:
        """Whether it was frozen."""

    async def frozen(self, repository: Repository, tag: str) -> Digest | None:
        """What the tag is frozen to. Asked at every pull by tag: cheap."""

    async def close(self) -> None: ...


class TagStoreError(Exception):
    """The tag memory does not answer. Never a reason to fail a pull."""
