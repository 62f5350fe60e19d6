"""The registry of repositories of one's own, for who may do what is asked (see the guard)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import structlog
from cachetools import TTLCache

from ..clock import Clock
from ..contracts.content import ContentStore, StoreFull
from ..contracts.context import ANONYMOUS, RequestContext
from ..contracts.events import (
    BlobDeleted,
    BlobPushed,
    ManifestDeleted,
    ManifestPushed,
    TagDeleted,
)
from ..contracts.far_shelf import FarReader, FarShelf, Gone
from ..contracts.hosted import (
    HostedManifest,
    HostedRecords,
    Missing,
    Needed,
    QuotaExceeded,
    TagImmutable,
)
from ..contracts.identity import Action, Rights
from ..contracts.registry import (
    Body,
    BytesContent,
    FileContent,
    Outcome,
    RepositoryPage,
    Resolved,
    Stored,
    TagPage,
)
from ..contracts.uploads import HeldContent, Uploads
from ..events import Events
from ..frozen import dataclass
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.errors import (
    BlobUnknown,
    ContentMismatch,
    Denied,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    StorageFull,
    TooLarge,
    Unavailable,
    Unknown,
    Unsupported,
    quoted,
)
from ..oci.manifests import MAX_MANIFEST, OCI_INDEX, Manifest, media_type_of
from ..oci.ranges import ByteRange
from ..oci.reference import Repository, namespace_of
from ..quantities import size
from ..threads import read_aside
from .pushed_manifests import platform_of, read_pushed

log = structlog.get_logger()

T = TypeVar("T")

_LARGEST_CONFIG = 1 << 20  # bytes: of a larger one the platform is not looked for
_MOST_OWNERS = 20  # repositories that are looked at for a mount that names none
_MOST_NAMED = 5  # digests that an error names
_FRESH = 1.0  # seconds for which an answer about a tag may be given again, unless something changes


_TRIES = 3  # of what is recorded, when its content is removed just then


@dataclass(frozen=True, slots=True)
class Far:
    """Where content is kept for all nodes: `shelf` takes it, `reader` gives it."""

    shelf: FarShelf
    reader: FarReader


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where a hosted registry's content is: `store` gives it, `held` keeps it, `uploads` take it
    in. `largest`: bytes of a blob, at most. `far`: where it is kept instead, so that what is here
    is a copy."""

    store: ContentStore
    held: HeldContent
    uploads: Uploads
    largest: int = 1 << 40
    far: Far | None = None


