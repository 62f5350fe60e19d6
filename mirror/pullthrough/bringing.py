"""Whole images brought here before a client asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..contracts.catalogue import LONGEST_PAGE, Catalogue, CatalogueUnavailable
from ..contracts.content import ContentStore
from ..contracts.context import RequestContext
from ..contracts.registry import FETCHED, Outcome, Reader, Resolved
from ..contracts.sync import Brought, TagGone
from ..contracts.tags import TagStore, TagStoreError
from ..oci.digest import Digest
from ..oci.errors import Denied, RateLimited, RegistryError, Unavailable, Unknown
from ..oci.reference import ImageReference, Repository
from ..tasks import ended
from .fills.table import Fills, PutOff
from .images import Images, Piece

MOST_TAGS = 200_000
"""Of one repository, that are looked at."""

MOST_REPOSITORIES = 10_000
"""Of one registry, that are looked at."""

_PAGE = 1000
_FOR_ALL = RequestContext(request_id="", client="")
"""Tags and manifests are asked for so: a client may join such an ask, and must not wait longer by
it."""
_AHEAD = RequestContext(request_id="", client="ahead of clients", is_ahead=True)
_PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between tries for a blob that gets no connection, or whose connection broke before it
brought anything: what is fetched ahead has no patience of its own."""


@dataclass(slots=True)
class _Progress:
    size: int
    tell: Callable[[int, int], None]
    here: int = 0
    fetched: int = 0

    def comes(self, count: int) -> None:
        self.here += count
        self.tell(self.here, self.size)


class Bringer:
    """A Bringing of what this registry answers for; `memory` knows which tags there were, and
    `catalogue` what was pulled. `fills` None: as a client who waits. Else what it brings gives way
    to all that clients wait for. `places` are those of blobs that come at the same time."""

    def __init__(
        self,
        registry: Reader,
        store: ContentStore,
        memory: TagStore,
        catalogue: Catalogue,
        places: asyncio.Semaphore,
        fills: Fills | None = None,
    ) -> None:
        self._registry = registry
        self._images = Images(registry, store)
        self._store = store
        self._memory = memory
        self._catalogue = catalogue
        self._places = places
        self._fills = fills

    async def bring(
        self, image: ImageReference, platform: str, progress: Callable[[int, int], None]
    ) -> Brought:
        repository = image.repository
        resolved = await self._resolved(image)
        digest = image.reference if resolved is None else resolved.descriptor.digest
        found = [piece async for piece in self._images.pieces(repository, digest, platform)]
        pieces = {piece.descriptor.digest: piece for piece in found}
        blobs = [piece for piece in pieces.values() if piece.role in ("config", "layer")]
        size = sum(piece.descriptor.size or 0 for piece in pieces.values())
        most = self._store.usage().max_bytes
        if size > most:
            raise Unavailable(f"it has {size} bytes, and storage.max_size is {most}")
        so_far = _Progress(size, progress)
        so_far.comes(size - sum(piece.descriptor.size or 0 for piece in blobs))
        await self._bring_all(repository, blobs, so_far)
        words = "" if resolved is None else _not_current(resolved)
        return Brought(str(digest), len(blobs), size, so_far.fetched, words)

    async def tags(self, repository: Repository) -> Sequence[str]:
        found: dict[str, None] = {}
        last: str | None = None
        while True:
            page = await self._registry.tags(_FOR_ALL, repository, _PAGE, last)
            found |= dict.fromkeys(page.tags)
            if len(found) > MOST_TAGS:
                raise Unavailable(f"{repository} has more than {MOST_TAGS} tags")
            if page.last is None:
                return list(found)
            last = page.last

    async def _resolved(self, image: ImageReference) -> Resolved | None:
        if isinstance(image.reference, Digest):
            return None
        try:
            return await self._registry.resolve(_FOR_ALL, image.repository, image.reference)
        except Unknown as error:
            if await self._was_known(image.repository, image.reference):
                raise TagGone(
                    f"the tag is gone upstream ({error.message}); what it was stays here, as long "
                    "as there is room"
                ) from error
            raise

    async def _was_known(self, repository: Repository, tag: str) -> bool:
        try:
            history = await self._memory.history(repository, tag)
        except TagStoreError:
            return False
        return any(event.digest is not None for event in history)

    async def repositories(self, registry: str) -> Sequence[Repository]:
        found: list[Repository] = []
        after = f"{registry}/"
        try:
            while page := await self._catalogue.repositories(after, LONGEST_PAGE):
                of_it = [one.repository for one in page if one.repository.registry == registry]
                found += of_it
                after = str(page[-1].repository)
                if len(of_it) < len(page) or len(found) > MOST_REPOSITORIES:
                    break
        except CatalogueUnavailable as error:
            raise Unavailable(f"the catalogue cannot be read: {error}") from error
        if not found:
            raise Denied(f"of {registry} nothing was pulled here yet: name each repository")
        return found

    async def _bring_all(
        self, repository: Repository, blobs: Sequence[Piece], progress: _Progress
    ) -> None:
        """All of them, whatever becomes of one; then raises the first error there was."""
        tasks = [
            asyncio.create_task(self._bring_blob(repository, piece, progress)) for piece in blobs
        ]
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            await ended(tasks)
        for task in tasks:
            task.result()

    async def _bring_blob(self, repository: Repository, piece: Piece, progress: _Progress) -> None:
        async with self._places:
            if self._fills is None:
                await self._bring_once(_FOR_ALL, repository, piece, progress)
                return
            pauses = list(_PAUSES)
            while True:
                await self._fills.spare(repository.registry)
                try:
                    await self._bring_once(_AHEAD, repository, piece, progress)
                    return
                except PutOff:  # clients came first
                    continue
                except RateLimited:
                    raise
                except Unavailable:
                    if not pauses:
                        raise
                    await asyncio.sleep(pauses.pop(0))

    async def _bring_once(
        self,
        context: RequestContext,
        repository: Repository,
        piece: Piece,
        progress: _Progress,
    ) -> None:
        content = await self._registry.blob(context, repository, piece.descriptor.digest)
        there = 0
        try:
            while (limit := await content.readable(there)) > there:
                progress.comes(limit - there)
                there = limit
            await content.proven()  # and has its place, for which clients do not wait
            if content.outcome in FETCHED:
                progress.fetched += there
        except RegistryError:
            progress.comes(-there)  # it comes again
            raise
        finally:
            content.close()


def _not_current(resolved: Resolved) -> str:
    """Why this may not be what the tag is by now; "" where it is."""
    if resolved.outcome is not Outcome.STALE:
        return ""
    return (
        "its registry does not say what the tag is now: this is what it was "
        f"{resolved.age / 60:.0f} min ago"
    )
