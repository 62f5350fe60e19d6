"""What clients count on now: the content of the manifests that this mirror has answered lately.

A client that has a manifest from here, podman most of all, may have no second chance: for what the
manifest names, trouble is waited out. One that asks for anything else by digest has been told
nothing yet, and is better served with a quick refusal, upon which it goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from cachetools import TTLCache

from ..interfaces import BytesContent, Clock
from ..oci.digest import Digest
from ..oci.manifests import Manifest, read_manifest
from ..oci.reference import Repository

_SECONDS = 900.0  # a pull's length
_MOST = 200_000  # digests; beyond that the oldest promise is forgotten, and costs a shorter wait


class Promises:
    """Bounded, and of this process alone."""

    def __init__(self, clock: Clock) -> None:
        self._made: TTLCache[Digest, bool] = TTLCache(_MOST, _SECONDS, clock.monotonic)
        self._read: TTLCache[tuple[Repository, Digest], bool] = TTLCache(
            _MOST, _SECONDS / 2, clock.monotonic
        )

    def make(self, repository: Repository, content: BytesContent) -> Manifest | None:
        """This manifest is being answered. It is read, and returned, once in a while only: not for
        each of a thousand pulls through the same repository."""
        key = (repository, content.descriptor.digest)
        if key in self._read:
            return None
        self._read[key] = True
        manifest = read_manifest(content.data, None)
        for needed in needs(manifest):
            self._made[needed] = True
        return manifest

    def made(self, digest: Digest) -> bool:
        return digest in self._made


def needs(manifest: Manifest) -> Sequence[Digest]:
    """What a manifest needs to be of use; foreign layers come from elsewhere."""
    children = (child.descriptor.digest for child in manifest.children)
    return (*children, *(blob.digest for blob in manifest.blobs))
