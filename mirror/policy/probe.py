"""The image by which a client's set-up is proven (oci/probe_image.py), in every registry that is
served: whatever the upstream has, whether it answers, and whatever `access` allows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..contracts.context import RequestContext
from ..contracts.registry import (
    BytesContent,
    FileContent,
    Outcome,
    Provenance,
    Reader,
    Resolved,
    TagPage,
)
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import BlobUnknown, ManifestUnknown
from ..oci.manifests import OCI_INDEX
from ..oci.probe_image import REPOSITORY, Piece, probe_image
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..oci.referrers import NONE
from .forwarding import Forwarding

T = TypeVar("T")


class Probed(Forwarding):
    """A Reader: another, and the image. Any tag of its repository is the image: clients ask for one
    that they have never pulled."""

    def __init__(self, inner: Reader, registries: frozenset[str]) -> None:
        self._inner = inner
        self._registries = registries

    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        return await ask(_PROBE if self._is_probe(repository) else self._inner)

    def _is_probe(self, repository: Repository) -> bool:
        return repository.name == REPOSITORY and repository.registry in self._registries


class _Probe:
    """A Reader of the image alone."""

    async def resolve(self, _: RequestContext, repository: Repository, tag: str) -> Resolved:
        return Resolved(probe_image().index.descriptor, Outcome.HIT, vouched=True)

    async def manifest(
        self, _: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        found = probe_image().manifests.get(digest)
        if found is None:
            raise ManifestUnknown(str(digest))
        return BytesContent(found.descriptor, found.data, Outcome.HIT)

    async def stat(self, _: RequestContext, repository: Repository, digest: Digest) -> Descriptor:
        return _blob(digest).descriptor

    async def blob(
        self,
        _: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        return _InMemory(_blob(digest))

    async def referrers(
        self,
        _: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        descriptor = Descriptor(OCI_INDEX, Digest.of(NONE), len(NONE))
        return BytesContent(descriptor, NONE, Outcome.HIT)

    async def tags(
        self,
        _: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        return TagPage(())


_PROBE: Reader = _Probe()


def _blob(digest: Digest) -> Piece:
    found = probe_image().blobs.get(digest)
    if found is None:
        raise BlobUnknown(str(digest))
    return found


class _InMemory:
    """A FileContent that is in no file."""

    outcome = Outcome.HIT
    provenance = Provenance.VOUCHED

    def __init__(self, piece: Piece) -> None:
        self.descriptor = piece.descriptor
        self._data = piece.data

    async def proven(self) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def pread(self, count: int, offset: int) -> bytes:
        return self._data[offset : offset + count]

    def damaged(self, reason: str) -> None:
        pass

    async def readable(self, beyond: int) -> int:
        return len(self._data)

    def close(self) -> None:
        pass
