"""What is recorded of repositories of one's own. The content itself is in the store.

Records are rows in a database that several nodes may share. Every method is one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ..oci.digest import Digest
from ..oci.manifests import Platform


class Visibility(StrEnum):
    PUBLIC = "public"  # anybody may pull, without a login
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Which tags stay: those that `match` (patterns as those of `freshness`), of which the `keep`
    moved last, or moved within `younger` seconds. A rule with neither keeps all that match. Where a
    repository has rules, a tag that no rule keeps goes, and so does a manifest without a tag once
    it was pushed `untagged` seconds ago."""

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
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class HostedManifest:
    """A manifest of one repository. `blobs` and `manifests` are what it refers to and has to stay;
    what is foreign (non-distributable) is in neither. `image_size`: bytes of its blobs together."""

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


@dataclass(frozen=True, slots=True)
class HostedTag:
    name: str
    digest: Digest
    moved_at: float
    moved_by: str = ""


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

    Each blob and manifest has a `not before`, before which no collection removes it: to record,
    link, mount, and to ask for it with `renew`, sets it to `now + GRACE`.
    """

    # Pull.

    async def repository(self, name: str) -> HostedRepository | None: ...

    async def resolve(self, repository: str, tag: str) -> HostedTag | None: ...

    async def has_manifest(self, repository: str, digest: Digest) -> bool:
        """Cheap: for pulls."""

    async def manifest(self, repository: str, digest: Digest) -> HostedManifest | None: ...

    async def blob(self, repository: str, digest: Digest, renew: float | None = None) -> int | None:
        """The size of a blob of this repository; None when it has none such. `renew`: the present
        time, where somebody asks who may push: the push relies on the answer."""

    async def tags(
        self, repository: str, count: int | None = None, last: str | None = None
    ) -> Sequence[HostedTag]:
        """In the lexical order of the specification (by code points), after `last`."""

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
        """As `add_blob`, of a blob that one of these repositories has; False when none has it."""

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

    async def usage(self, namespace: str) -> int:
        """Bytes of all content of the namespace, each digest once."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a collection may remove: links of blobs that no manifest of their repository refers to,
    and content that no repository has."""

    links: int
    content: Sequence[tuple[Digest, int]]


class CollectionRecords(Protocol):
    """What garbage collection asks of the records (see mirror/hosted/garbage.py)."""

    async def marked(self, now: float, count: int) -> Garbage:
        """Marks what no record needs and whose `not before` has passed, at most `count` digests;
        forgets marks of what is needed again. Raises, and has marked nothing, where any record
        cannot be read."""

    async def swept(self, marked_before: float, now: float, count: int) -> Garbage:
        """Looks at what was marked before that moment once more, and takes the records of what is
        still not needed out, in one transaction; the content of it may be released."""

    async def dangling(self, after: Digest | None, count: int) -> Sequence[Digest]:
        """Content that records need, in the order of digests, to be looked for in the store."""
