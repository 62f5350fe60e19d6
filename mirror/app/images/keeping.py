"""Which images are pinned, and which are kept whatever their age.

A pinned tag stays what it is, whatever its registry says: by the command `pin`, until `unpin`, or
by the key `pin`. A kept image is never evicted: one that `storage.pin` means, whose tag moves on as
its registry says, or one that is pinned by command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from ...config import Config
from ...contracts.catalogue import LONGEST_PAGE, CatalogueUnavailable
from ...contracts.tags import TagStoreError
from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.errors import BadRequest
from ...oci.patterns import Patterns
from ...oci.reference import ImageReference, parse_image
from ..policy import pins_of
from ..resources import Resources

log = structlog.get_logger()

_PAUSE = 0.01  # seconds between two pages of images, for other work of the processor
_AGAIN = 60.0  # seconds until it is tried again, where it was not to be known what is here


@dataclass(frozen=True, slots=True)
class Pinning:
    """`by`: "command", "configuration" or "". `digest` None: of a date, what it was then."""

    by: str = ""
    digest: Digest | None = None
    kept: bool = False

    @property
    def stays(self) -> bool:
        """Whether the image is not purged unless that is said."""
        return bool(self.by) or self.kept


class Keeping:
    """Has the store keep what is to be kept, as the configuration and the commands say by now."""

    def __init__(self, opened: Resources, config: Config) -> None:
        self._opened = opened
        self._changed = asyncio.Event()
        self.follow(config)

    def follow(self, config: Config) -> None:
        """From now on this is the configuration."""
        self._pins = pins_of(config)
        self._kept = Patterns(config.storage.pin)
        self._default = config.default_registry
        self._changed.set()

    async def of(self, image: ImageReference) -> Pinning:
        """How this image is pinned and kept. Raises TagStoreError."""
        if isinstance(image.reference, Digest):
            return Pinning()
        repository, tag = image.repository, image.reference
        frozen = await self._opened.tags.frozen(repository, tag)
        if frozen is not None:
            return Pinning("command", frozen, kept=True)
        kept = self._kept.match(repository, tag)
        pin = self._pins.get((repository, tag))
        if pin is None:
            return Pinning(kept=kept)
        return Pinning("configuration", pin if isinstance(pin, Digest) else None, kept)

    async def run(self) -> None:
        """Follows the configuration, until it is cancelled. Raises nothing."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.settle()
            except (TagStoreError, CatalogueUnavailable, OSError) as error:
                log.warning("kept_images_not_settled", reason=str(error))
                await asyncio.sleep(_AGAIN)
                self._changed.set()
            except Exception:
                log.exception("kept_images_not_settled")

    async def settle(self) -> None:
        """The store keeps what is here of the kept images, and nothing else."""
        pinned = await self.let_go()
        await self._keep_what_is_here(pinned)

    async def let_go(self) -> Mapping[str, Digest]:
        """The store keeps nothing that is to be kept no more; what it keeps, by names."""
        store = self._opened.store
        pinned = await store.pins()
        for name in pinned:
            if not await self._is_kept(name):
                await store.unpin(name)
        return pinned

    async def digests(self) -> frozenset[Digest]:
        """To what tags are pinned, and what is kept. Raises apsw.Error."""
        configured = (pin for pin in self._pins.values() if isinstance(pin, Digest))
        return frozenset((*configured, *(await self._opened.store.pins()).values()))

    async def _is_kept(self, name: str) -> bool:
        try:
            image = parse_image(name, self._default)
        except BadRequest:
            return False
        return (await self.of(image)).kept

    async def _keep_what_is_here(self, pinned: Mapping[str, Digest]) -> None:
        catalogue, after = self._opened.catalogue, ""
        while page := await catalogue.uses(after, LONGEST_PAGE):
            after = str(page[-1].reference)
            for use in page:
                image, name = use.reference, str(use.reference)
                if name not in pinned and (pinning := await self.of(image)).kept:
                    entry = await catalogue.image(image)
                    if entry is not None:
                        await self._opened.store.pin(name, pinning.digest or entry.digest)
            await asyncio.sleep(_PAUSE)
