"""What clients were promised: by a manifest that they have from here, or by a tag's answer.

A client that has a manifest from here, podman most of all, may have no second chance: for what the
manifest names, trouble is waited out. One that asks for anything else by digest has been told
nothing yet, and is better served with a quick refusal, upon which it goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..asking.fair_table import FairTable
from ..clock import Clock
from ..contracts.content import ContentStore
from ..contracts.registry import BytesContent
from ..oci.digest import Digest
from ..oci.manifests import Manifest, read_manifest
from ..oci.reference import Repository
from ..threads import read_aside

_SECONDS = 900.0  # a pull's length
_MOST = 50_000  # digests, of all registries together
_MOST_OF_ONE = 1000  # of one manifest: no single one pushes out all others


class RecentlyServed:
    """The promises of all workers and of all time are in the store, which knows what the manifests
    that it holds need. Those in memory are for manifests that the store had no room for, and for
    what only a tag has named; of very many the longest unused is forgotten, of the registry that
    has most, and costs a shorter wait."""

    def __init__(self, store: ContentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # Until when (monotonic) each is good.
        self._made: FairTable[Digest, float] = FairTable(_MOST)
        # What manifests say of blobs that they name, in bytes: a hint, which may be wrong.
        self._sizes: FairTable[Digest, int] = FairTable(_MOST)
        self._read: FairTable[tuple[Repository, Digest], float] = FairTable(_MOST)

    async def make(self, repository: Repository, content: BytesContent) -> Manifest | None:
        """This manifest is being answered. It is read, and returned, once in a while only: not for
        each of a thousand pulls through the same repository."""
        registry, key = repository.registry, (repository, content.descriptor.digest)
        if self._is_good(self._read.get(registry, key)):
            return None
        self._read.put(registry, key, self._clock.monotonic() + _SECONDS / 2)
        manifest = await read_aside(read_manifest, content.data, None)
        self.name(registry, *needs(manifest))
        for blob in manifest.blobs[:_MOST_OF_ONE]:
            if blob.size is not None:
                self._sizes.put(registry, blob.digest, blob.size)
        return manifest

    def size(self, repository: Repository, digest: Digest) -> int | None:
        """What a manifest that was served says of this blob; None where none did lately."""
        return self._sizes.get(repository.registry, digest)

    def name(self, registry: str, *digests: Digest) -> None:
        """The upstream has named these: a tag points there, or a list of referrers."""
        until = self._clock.monotonic() + _SECONDS
        for digest in digests[:_MOST_OF_ONE]:
            self._made.put(registry, digest, until)

    def made(self, repository: Repository, digest: Digest) -> bool:
        made = self._made.get(repository.registry, digest)
        return self._is_good(made) or self._store.is_needed(digest)

    def forget(self, registry: str) -> None:
        """What was promised of this registry."""
        self._made.forget(registry)
        self._sizes.forget(registry)
        self._read.forget(registry)

    def _is_good(self, until: float | None) -> bool:
        return until is not None and self._clock.monotonic() < until


def needs(manifest: Manifest) -> Sequence[Digest]:
    """What a manifest needs to be of use; foreign layers come from elsewhere."""
    children = (child.descriptor.digest for child in manifest.children)
    return (*children, *(blob.digest for blob in manifest.blobs))
