"""Hosted content that is in the object store and not here: read as a registry's is, by a fill.

The store is the registry itself: what it gives is read while it comes, up to the end, which is held
back until it is proven. What is wrong there is wrong for all nodes: it is set aside, and told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

import structlog

from ..clock import Clock
from ..contracts.content import ContentStore, StoreFull
from ..contracts.context import Asker, RequestContext
from ..contracts.events import UpstreamRead, UpstreamRejected
from ..contracts.registry import BytesContent, FileContent, TagPage
from ..contracts.second_tier import FarContent, FarFault, SecondTier, SecondTierFault, TierStream
from ..contracts.upstream import StreamContent
from ..events import Events
from ..frozen import dataclass
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.errors import BlobUnknown, Denied, RegistryError, Unavailable, Untrustworthy
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..tasks import ended
from ..threads import aside, read_aside
from ..times import DOWNLOADS
from .fills.table import Fills

log = structlog.get_logger()

NAME = "object-store"
"""As which it is counted among the endpoints."""

_TRIES = 3
_BLOBS_ALONE = "the object store has blobs alone"


class _Body:
    """A StreamContent: a part of an object."""

    vouched = True
    doubted = kept = False
    source = NAME

    def __init__(self, content: ObjectStore, digest: Digest, stream: TierStream) -> None:
        self.descriptor = Descriptor(OCTET_STREAM, digest, stream.size)
        self.start = stream.start
        self._content = content
        self._stream = stream

    async def read(self) -> bytes:
        try:
            piece = await self._stream.read()
        except SecondTierFault as error:
            raise Unavailable(f"the object store broke off: {error}", retry_after=1) from error
        self._content.events.emit(UpstreamRead("", NAME, len(piece)))
        return piece

    def reject(self, reason: str) -> None:
        self._content.wrong(self.descriptor.digest, reason)

    async def close(self) -> None:
        await self._stream.close()


class ObjectStore:
    """An Upstream that has blobs alone. What is lost there is BlobUnknown, and what cannot be asked
    for now is Unavailable."""

    def __init__(
        self,
        tier: SecondTier,
        content: FarContent,
        events: Events,
        name_of: Callable[[Digest], str],
    ) -> None:
        """`name_of`: the object of a content."""
        self._name_of = name_of
        self._tier = tier
        self._content = content
        self.events = events
        self._setting_aside: dict[Digest, asyncio.Task[None]] = {}

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        return _Body(self, digest, await self.stream(digest, range))

    async def stream(self, digest: Digest, range: ByteRange | None = None) -> TierStream:
        name = self._name_of(digest)
        try:
            stream = await self._tier.get(digest, range)
            if stream is not None:
                return stream
            page = await self._content.page(name[:-1], 32)
        except (SecondTierFault, FarFault) as error:
            message = f"the object store, which has it, gives no answer: {error}"
            raise Unavailable(message, retry_after=5) from error
        if any(one.name == name for one in page.objects):
            raise Unavailable("the object store, which has it, does not give it", retry_after=5)
        raise BlobUnknown(f"{digest} is not in the object store")

    def wrong(self, digest: Digest, reason: str) -> None:
        log.error("hosted_content_wrong", digest=str(digest), reason=reason)
        self.events.emit(UpstreamRejected("", NAME))
        if digest not in self._setting_aside:
            task = asyncio.create_task(self._set_aside(digest), name=f"set aside {digest}")
            self._setting_aside[digest] = task
            task.add_done_callback(lambda _: self._setting_aside.pop(digest, None))

    async def _set_aside(self, digest: Digest) -> None:
        """It may be the only copy, so that it is read once more: what was wrong may have been
        replaced since it was opened, or have become wrong on its way."""
        try:
            if await self._is_right(digest):
                log.warning("hosted_content_right_again", digest=str(digest))
                return
            await self._content.set_aside(digest)
        except (FarFault, RegistryError) as error:
            log.warning("hosted_content_not_set_aside", digest=str(digest), reason=str(error))

    async def _is_right(self, digest: Digest) -> bool:
        """Raises RegistryError."""
        hasher = digest.hasher()
        async for piece in _all_of(await self.stream(digest)):
            await aside(hasher.update, piece)
        return hasher.hexdigest() == digest.hex

    async def close(self) -> None:
        """What is being looked at is not waited for: it is found wrong again."""
        tasks = list(self._setting_aside.values())
        for task in tasks:
            task.cancel()
        await ended(tasks)

    # All else is asked of the records.

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        raise Denied(_BLOBS_ALONE)

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        return await self.resolve(asker, repository, tag)

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        raise Denied(_BLOBS_ALONE)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        raise Denied(_BLOBS_ALONE)

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        raise Denied(_BLOBS_ALONE)

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        raise Denied(_BLOBS_ALONE)

    def is_down(self, repository: Repository, tag: str) -> bool:
        return False

    def is_scarce(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class HostedContent:
    """A FarReader. `registry`: as which its fills are counted."""

    registry: str
    objects: ObjectStore
    store: ContentStore
    fills: Fills
    clock: Clock

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        try:
            stream = await self.objects.stream(digest)
        except BlobUnknown:
            return None
        if stream.size > limit:
            await stream.close()
            return None
        data = b"".join([piece async for piece in _all_of(stream)])
        if not await read_aside(digest.matches, data):
            self.objects.wrong(digest, "its bytes are not its digest's")
            return None
        try:
            await self.store.put(digest, data, source=self.registry)
        except (StoreFull, OSError) as error:
            log.warning("hosted_content_not_stored", digest=str(digest), reason=str(error))
        return data

    async def pieces(self, digest: Digest) -> AsyncIterator[bytes]:
        async for piece in _all_of(await self.objects.stream(digest)):
            yield piece

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None,
    ) -> FileContent:
        part = None if part == ByteRange(0) else part
        # By whatever name it is asked for: a mirrored registry may have that name, too.
        repository = Repository(self.registry, repository.name)
        began = self.clock.monotonic()
        for tries_left in reversed(range(_TRIES)):
            fill, outcome = self.fills.join(
                context, digest, self.objects, repository, DOWNLOADS.first_byte, part
            )
            reader = fill.reader(outcome, repository, part, context.client)
            try:
                await reader.readable(reader.start)
                return reader
            except Untrustworthy:
                reader.close()  # it was set aside
                raise
            except Unavailable:
                reader.close()
                waited = self.clock.monotonic() - began
                if not tries_left or waited >= DOWNLOADS.first_byte:
                    raise
            except BaseException:
                reader.close()
                raise
            content = await self.store.open(digest)
            if content is not None:
                return content
        raise AssertionError("the last try returns or raises")


async def _all_of(stream: TierStream) -> AsyncIterator[bytes]:
    """What it gives, and closes it. Raises Unavailable."""
    try:
        while piece := await stream.read():
            yield piece
    except SecondTierFault as error:
        raise Unavailable(f"the object store broke off: {error}", retry_after=1) from error
    finally:
        await stream.close()