class HostedRegistry:
    """A Reader, Writer, Deleter and Lister over records and content.

    What is recorded tells which repository has what; that content is in the store says nothing of
    who may have it. It does what it is asked for whoever asks, but for two questions to `rights`:
    whether somebody looks for a blob in order to push, and which repositories a mount may take a
    blob from that names none.
    """

    def __init__(
        self,
        registry: str,
        records: HostedRecords,
        shelves: Shelves,
        rights: Rights,
        events: Events,
        clock: Clock,
    ) -> None:
        """`registry`: the name that its repositories are given to others by."""
        self._registry = registry
        self._records = records
        self._store = shelves.store
        self._held = shelves.held
        self._uploads = shelves.uploads
        self._largest = shelves.largest
        self._far = shelves.far
        self._rights = rights
        self._events = events
        self._now = clock.wall
        self._unbounded: TTLCache[str, None] = TTLCache(1024, 1.0, clock.monotonic)
        """Namespaces that have no quota, for a second."""

    # Reader.

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        found = await self._records.resolve(repository.name, tag)
        if found is None:
            raise await self._unknown(
                repository, ManifestUnknown(f"{repository.name} has no tag {quoted(tag)}")
            )
        descriptor = Descriptor(OCTET_STREAM, found.digest, None)
        return Resolved(descriptor, Outcome.HIT, fresh_for=_FRESH, vouched=True)

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        # Whoever pushes an index looks for its parts first, and does not push those that are here.
        # Not without a login: each pull of what is public would be written down.
        renew = await self._pushing(context, repository)
        if not await self._records.has_manifest(repository.name, digest, renew):
            raise await self._unknown(
                repository, ManifestUnknown(f"{repository.name} has no manifest {digest}")
            )
        data = await self._read(digest, MAX_MANIFEST)
        if data is None:
            raise _lost(repository, digest)
        return BytesContent(Descriptor(media_type_of(data), digest, len(data)), data, Outcome.HIT)

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        renew = await self._relied_on(context, repository)
        found = await self._records.blob(repository.name, digest, renew)
        if found is None:
            raise await self._no_blob(repository, digest)
        return Descriptor(OCTET_STREAM, digest, found)

    async def _relied_on(self, context: RequestContext, repository: Repository) -> float | None:
        """Now, if this client may go by what it finds: it does not push a blob that is here, and
        relies on it for the manifest. containerd asks without its login first, where that is
        enough."""
        if context.principal == ANONYMOUS:
            return self._now()
        return await self._pushing(context, repository)

    async def _pushing(self, context: RequestContext, repository: Repository) -> float | None:
        """Now, if the principal may push."""
        may = await self._rights.may(context.principal, Action.PUSH, repository.name)
        return self._now() if may else None

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        if await self._records.blob(repository.name, digest) is None:
            raise await self._no_blob(repository, digest)
        content = await self._store.open(digest)
        if content is not None:
            return content
        if self._far is None:
            raise _lost(repository, digest)
        try:
            return await self._far.reader.blob(context, repository, digest, part)
        except BlobUnknown as error:
            raise _lost(repository, digest) from error

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        """Empty also where there is no such repository yet ("Listing Referrers": never a 404)."""
        found = await self._records.referrers(repository.name, digest, artifact_type)
        data = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [_listed(each) for each in found],
            }
        ).encode()
        descriptor = Descriptor(OCI_INDEX, Digest.of(data), len(data))
        return BytesContent(descriptor, data, Outcome.HIT)

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        one_more = None if count is None else count + 1
        found = [tag.name for tag in await self._records.tags(repository.name, one_more, last)]
        if not found and await self._records.repository(repository.name) is None:
            raise NameUnknown(f"there is no repository {quoted(repository.name)}")
        if count is None or len(found) <= count:
            return TagPage(found)
        return TagPage(found[:count], found[count - 1] if count else last)

    # Lister.

    async def repositories(
        self,
        context: RequestContext,
        registry: str,
        count: int | None = None,
        last: str | None = None,
    ) -> RepositoryPage:
        seen = await self._rights.seen(context.principal)
        one_more = None if count is None else count + 1
        found = await self._records.repositories(seen, count=one_more, last=last)
        shown = [Repository(self._registry, each.name) for each in found[:count]]
        more = count is not None and len(found) > count and shown
        return RepositoryPage(shown, shown[-1].name if more else None)

    # Writer.

    async def begin_upload(self, context: RequestContext, repository: Repository) -> str:
        return await self._uploads.begin(repository.name)

    async def append(
        self,
        context: RequestContext,
        repository: Repository,
        session: str,
        start: int | None,
        data: Body,
    ) -> int:
        if data.size is not None and data.size > self._largest:
            raise TooLarge(f"a blob has {size(self._largest)} at most here (limits.blob)")
        await self._leave_room(repository, data.size or 0)
        try:
            return await self._uploads.append(repository.name, session, start, data)
        except StoreFull as error:
            raise _full(error) from error

    async def _leave_room(self, repository: Repository, more: int) -> None:
        """Refuses bytes that would be beyond the quota in the end, before they fill the store: of
        what is no blob of a repository in the end, only a collection frees the room."""
        namespace = namespace_of(repository.name)
        if namespace in self._unbounded:
            return
        quota = await self._records.quota(namespace)
        if quota is None:
            self._unbounded[namespace] = None
            return
        asked = more + await self._uploads.under_way(repository.name)
        if quota.used + asked > quota.limit:
            raise _too_much(QuotaExceeded(namespace, quota.used, quota.limit, asked))

    async def uploaded(self, context: RequestContext, repository: Repository, session: str) -> int:
        return await self._uploads.size(repository.name, session)

    async def finish_upload(
        self, context: RequestContext, repository: Repository, session: str, digest: Digest
    ) -> None:
        try:
            await self._leave_room(repository, 0)
        except Denied:
            # It would count for a day, and refuse what others of the namespace push.
            with contextlib.suppress(RegistryError):
                await self._uploads.cancel(repository.name, session)
            raise
        bring = None if self._far is None else self._far.shelf.bring_file
        try:
            length = await self._uploads.finish(repository.name, session, digest, bring)
        except StoreFull as error:
            raise _full(error) from error
        by = context.principal.name
        records = self._records
        try:
            await self._kept(
                digest,
                lambda: records.add_blob(repository.name, digest, length, self._now(), by),
            )
        except QuotaExceeded as error:
            raise _too_much(error) from error
        self._events.emit(BlobPushed(repository, digest, length, by))

    async def cancel_upload(
        self, context: RequestContext, repository: Repository, session: str
    ) -> None:
        await self._uploads.cancel(repository.name, session)

    async def mount(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        source: Repository | None,
    ) -> bool:
        if source is None:
            sources = await self._readable(context, digest)
        elif await self._records.blob(source.name, digest) is not None:
            sources = [source.name]
        else:
            sources = ()
        if not sources:
            return False
        by = context.principal.name
        records = self._records
        try:
            return await self._kept(
                digest, lambda: records.mount(repository.name, digest, sources, self._now(), by)
            )
        except QuotaExceeded as error:
            raise _too_much(error) from error

    async def put_manifest(
        self,
        context: RequestContext,
        repository: Repository,
        reference: str | Digest,
        data: bytes,
        media_type: str,
    ) -> Stored:
        named = isinstance(reference, Digest)
        digest = reference if isinstance(reference, Digest) else Digest.of(data)
        if named and not digest.matches(data):
            raise ContentMismatch(f"the manifest's bytes are not {digest}")
        manifest, record = await read_aside(read_pushed, data, media_type, digest)
        if not record.platforms and manifest.config is not None:
            record = await self._with_platform(record, manifest.config)
        now, by = self._now(), context.principal.name
        try:
            await self._held.put_held(digest, data)
            tag = None if isinstance(reference, Digest) else reference
            if self._far is not None:
                await self._far.shelf.bring(digest)
            before = await self._kept(
                digest,
                lambda: self._records.put_manifest(repository.name, record, tag, now, by),
            )
            if self._far is not None:
                await self._held.let_go(digest)
        except StoreFull as error:
            raise _full(error) from error
        except QuotaExceeded as error:
            raise _too_much(error) from error
        except TagImmutable as error:
            raise Denied(
                f"the tag {quoted(str(reference))} of {repository.name} is immutable: it stays "
                "what it is; push another tag"
            ) from error
        except Missing as error:
            raise _lacks(repository, manifest, error.digests) from error
        self._events.emit(
            ManifestPushed(repository, digest, record.media_type, len(data), tag or "", before, by)
        )
        return Stored(Descriptor(record.media_type, digest, len(data)), record.subject)

    # Deleter.

    async def delete_tag(self, context: RequestContext, repository: Repository, tag: str) -> None:
        by = context.principal.name
        try:
            deleted = await self._records.delete_tag(repository.name, tag, self._now(), by)
        except TagImmutable as error:
            raise Denied(f"the tag {quoted(tag)} of {repository.name} is immutable") from error
        if not deleted:
            raise await self._unknown(
                repository, ManifestUnknown(f"{repository.name} has no tag {quoted(tag)}")
            )
        self._events.emit(TagDeleted(repository, tag, by))

    async def delete_manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        by = context.principal.name
        try:
            deleted = await self._records.delete_manifest(repository.name, digest, self._now(), by)
        except TagImmutable as error:
            raise Denied(f"an immutable tag of {repository.name} points to {digest}") from error
        if not deleted:
            raise await self._unknown(
                repository, ManifestUnknown(f"{repository.name} has no manifest {digest}")
            )
        self._events.emit(ManifestDeleted(repository, digest, by))

    async def delete_blob(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        """Refused while a manifest of the repository needs the blob: the image would be broken."""
        try:
            deleted = await self._records.delete_blob(repository.name, digest)
        except Needed as error:
            raise Unsupported(
                f"the manifest {error.manifest} needs this blob: delete that first"
            ) from error
        if not deleted:
            raise await self._no_blob(repository, digest)
        self._events.emit(BlobDeleted(repository, digest, context.principal.name))

    # Inside.

    async def _read(self, digest: Digest, limit: int) -> bytes | None:
        data = await self._store.read(digest, limit)
        if data is None and self._far is not None:
            data = await self._far.reader.read(digest, limit)
        return data

    async def _kept(self, digest: Digest, record: Callable[[], Awaitable[T]]) -> T:
        """What `record` gives, which records content that is kept for all nodes. Where a collection
        has just removed it, it is brought there again first."""
        for _ in range(_TRIES):
            try:
                return await record()
            except Gone:
                if self._far is None or await self._far.shelf.bring(digest) is None:
                    break
        raise Unavailable(f"{digest} was removed just now: push it again", retry_after=1)

    async def _readable(self, context: RequestContext, digest: Digest) -> Sequence[str]:
        """Repositories that have this blob, and that the principal may pull from, with the token
        that was shown: for another, clients that named no source would not know what to ask."""
        owners = await self._records.owners(digest, _MOST_OWNERS)
        may, principal = self._rights.may, context.principal
        return [name for name in owners if await may(principal, Action.PULL, name)]

    async def _with_platform(self, record: HostedManifest, config: Descriptor) -> HostedManifest:
        if config.size is None or config.size > _LARGEST_CONFIG:
            return record
        data = await self._read(config.digest, _LARGEST_CONFIG)
        platform = None if data is None else platform_of(data)
        return record if platform is None else dataclasses.replace(record, platforms=(platform,))

    async def _no_blob(self, repository: Repository, digest: Digest) -> RegistryError:
        return await self._unknown(
            repository, BlobUnknown(f"{repository.name} has no blob {digest}")
        )

    async def _unknown(self, repository: Repository, error: Unknown) -> RegistryError:
        """This error, where the repository is there."""
        if await self._records.repository(repository.name) is None:
            return NameUnknown(f"there is no repository {quoted(repository.name)}")
        return error


def _listed(manifest: HostedManifest) -> dict[str, Any]:
    """A manifest in a list of referrers ("Listing Referrers")."""
    listed: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": str(manifest.digest),
        "size": manifest.size,
    }
    if manifest.artifact_type is not None:
        listed["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        listed["annotations"] = dict(manifest.annotations)
    return listed


def _lost(repository: Repository, digest: Digest) -> RegistryError:
    log.error("hosted_content_lost", repository=repository.name, digest=str(digest))
    return BlobUnknown(
        f"{digest} of {repository.name} is recorded, but its bytes are lost here: push it, or "
        "restore a backup"
    )


def _lacks(repository: Repository, manifest: Manifest, digests: Sequence[Digest]) -> RegistryError:
    named = ", ".join(map(str, digests[:_MOST_NAMED]))
    more = len(digests) - _MOST_NAMED
    return ManifestBlobUnknown(
        f"{repository.name} lacks what the manifest refers to: {named}"
        + (f", and {more} more" if more > 0 else "")
    )


def _too_much(error: QuotaExceeded) -> RegistryError:
    return Denied(
        f"{error.namespace} may have {size(error.limit)}, has {size(error.used)}, and "
        f"this needs {size(error.asked)} more: delete images, or have the quota raised"
    )


def _full(error: StoreFull) -> RegistryError:
    return StorageFull(f"there is no room for it here: {error}")
