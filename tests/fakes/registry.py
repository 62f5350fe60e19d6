"""A Reader for tests: it answers what it is told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from mirror.contracts.context import RequestContext
from mirror.contracts.registry import BytesContent, Outcome, Provenance, Resolved, TagPage
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, ManifestUnknown, NameUnknown, RegistryError
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository


class FakeRegistry:
    """Manifests, tags and blobs, in memory and in files below `folder`.

    What it holds, every repository shows. `asked` lists the calls as (method, repository, what),
    `contexts` what each of them was made for.
    `failures` maps a method's name to the error that it raises; `waits` maps one to an event that
    it waits for. `open` counts the contents handed out and not yet closed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifests: dict[Digest, BytesContent] = {}
        self._tags: dict[str, Resolved] = {}
        self._blobs: dict[Digest, FakeBlob] = {}
        self.asked: list[tuple[str, Repository, object]] = []
        self.contexts: list[RequestContext] = []
        self.failures: dict[str, Exception] = {}
        self.waits: dict[str, asyncio.Event] = {}
        self.open = 0
        self.damaged: list[tuple[Digest, str]] = []

    def add_manifest(
        self,
        data: bytes,
        *tags: str,
        media_type: str = OCI_MANIFEST,
        outcome: Outcome = Outcome.HIT,
        tag_outcome: Outcome = Outcome.HIT,
        age: float = 0.0,
        fresh_for: float = 60.0,
    ) -> Digest:
        digest = Digest.of(data)
        descriptor = Descriptor(media_type, digest, len(data))
        self._manifests[digest] = BytesContent(descriptor, data, outcome)
        for tag in tags:
            self._tags[tag] = Resolved(descriptor, tag_outcome, age, fresh_for)
        return digest

    def add_image(self, created: object, *tags: str, note: object = "") -> Digest:
        """An image without layers, whose configuration says when it was built."""
        config = json.dumps({"created": created, "note": note}).encode()
        entry = {"mediaType": "x/y", "digest": str(self.add_blob(config)), "size": len(config)}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": []}
        return self.add_manifest(json.dumps(document).encode(), *tags)

    def add_blob(self, data: bytes, *, outcome: Outcome = Outcome.HIT) -> Digest:
        """A blob that is here."""
        blob = self.grow_blob(data, outcome=outcome)
        blob.grow(len(data))
        blob.finish()
        return blob.digest

    def grow_blob(
        self, data: bytes, *, outcome: Outcome = Outcome.FILLED, size_known: bool = True
    ) -> FakeBlob:
        """A blob that is being fetched: nothing of it may be read until it is told to grow."""
        digest = Digest.of(data)
        path = self._folder / digest.hex
        path.touch()
        blob = FakeBlob(path, digest, data, outcome, size_known)
        self._blobs[digest] = blob
        return blob

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        await self._ask(context, "resolve", repository, tag)
        if tag not in self._tags:
            raise ManifestUnknown(f"{repository}:{tag} is not known here")
        return self._tags[tag]

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        await self._ask(context, "manifest", repository, digest)
        if digest not in self._manifests:
            raise ManifestUnknown(f"{repository}@{digest} is not known here")
        return self._manifests[digest]

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        await self._ask(context, "stat", repository, digest)
        return self._blob(repository, digest).descriptor

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FakeContent:
        await self._ask(context, "blob", repository, digest)
        return FakeContent(self, self._blob(repository, digest))

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        await self._ask(context, "referrers", repository, (digest, artifact_type))
        data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
        descriptor = Descriptor(OCI_INDEX, Digest.of(data), len(data))
        return BytesContent(descriptor, data, Outcome.PASSED)

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        await self._ask(context, "tags", repository, (count, last))
        if not self._tags:
            raise NameUnknown(f"{repository} is not known here")
        names = sorted(tag for tag in self._tags if last is None or tag > last)
        page = names[:count]
        return TagPage(page, page[-1] if len(page) < len(names) else None)

    async def _ask(
        self, context: RequestContext, method: str, repository: Repository, what: object
    ) -> None:
        self.contexts.append(context)
        self.asked.append((method, repository, what))
        if method in self.waits:
            await self.waits[method].wait()
        if method in self.failures:
            raise self.failures[method]

    def _blob(self, repository: Repository, digest: Digest) -> FakeBlob:
        if digest not in self._blobs:
            raise BlobUnknown(f"{repository}@{digest} is not known here")
        return self._blobs[digest]


class FakeBlob:
    """A blob as it comes in: the test says how far."""

    def __init__(
        self, path: Path, digest: Digest, data: bytes, outcome: Outcome, size_known: bool
    ) -> None:
        self.path = path
        self.digest = digest
        self.outcome = outcome
        self._data = data
        self._size_known = size_known
        self._readable = 0
        self._finished = False
        self._failed: RegistryError | None = None
        self._changed = asyncio.Event()

    @property
    def descriptor(self) -> Descriptor:
        known = self._size_known or self._finished
        return Descriptor(OCTET_STREAM, self.digest, len(self._data) if known else None)

    def grow(self, upto: int) -> None:
        """Bytes up to this offset may be read from now on."""
        with self.path.open("ab") as file:
            file.write(self._data[self._readable : upto])
        self._readable = upto
        self._wake()

    def finish(self) -> None:
        """All of it is here, and proven."""
        assert self._readable == len(self._data)
        self._finished = True
        self._wake()

    def fail(self, error: RegistryError) -> None:
        self._failed = error
        self._wake()

    async def readable(self, beyond: int) -> int:
        while not self._finished:
            if self._failed is not None:
                raise self._failed
            if self._readable > beyond:
                break
            await self._changed.wait()
        return max(self._readable, beyond)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class FakeContent:
    """A FileContent: one reader's hold on a FakeBlob."""

    def __init__(self, registry: FakeRegistry, blob: FakeBlob) -> None:
        self._registry = registry
        self._blob = blob
        self._file = os.open(blob.path, os.O_RDONLY)
        self._closed = False
        registry.open += 1

    @property
    def descriptor(self) -> Descriptor:
        return self._blob.descriptor

    @property
    def outcome(self) -> Outcome:
        return self._blob.outcome

    @property
    def provenance(self) -> Provenance:
        return Provenance.VOUCHED if self._blob.outcome is Outcome.FILLED else Provenance.HERE

    async def proven(self) -> None:
        await self._blob.readable(1 << 62)

    def fileno(self) -> int:
        assert not self._closed
        return self._file

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self._file, count, offset)

    def damaged(self, reason: str) -> None:
        self._registry.damaged.append((self._blob.descriptor.digest, reason))

    async def readable(self, beyond: int) -> int:
        return await self._blob.readable(beyond)

    def close(self) -> None:
        assert not self._closed, "closed twice"
        self._closed = True
        os.close(self._file)
        self._registry.open -= 1
