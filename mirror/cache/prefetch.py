"""Layers that a client is going to ask for, fetched before it does.

What sets it off is the first layer that a client asks for, not the manifest: some clients (ctr 2.1)
take the manifests and configs of all platforms, and the layers of one; tools that only look at an
image take no layer at all. Clients ask for three to six layers at a time, and for the others later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cachetools import TTLCache

from ..interfaces import Clock, ContentStore, Upstream
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.manifests import Manifest
from ..oci.reference import Repository
from .fills import Fills

log = structlog.get_logger()

_MOST_KNOWN = 50_000  # layers whose image is remembered
_KNOWN_FOR = 900.0  # seconds: a pull's length
_MOST_WANTED = 1000  # layers that wait to be fetched
_AT_ONCE = 8

Key = tuple[Repository, Digest]


@dataclass(frozen=True, slots=True)
class _Image:
    repository: Repository
    manifest: Digest
    layers: tuple[Descriptor, ...]  # largest first


class Prefetcher:
    """Fetches ahead for one registry. `scarce` says whether its upstream is to be spared."""

    def __init__(
        self,
        upstream: Upstream,
        store: ContentStore,
        fills: Fills,
        clock: Clock,
        scarce: Callable[[], bool],
    ) -> None:
        self._upstream = upstream
        self._store = store
        self._fills = fills
        self._scarce = scarce
        self._images: TTLCache[Key, _Image] = TTLCache(_MOST_KNOWN, _KNOWN_FOR, clock.monotonic)
        self._begun: TTLCache[Key, bool] = TTLCache(_MOST_KNOWN, _KNOWN_FOR, clock.monotonic)
        self._wanted: asyncio.Queue[tuple[_Image, Descriptor]] = asyncio.Queue(_MOST_WANTED)
        self._tasks: list[asyncio.Task[None]] = []

    def know(self, repository: Repository, digest: Digest, manifest: Manifest) -> None:
        """A client has taken this manifest."""
        layers = tuple(sorted(manifest.layers, key=lambda layer: -(layer.size or 0)))
        image = _Image(repository, digest, layers)
        for layer in layers:
            self._images[repository, layer.digest] = image

    def asked(self, repository: Repository, digest: Digest) -> None:
        """A client waits for this blob, which is not here: the rest of its image comes next."""
        image = self._images.get((repository, digest))
        if image is None or (repository, image.manifest) in self._begun or self._scarce():
            return
        self._begun[repository, image.manifest] = True
        while len(self._tasks) < _AT_ONCE:
            self._tasks.append(asyncio.create_task(self._fetch_for_ever()))
        for layer in image.layers:
            with contextlib.suppress(asyncio.QueueFull):
                self._wanted.put_nowait((image, layer))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fetch_for_ever(self) -> None:
        while True:
            image, layer = await self._wanted.get()
            try:
                await self._fetch(image, layer)
            except RegistryError as error:
                log.info("not prefetched", digest=str(layer.digest), reason=error.message)
            except Exception:
                log.exception("prefetch failed", digest=str(layer.digest))

    async def _fetch(self, image: _Image, layer: Descriptor) -> None:
        # Clients come first: a place is taken only when nobody waits for one.
        await self._fills.spare(image.repository.registry)
        if self._fills.running(image.repository.registry, layer.digest) is not None:
            return
        content = await self._store.open(layer.digest)
        if content is not None:
            content.close()
            return
        fill, _ = self._fills.join(layer.digest, self._upstream, image.repository, 0.0)
        await fill.ended()
