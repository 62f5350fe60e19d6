"""A registry far away, in memory, that does as the test says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection

from mirror.contracts.context import Asker
from mirror.contracts.registry import BytesContent, Outcome, TagPage
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, Denied, ManifestUnknown, RangeInvalid, Untrustworthy
from mirror.oci.manifests import OCI_MANIFEST, media_type_of
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository


def manifest_of(*blobs: bytes, note: str = "") -> bytes:
    """An OCI manifest whose config is the first of these blobs, and whose layers are the rest."""
    config, *layers = [
        {"mediaType": OCTET_STREAM, "digest": str(Digest.of(blob)), "size": len(blob)}
        for blob in blobs or (b"{}",)
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": layers,
        "annotations": {"note": note},
    }
    return json.dumps(document).encode()


class FakeStream:
    """A body in pieces of its upstream's `piece` bytes. The upstream's `before_read(position)` may
    hold it, or break it."""

    def __init__(
        self,
        digest: Digest,
        data: bytes,
        size: int | None,
        start: int,
        upstream: FakeUpstream,
    ) -> None:
        self.descriptor = Descriptor(OCTET_STREAM, digest, size)
        self.start = start
        self.source = "fake"
        self.vouched = upstream.vouched
        self.kept = False
        self._data = data
        self._position = start
        self._upstream = upstream
        self._closed = False

    @property
    def doubted(self) -> bool:
        return not self.vouched

    async def read(self) -> bytes:
        if self._upstream.before_read is not None:
            await self._upstream.before_read(self._position)
        piece = self._data[self._position : self._position + self._upstream.piece]
        self._position += len(piece)
        self._upstream.blob_bytes += len(piece)
        return piece

    def reject(self, reason: str) -> None:
        self._upstream.rejected.append(reason)
        self._upstream.corrupt = False  # as a pool does: the next ask goes elsewhere

    async def close(self) -> None:
        if not self._closed:
            self._upstream.open_blobs -= Counter([self.descriptor.digest])
        self._closed = True


class FakeUpstream:
    """Manifests, tags and blobs in memory. Counts what it is asked, and notes for whom."""

    def __init__(self) -> None:
        self.tags_of: dict[str, Digest] = {}
        self.manifests: dict[Digest, bytes] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.lists: dict[Digest, bytes] = {}  # of referrers
        self.asked: Counter[str] = Counter()
        self.clients: list[tuple[str, str]] = []  # what was asked, and for whom
        self.asker: Asker | None = None  # the last; not all: a fill keeps its error, and frames
        self.ranges: list[ByteRange | None] = []
        self.rejected: list[str] = []
        self.down: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.before_read: Callable[[int], asyncio.Future[None]] | None = None
        self.piece = 1 << 16
        self.says_size = True
        self.takes_ranges = True
        self.corrupt = False
        self.vouched = True
        self.lacking: set[Repository] = set()  # repositories that have no blob
        self.announces: int | None = None
        self.stat_says: Exception | None = None
        self.blob_bytes = 0
        self.open_blobs: Counter[Digest] = Counter()  # how many streams of each

    def is_down(self, repository: Repository, tag: str) -> bool:
        return False

    def is_scarce(self) -> bool:
        return False

    def push(self, tag: str, manifest: bytes, *blobs: bytes) -> Digest:
        digest = Digest.of(manifest)
        self.manifests[digest] = manifest
        self.tags_of[tag] = digest
        for blob in blobs:
            self.blobs[Digest.of(blob)] = blob
        return digest

    def _note(self, what: str, asker: Asker) -> None:
        self.clients.append((what, asker.client))
        self.asker = asker

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        await self.gate.wait()
        if self.down is not None:
            raise self.down

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        self._note("resolve", asker)
        await self._ask("resolve")
        by_digest = {str(digest): digest for digest in self.manifests}
        digest = self.tags_of.get(tag) or by_digest.get(tag)
        if digest is None:
            raise ManifestUnknown(f"no tag {tag}")
        if digest in passed_over:
            raise Untrustworthy(f"no other word than {digest}")
        data = self.manifests[digest]
        return Descriptor(media_type_of(data), digest, len(data))

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        return await self.resolve(asker, repository, tag)

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        self._note("manifest", asker)
        await self._ask("manifest")
        if digest not in self.manifests:
            raise ManifestUnknown(f"no manifest {digest}")
        data = self.manifests[digest]
        descriptor = Descriptor(media_type_of(data), digest, len(data))
        return BytesContent(descriptor, data, Outcome.FILLED, self.vouched)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        self._note("stat", asker)
        await self._ask("stat")
        if self.stat_says is not None:
            raise self.stat_says
        if digest not in self.blobs or repository in self.lacking:
            raise BlobUnknown(f"no blob {digest}")
        return Descriptor(OCTET_STREAM, digest, len(self.blobs[digest]))

    @property
    def open_streams(self) -> int:
        return self.open_blobs.total()

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> FakeStream:
        self.ranges.append(range)
        self._note("blob", asker)
        await self._ask("blob")
        if vouched and not self.vouched:
            raise Denied("it is not the registry itself")
        if digest not in self.blobs or repository in self.lacking:
            raise BlobUnknown(f"no blob {digest}")
        data = self.blobs[digest]
        if self.corrupt:
            data = bytes([data[0] ^ 255]) + data[1:]
        start = range.start if range and self.takes_ranges else 0
        if start >= len(data) and range:
            raise RangeInvalid(len(data))
        size = (self.announces or len(data)) if self.says_size else None
        self.open_blobs[digest] += 1
        return FakeStream(digest, data, size, start, self)

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        self._note("referrers", asker)
        await self._ask("referrers")
        if digest not in self.lists:
            raise ManifestUnknown("none")
        return self.lists[digest]

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        self._note("tags", asker)
        await self._ask("tags")
        return TagPage(sorted(self.tags_of))


class NamedUpstream:
    """One endpoint of a pool: whatever it is asked, it answers with its name.

    A subclass says in `_answer` how long each answer takes and what it fails with, and in `_blob`
    what a blob's stream does.
    """

    name: str

    async def _answer(self) -> object:
        raise NotImplementedError

    async def _blob(self, range: ByteRange | None) -> NamedStream:
        raise NotImplementedError

    def is_down(self, repository: Repository, tag: str) -> bool:
        return False

    def is_scarce(self) -> bool:
        return False

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        await self._answer()
        return Descriptor(OCI_MANIFEST, Digest.of(self.name.encode()), 7)

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        return await self.resolve(asker, repository, tag)

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        await self._answer()
        return BytesContent(Descriptor(OCI_MANIFEST, digest, 7), self.name.encode(), Outcome.FILLED)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        await self._answer()
        return Descriptor(OCTET_STREAM, digest, 7)

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> NamedStream:
        return await self._blob(range)

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        await self._answer()
        return self.name.encode()

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        await self._answer()
        return TagPage((self.name,))


class NamedStream:
    """A body of an endpoint's; a subclass says in `read` what comes of it."""

    kept = False

    def __init__(
        self, source: str, descriptor: Descriptor, start: int = 0, vouched: bool = True
    ) -> None:
        self.source, self.descriptor, self.start, self.vouched = source, descriptor, start, vouched
        self.rejected: list[str] = []
        self.closed = False

    @property
    def doubted(self) -> bool:
        return not self.vouched

    async def read(self) -> bytes:
        raise NotImplementedError

    def reject(self, reason: str) -> None:
        self.rejected.append(reason)

    async def close(self) -> None:
        self.closed = True
