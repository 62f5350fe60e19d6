"""Layers that a client is going to ask for, fetched before it does.

What sets it off is the first layer that a client asks for, not the manifest: some clients (ctr 2.1)
take the manifests and configs of all platforms, and the layers of one; tools that only look at an
image take no layer at all. Clients ask for three to six layers at a time, and for the others later.

What is fetched ahead costs a client next to nothing, and may be of no use. So it goes on only while
somebody reads of that image, evicts nothing, and is a bounded share of the cache for each client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from cachetools import TTLCache

from ..contracts.context import AHEAD, Asker
from ..contracts.events import Prefetched, PrefetchRead
from ..contracts.registry import Outcome
from ..contracts.upstream import Upstream
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.manifests import Manifest
from ..oci.reference import Repository
from .fills.fill import Fill
from .fills.table import PutOff
from .shared import Shared

log = structlog.get_logger()

_MOST_KNOWN = 50_000  # layers whose image is remembered
_KNOWN_FOR = 900.0  # seconds: a pull's length
_MOST_LAYERS = 500  # of one image; of what more there is, nothing is fetched ahead
_MOST_IMAGES = 64  # at a time, and of one client
_OF_CLIENT = 16
_AT_ONCE = 8  # layers of one image
_MOST_CLIENTS = 10_000
_SHARE = 0.25  # of the cache's size: what one client causes to be fetched within `_KNOWN_FOR`
_LINGERS = 5.0  # seconds from one ask for a layer of an image until the next one
_LOOK = 1.0  # seconds

Key = tuple[Repository, Digest]


@dataclass(eq=False, slots=True)
class _Image:
    repository: Repository
    manifest: Digest
    layers: Sequence[Descriptor]
    left: list[Descriptor] = field(default_factory=list)  # to be fetched, smallest first
    charged: set[Digest] = field(default_factory=set)  # those of them that were counted
    asked: set[Digest] = field(default_factory=set)  # by clients: these come without it
    asked_at: float = 0.0


@dataclass(slots=True)
class _Account:
    """Bytes that a client caused to be fetched since then."""

    since: float
    spent: int = 0


class Prefetcher:
    """Fetches ahead for one registry."""

    def __init__(self, upstream: Upstream, shared: Shared) -> None:
        self._upstream = upstream
        self._store, self._fills, self._clock = shared.store, shared.fills, shared.clock
        clock = shared.clock
        self._images: TTLCache[Key, _Image] = TTLCache(_MOST_KNOWN, _KNOWN_FOR, clock.monotonic)
        self._accounts: TTLCache[str, _Account] = TTLCache(
            _MOST_CLIENTS, _KNOWN_FOR, clock.monotonic
        )
        self._events = shared.events
        # What was fetched ahead, or is being, and nobody has read of yet, with its size.
        self._unread: TTLCache[Digest, int] = TTLCache(_MOST_KNOWN, _KNOWN_FOR, clock.monotonic)
        self._coming = 0  # bytes
        self._under_way: dict[Key, str] = {}  # images, and for which client
        self._tasks: set[asyncio.Task[None]] = set()

    def know(self, repository: Repository, digest: Digest, manifest: Manifest) -> None:
        """A client has taken this manifest."""
        layers = sorted(manifest.layers[:_MOST_LAYERS], key=lambda layer: layer.size or 0)
        if not layers:
            return
        image = self._images.get((repository, layers[0].digest))
        if image is None or image.manifest != digest:
            image = _Image(repository, digest, layers, list(layers))
        for layer in layers:
            self._images[repository, layer.digest] = image

    def read(self, repository: Repository, digest: Digest) -> None:
        """A client reads this blob, which is here: what was begun for its image goes on."""
        self._is_read_first(repository, digest)
        image = self._images.get((repository, digest))
        if image is not None:
            image.asked_at = self._clock.monotonic()

    def asked(self, asker: Asker, repository: Repository, digest: Digest) -> None:
        """A client waits for this blob, which is not here: the rest of its image comes next."""
        self._is_read_first(repository, digest)
        image = self._images.get((repository, digest))
        if image is None or self._upstream.is_scarce():
            return
        image.asked_at = self._clock.monotonic()
        image.asked.add(digest)
        key, client = (repository, image.manifest), asker.client
        if key in self._under_way or len(self._under_way) >= _MOST_IMAGES:
            return
        if all(layer.digest in image.asked for layer in image.left):
            return
        if list(self._under_way.values()).count(client) >= _OF_CLIENT:
            return
        self._under_way[key] = client
        task = asyncio.create_task(self._bring(image, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_read_first(self, repository: Repository, digest: Digest) -> None:
        if digest not in self._unread:  # a tenth of what `pop` takes to find that out
            return
        size = self._unread.pop(digest, None)
        if size is not None:
            self._events.emit(PrefetchRead(repository, digest, size))

    def has_brought(self, digest: Digest) -> bool:
        """Whether this, if it is here, was fetched ahead, and no client has read of it yet. Of what
        another process has fetched that is not known."""
        return digest in self._unread

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _bring(self, image: _Image, client: str) -> None:
        try:
            async with asyncio.TaskGroup() as together:
                for _ in range(min(_AT_ONCE, len(image.left))):
                    together.create_task(self._bring_some(image, client))
        except Exception:
            log.exception("prefetch_failed", manifest=str(image.manifest))
        finally:
            del self._under_way[image.repository, image.manifest]

    async def _bring_some(self, image: _Image, client: str) -> None:
        while image.left and self._is_read(image):
            layer = image.left.pop()
            try:
                if not await self._fetch(image, layer, client):
                    image.left.insert(0, layer)
            except RegistryError as error:
                log.info("not_prefetched", digest=str(layer.digest), reason=error.message)

    async def _fetch(self, image: _Image, layer: Descriptor, client: str) -> bool:
        """Whether nothing is left to be done. Raises RegistryError."""
        registry = image.repository.registry
        while self._is_read(image):
            # Clients come first: a place is taken only when nobody waits for one.
            try:
                async with asyncio.timeout(_LOOK):
                    await self._fills.spare(registry)
            except TimeoutError:
                continue
            is_coming = self._fills.running(registry, layer.digest) is not None
            if is_coming or layer.digest in image.asked:
                return True
            content = await self._store.open(layer.digest)
            if content is not None:
                content.close()
                return True
            if layer.size is None or not self._may_take(image, layer.digest, layer.size, client):
                return True
            self._coming += layer.size
            try:
                fill, outcome = self._fills.join(
                    AHEAD, layer.digest, self._upstream, image.repository, 0.0
                )
                if outcome is Outcome.FILLED:
                    self._unread[layer.digest] = layer.size
                await self._ended(fill, image, layer.size)
                if outcome is Outcome.FILLED:
                    self._events.emit(Prefetched(image.repository, layer.digest, fill.written))
                return True
            except PutOff:
                if _is_larger(fill, layer.size):
                    return True
                if not fill.goes_on_by_range:
                    image.charged.discard(layer.digest)  # it comes anew
                continue
            finally:
                self._coming -= layer.size
        return False

    async def _ended(self, fill: Fill, image: _Image, size: int) -> None:
        """Returns when the fill has ended, which it does when nobody reads of its image any more,
        or it is larger than was said. Raises RegistryError."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    return await fill.ended()
            if not fill.is_asked_for and (_is_larger(fill, size) or not self._is_read(image)):
                self._fills.put_off(fill)

    def _is_read(self, image: _Image) -> bool:
        """Whether a client is just reading a layer of this image, or did a moment ago."""
        if self._clock.monotonic() - image.asked_at < _LINGERS:
            return True
        registry = image.repository.registry
        fills = (self._fills.running(registry, layer.digest) for layer in image.layers)
        return any(fill is not None and fill.is_read for fill in fills)

    def _may_take(self, image: _Image, layer: Digest, size: int, client: str) -> bool:
        """Whether this client may cause the layer to be fetched, for which nothing has to be
        evicted. Its bytes are counted, once: what gave way goes on where it was."""
        usage = self._store.usage()
        # What is coming may be set aside already, and counts twice then.
        taken = usage.content_bytes + usage.reserved_bytes + self._coming
        if taken + size > usage.max_bytes:
            return False
        if layer in image.charged:
            return True
        now = self._clock.monotonic()
        account = self._accounts.get(client)
        if account is None or now - account.since > _KNOWN_FOR:
            account = self._accounts[client] = _Account(now)
        if account.spent + size > usage.max_bytes * _SHARE:
            return False
        account.spent += size
        image.charged.add(layer)
        return True


def _is_larger(fill: Fill, size: int) -> bool:
    return max(fill.size or 0, fill.written) > size
