"""What is recorded of repositories of one's own. The content itself is in the store.

Records are rows in a database that several nodes may share. Every method is one transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from enum import StrEnum
from typing import Protocol

from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.manifests import Platform
from ..oci.reference import namespace_of

HOSTED = "hosted"
"""What logs and counts call the registry of repositories of one's own, and by which these are given
to others. No host has this name alone."""


class Visibility(StrEnum):
    PUBLIC = "public"  # anybody may pull, without a login
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Which tags stay: those that `match` (patterns as those of `freshness`), of which the `keep`
    moved last, or moved within `younger` seconds. A rule with neither keeps all that match, but one
    with `untagged` alone says nothing of tags. Where a rule does, a tag that none keeps goes, with
    its manifest; immutable ones stay. Manifests without a tag go once they were pushed `untagged`
    seconds ago, the longest that any rule says; without it they stay."""

    match: tuple[str, ...] = ("*",)
    keep: int | None = None
    younger: float | None = None
    untagged: float | None = None


@dataclass(frozen=True, slots=True)
class HostedRepository:
    """`immutable`: patterns of tags that never move once they are set. Times are seconds since the
    epoch; `pushed_at` is that of the last manifest, None before the first."""

    name: str
    visibility: Visibility
    created_at: float
    pushed_at: float | None = None
    description: str = ""
    immutable: tuple[str, ...] = ()
    retention: tuple[RetentionRule, ...] = ()

    @property
    def namespace(self) -> str:
        """The organisation or the user whose it is: the first part of its name."""
        return namespace_of(self.name)


@dataclass(frozen=True, slots=True)
class HostedManifest:
    """A manifest of one repository. `blobs` and `manifests` are what it refers to and has to stay.
    `foreign` (non-distributable) need not be here: of these, what the repository has when the
    manifest is put has to stay, too. `image_size`: bytes of its blobs together."""

    digest: Digest
    media_type: str
    size: int
    blobs: tuple[Digest, ...] = ()
    manifests: tuple[Digest, ...] = ()
    subject: Digest | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[Platform, ...] = ()
    image_size: int = 0
    pushed_at: float = 0.0
    pushed_by: str = ""
    foreign: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class HostedTag:
    name: str
    digest: Digest
    moved_at: float
    moved_by: str = ""


class TagOrder(StrEnum):
    NAME = "name"  # by code points
    NEWEST = "newest"  # that which moved last first


@dataclass(frozen=True, slots=True)
class TagMove:
    """One entry of a tag's history; `digest` None: it was deleted."""

    tag: str
    digest: Digest | None
    at: float
    by: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """Which repositories a listing may show: all, those of these `namespaces`, and those that
    match one of `patterns` (a robot's), beside the public ones."""

    everything: bool = False
    namespaces: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """What a namespace has, and may have, in bytes."""

    used: int
    limit: int


class QuotaExceeded(Exception):
    """A namespace would have more bytes than it may. `used` is what it has now."""

    def __init__(self, namespace: str, used: int, limit: int, asked: int) -> None:
        super().__init__(namespace, used, limit, asked)
        self.namespace, self.used, self.limit, self.asked = namespace, used, limit, asked


class Missing(Exception):
    """What a manifest refers to and the repository lacks. Nothing was recorded."""

    def __init__(self, digests: Sequence[Digest]) -> None:
        super().__init__(*digests)
        self.digests = tuple(digests)


class Needed(Exception):
    """A manifest of the repository refers to the blob that was to be deleted. Nothing changed."""

    def __init__(self, manifest: Digest) -> None:
        super().__init__(manifest)
        self.manifest = manifest


class TagImmutable(Exception):
    """The tag is set already, and its repository has it stay. Nothing was recorded."""


