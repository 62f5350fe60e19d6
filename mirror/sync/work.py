"""Images brought here, some at a time: each of them, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import field

from ..clock import Clock
from ..contracts.sync import (
    Bringing,
    ImageComing,
    ImageEnded,
    Postponed,
    TagGone,
    WorkBegun,
    WorkEnded,
)
from ..frozen import dataclass
from ..oci.errors import BadRequest, RegistryError, Unavailable
from ..oci.reference import ImageReference, Repository
from ..oci.wanted import ByNames, ByTags, OneImage, matcher, parse_wanted
from ..tasks import ended
from .tags import chosen
from .telling import Tell

_AT_ONCE = 3
"""Images under way."""

_MOST_REPOSITORIES = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """An image, or a pattern of them, in the words in which it was asked for. `newest`: how many
    tags of a pattern; None: all."""

    text: str
    platforms: Sequence[str]
    newest: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    image: ImageReference
    platform: str


@dataclass(slots=True)
class Results:
    """What became of each image. `passing`: those whose failure may be over soon."""

    images: int = 0
    of: dict[tuple[str, str], ImageEnded] = field(default_factory=dict)
    passing: list[Item] = field(default_factory=list)

    def count(self, *results: str) -> int:
        return sum(one.result in results for one in self.of.values())

    @property
    def fetched(self) -> int:
        return sum(one.fetched for one in self.of.values())

    def summary(self, name: str, seconds: float, stopped: str = "") -> WorkEnded:
        failed = self.count("failed")
        result = "stopped" if stopped else "failed" if failed else "good"
        return WorkEnded(name, result, stopped, self.images, failed, self.fetched, seconds)


class Work:
    """Brings images for the entry `name` (""  for a command), by what `bringing` can, and tells how
    it goes. `keeps_gone`: an image whose tag is gone upstream has not failed."""

    def __init__(
        self, name: str, bringing: Bringing, tell: Tell, clock: Clock, *, keeps_gone: bool = False
    ) -> None:
        self.results = Results()
        self._name = name
        self._bringing = bringing
        self._tell = tell
        self._clock = clock
        self._keeps_gone = keeps_gone

    async def run(self, asked: Iterable[Asked], default_registry: str) -> None:
        """All of it."""
        await self.bring(await self.find(asked, default_registry))

    async def find(self, asked: Iterable[Asked], default_registry: str) -> Sequence[Item]:
        """The images that are meant. Those of which that cannot be said have failed."""
        items: dict[Item, None] = {}
        for one in asked:
            try:
                async for image in self._meant(one, default_registry):
                    items |= dict.fromkeys(Item(image, platform) for platform in one.platforms)
            except RegistryError as error:
                self.fails(one.text, one.platforms, error.message)
        self.results.images = len(items) + len(self.results.of)
        self._tell(WorkBegun(self._name, self.results.images))
        return list(items)

    def fails(self, text: str, platforms: Sequence[str], words: str) -> None:
        """Of what was asked for so, the images cannot be told."""
        self._ends(ImageEnded(text, ", ".join(platforms), "failed", words))

    async def bring(self, items: Sequence[Item]) -> None:
        waiting = iter(items)
        tasks = [asyncio.create_task(self._bring_some(waiting)) for _ in range(_AT_ONCE)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await ended(tasks)

    async def again(self) -> None:
        """Brings once more what failed for a reason that may have passed."""
        items, self.results.passing = self.results.passing, []
        await self.bring(items)

    async def _meant(self, asked: Asked, default_registry: str) -> AsyncIterator[ImageReference]:
        wanted = parse_wanted(asked.text, default_registry)
        if isinstance(wanted, OneImage):
            yield wanted.image
            return
        found = False
        for repository in await self._repositories(wanted):
            for tag in chosen(await self._bringing.tags(repository), wanted.tags, asked.newest):
                found = True
                yield ImageReference(repository, tag)
        if not found:
            raise BadRequest("no tag that is there is meant by it")

    async def _repositories(self, wanted: ByTags | ByNames) -> Sequence[Repository]:
        if isinstance(wanted, ByTags):
            return [wanted.repository]
        matches = matcher(wanted.names).match
        named = await self._bringing.repositories(wanted.registry)
        found = [repository for repository in named if matches(repository.name)]
        if len(found) > _MOST_REPOSITORIES:
            raise BadRequest(f"more than {_MOST_REPOSITORIES} repositories are meant by it")
        return found

    async def _bring_some(self, items: Iterable[Item]) -> None:
        for item in items:
            await self._bring(item)

    async def _bring(self, item: Item) -> None:
        image, platform = str(item.image), item.platform
        began = self._clock.monotonic()

        def failed(result: str, error: RegistryError) -> ImageEnded:
            seconds = self._clock.monotonic() - began
            return ImageEnded(image, platform, result, error.message, seconds=seconds)

        try:
            brought = await self._bringing.bring(
                item.image, platform, self._progress(image, platform)
            )
        except Postponed as error:
            self._ends(failed("postponed", error))
        except TagGone as error:
            self._ends(failed("kept" if self._keeps_gone else "failed", error))
        except RegistryError as error:
            if isinstance(error, Unavailable):
                self.results.passing.append(item)
            self._ends(failed("failed", error))
        else:
            self._ends(
                ImageEnded(
                    image,
                    platform,
                    "whole",
                    brought.doubt,
                    brought.digest,
                    brought.blobs,
                    brought.size,
                    brought.fetched,
                    self._clock.monotonic() - began,
                )
            )

    def _progress(self, image: str, platform: str) -> Callable[[int, int], None]:
        def tell(here: int, size: int) -> None:
            self._tell(ImageComing(image, platform, here, size))

        return tell

    def _ends(self, ended: ImageEnded) -> None:
        self.results.of[ended.image, ended.platform] = ended
        self._tell(ended)