class HostedRecords(Protocol):
    """Repositories, and what is in them. `now` is seconds since the epoch; `by` a principal's name.

    Each blob and manifest of a repository has the time when somebody last relied on it: to record,
    link or mount it, to put a manifest that refers to it, and to ask for it with `renew`, set it to
    `now`. No collection takes it out before its grace has passed since. So a collection and a push,
    each one transaction, never both find what they go by: the push sets the time of all that it
    refers to, in the rows that a collection would delete, and raises Missing for those that are
    gone.
    """

    # Pull.

    async def repository(self, name: str) -> HostedRepository | None: ...

    async def resolve(self, repository: str, tag: str) -> HostedTag | None: ...

    async def has_manifest(
        self, repository: str, digest: Digest, renew: float | None = None
    ) -> bool:
        """Cheap: for pulls. `renew` as of `blob`."""

    async def manifest(self, repository: str, digest: Digest) -> HostedManifest | None: ...

    async def blob(self, repository: str, digest: Digest, renew: float | None = None) -> int | None:
        """The size of a blob of this repository; None when it has none such. `renew`: the present
        time, where somebody asks who may push: the push relies on the answer."""

    async def tags(
        self, repository: str, count: int | None = None, last: str | None = None
    ) -> Sequence[HostedTag]:
        """In the lexical order of the specification (by code points), after `last`."""

    async def tags_of(self, repository: str, digest: Digest) -> Sequence[str]:
        """The names of those that point to this manifest, in the order of `tags`."""

    async def tagged(
        self,
        repository: str,
        order: TagOrder,
        count: int,
        after: tuple[str, float] | None = None,
    ) -> Sequence[tuple[HostedTag, HostedManifest]]:
        """Tags with what they point to, after the one of this name and `moved_at`, which may be
        gone, or have moved since."""

    async def manifests(
        self, repository: str, count: int | None = None, after: Digest | None = None
    ) -> Sequence[HostedManifest]:
        """All of the repository, with tags and without, in the order of their digests."""

    async def image_sizes(
        self, repository: str, digests: Collection[Digest]
    ) -> Mapping[Digest, int]:
        """The `image_size` of each of these manifests; of what is not there, nothing."""

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str | None = None
    ) -> Sequence[HostedManifest]:
        """In the order of their digests; at most some thousands."""

    async def repositories(
        self, seen: Seen, query: str = "", count: int | None = None, last: str | None = None
    ) -> Sequence[HostedRepository]:
        """By name, after `last`; `query`: those whose name or description has this text."""

    async def history(self, repository: str, tag: str, count: int = 100) -> Sequence[TagMove]:
        """The newest first."""

    # Push.

    async def create(
        self, repository: str, visibility: Visibility, now: float, by: str
    ) -> HostedRepository:
        """The repository of this name, made if there is none."""

    async def add_blob(
        self, repository: str, digest: Digest, size: int, now: float, by: str
    ) -> None:
        """Makes content that is held one of the repository's blobs; makes the repository, private,
        where there is none. Raises QuotaExceeded."""

    async def mount(
        self, repository: str, digest: Digest, sources: Sequence[str], now: float, by: str
    ) -> bool:
        """As `add_blob`, of a blob that one of these repositories has, which is relied on there,
        too; False when none has it."""

    async def owners(self, digest: Digest, count: int = 100) -> Sequence[str]:
        """Repositories that have this blob, for mounts that name none."""

    async def put_manifest(
        self, repository: str, manifest: HostedManifest, tag: str | None, now: float, by: str
    ) -> Digest | None:
        """Records it, and moves the tag; what the tag pointed to before, None for nothing. Raises
        Missing, TagImmutable, QuotaExceeded."""

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
        """With what is given; None when there is no such repository."""

    async def delete_repository(self, repository: str, now: float, by: str) -> bool: ...

    async def delete_tag(self, repository: str, tag: str, now: float, by: str) -> bool:
        """Raises TagImmutable."""

    async def delete_manifest(self, repository: str, digest: Digest, now: float, by: str) -> bool:
        """With its tags. One that an index refers to may go too, as the specification has it.
        Raises TagImmutable where one of its tags is to stay."""

    async def delete_blob(self, repository: str, digest: Digest) -> bool:
        """Raises Needed."""

    async def sizes(self, repositories: Sequence[str]) -> Mapping[str, int]:
        """Bytes of the blobs and manifests of each; of what is not there, nothing."""

    async def quota(self, namespace: str) -> Quota | None:
        """None where the namespace has none."""

    async def usage(self, namespace: str) -> int:
        """Bytes of all content of the namespace, each digest once."""


@dataclass(frozen=True, slots=True)
class LooseBlob:
    """A blob that no manifest of its repository refers to. `owners`: how many repositories have it,
    this one among them."""

    repository: str
    digest: Digest
    size: int
    owners: int = 1


@dataclass(frozen=True, slots=True)
class Garbage:
    """What no record needs. `repositories` have nothing in them, never had a manifest, and are
    private and without settings, as a push makes them: the next one makes them again."""

    blobs: Sequence[LooseBlob] = ()
    repositories: Sequence[str] = ()


class CollectionRecords(Protocol):
    """What garbage collection asks of the records (see mirror/hosted/garbage.py). Every method
    raises where a record cannot be read, and then has changed nothing."""

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """While the context lasts, no other process that shares the records collects; False where
        another one does. The lock is the database's, and ends with its holder."""

    async def garbage(self, relied_before: float, count: int) -> Garbage:
        """What no record needs and nobody has relied on since that moment; at most `count` of each.
        Changes nothing."""

    async def remove(self, garbage: Garbage, relied_before: float) -> Garbage:
        """Looks at each of these once more, and takes out what is still garbage, in one
        transaction; gives what was taken out. Its content stays."""

    async def expire(
        self,
        repository: str,
        tags: Sequence[HostedTag],
        manifests: Sequence[HostedManifest],
        relied_before: float,
        now: float,
        by: str,
    ) -> tuple[Sequence[HostedTag], Sequence[HostedManifest]]:
        """Takes out, in one transaction, the tags that still point where these do and have not
        moved since, immutable or not; then the manifests that no tag and no manifest that stays
        refers to, and nobody has relied on since `relied_before`. Gives what was taken out."""

    async def needed(self, digests: Collection[Digest]) -> Collection[Digest]:
        """Which of these any repository has, as a blob or as a manifest, or a manifest of any
        refers to."""

    async def content(self, after: Digest | None, count: int) -> Sequence[Digest]:
        """All content that repositories have, once each, in the order of digests."""


class CopyRefused(Exception):
    """A copy of records cannot be taken in; the message says why, and what to do, to a person.
    Nothing of it was recorded."""


class RecordCopies(Protocol):
    """All that is recorded, accounts and webhooks too, as lines of JSON that any database takes."""

    def dump(self) -> AsyncIterator[bytes]:
        """As of one moment, some lines at a time."""

    async def restore(self, lines: AsyncIterator[bytes]) -> int:
        """Takes in a copy, whose bytes may be cut anywhere, where there are no records; how many
        rows it has. All of it, or nothing: raises CopyRefused."""
