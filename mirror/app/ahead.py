"""Images brought here ahead of clients, and told whether they are here: by the process that holds
the store, or by a command where no mirror runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from ..config import Config
from ..contracts.registry import Reader
from ..contracts.sync import Bringing, Brought, Readiness, Told, rendered
from ..oci.errors import BadRequest, RegistryError
from ..oci.reference import ImageReference, Repository, parse_image
from ..oci.wanted import parse_wanted
from ..pullthrough.bringing import Bringer
from ..pullthrough.fills.table import Fills
from ..pullthrough.images import Images, this_platform
from ..server.control import Command, CommandFailed, Parameters, Tells
from ..sync.telling import told_by
from ..sync.work import Asked, Work
from .live import Live
from .logins import hindrances
from .resources import Process, Resources, resources, store_beside

_BLOBS = 6  # at a time, of all images that are brought

Line = Mapping[str, Any]


class Ahead:
    """Answers for whole images, by a policy of its own that is made when it is first needed: it
    fetches nothing ahead of what is asked for, and waits for the registry where a client would be
    given an older answer at once. Close it."""

    def __init__(self, config: Config, opened: Resources) -> None:
        self._config = config
        self._opened = opened
        self._asking: Live | None = None
        self._asking_nobody: Live | None = None
        self._places = asyncio.Semaphore(_BLOBS)

    def follow(self, config: Config) -> None:
        """From now on this is the configuration."""
        self._config = config
        if self._asking is not None:
            self._asking.follow(_asking_anew(config))
        if self._asking_nobody is not None:
            self._asking_nobody.follow(config)

    async def close(self) -> None:
        for live in (self._asking, self._asking_nobody):
            if live is not None:
                await live.close()

    def commands(self) -> Mapping[str, Command]:
        return {"warm": Tells(self._warm_command), "ready": Tells(self._ready_command)}

    async def warm(self, asked: Sequence[Asked]) -> AsyncGenerator[Told, None]:
        """Brings these images, and tells how that goes; it ends with whoever is told."""

        async def work(tell: Callable[[Told], None]) -> None:
            began = self._opened.process.clock.monotonic()
            bringing = self.bringing()
            work = Work("", bringing, tell, self._opened.process.clock)
            await work.run(asked, self._config.default_registry)
            tell(work.results.summary("", self._opened.process.clock.monotonic() - began))

        async with contextlib.aclosing(told_by(work)) as told:
            async for one in told:
                yield one

    async def ready(self, asked: Sequence[Asked]) -> AsyncGenerator[Readiness, None]:
        """Of each whether it could be served with no network."""
        if self._asking_nobody is None:
            self._asking_nobody = Live(self._config, self._opened.asking_nobody())
        for one in asked:
            image = parse_image(one.text, self._config.default_registry)
            for platform in one.platforms:
                with self._asking_nobody.serving.use() as use:
                    missing = await self._missing(use.value.registry, image, platform)
                yield Readiness(str(image), platform, not missing, missing)

    async def _missing(
        self, registry: Reader, image: ImageReference, platform: str
    ) -> Sequence[str]:
        config = self._config
        images = Images(registry, self._opened.store, lambda image: hindrances(config, image))
        try:
            return await images.missing(image.repository, image.reference, platform)
        except RegistryError as error:
            return [error.message]

    def bringing(
        self, around: Callable[[Reader], Reader] | None = None, fills: Fills | None = None
    ) -> Bringing:
        """What brings images by the policy that counts when it begins each of them; `around`: a
        reader around that policy's. With `fills` it gives way to clients."""

        @contextlib.contextmanager
        def bringer() -> Iterator[Bringing]:
            if self._asking is None:
                self._asking = Live(_asking_anew(self._config), self._opened)
            opened = self._opened
            with self._asking.serving.use() as use:
                registry = use.value.registry if around is None else around(use.value.registry)
                yield Bringer(
                    registry, opened.store, opened.tags, opened.catalogue, self._places, fills
                )

        return _Current(bringer)

    async def _warm_command(self, parameters: Parameters) -> AsyncGenerator[Line, None]:
        asked = _asked(parameters, self._config.default_registry)
        async with contextlib.aclosing(self.warm(asked)) as told:
            async for one in told:
                yield rendered(one)

    async def _ready_command(self, parameters: Parameters) -> AsyncGenerator[Line, None]:
        asked = _asked(parameters, self._config.default_registry)
        async with contextlib.aclosing(self.ready(asked)) as answers:
            async for readiness in answers:
                yield rendered(readiness)


class _Current:
    """A Bringing that does each image by the policy that counts when it begins."""

    def __init__(self, bringer: Callable[[], contextlib.AbstractContextManager[Bringing]]) -> None:
        self._bringer = bringer

    async def bring(
        self, image: ImageReference, platform: str, progress: Callable[[int, int], None]
    ) -> Brought:
        with self._bringer() as bringer:
            return await bringer.bring(image, platform, progress)

    async def tags(self, repository: Repository) -> Sequence[str]:
        with self._bringer() as bringer:
            return await bringer.tags(repository)

    async def repositories(self, registry: str) -> Sequence[Repository]:
        with self._bringer() as bringer:
            return await bringer.repositories(registry)


@contextlib.asynccontextmanager
async def ahead(config: Config, opened: Resources) -> AsyncIterator[Ahead]:
    """Where pulls are served, around them: what brings images shares their upstreams, and is closed
    after the last pull has ended."""
    found = Ahead(config, opened)
    try:
        yield found
    finally:
        await found.close()


@contextlib.asynccontextmanager
async def ahead_beside(config: Config) -> AsyncIterator[Ahead]:
    """For a command where no mirror runs. Raises CannotStart."""
    process = Process(set(config.registries))
    async with resources(config, process, store_beside) as opened, ahead(config, opened) as found:
        yield found


def _asking_anew(config: Config) -> Config:
    registries = {
        name: registry.but(
            {
                "freshness": tuple(
                    rule.but({"stale_while_revalidate": 0.0}) for rule in registry.freshness
                )
            }
        )
        for name, registry in config.registries.items()
    }
    return config.but({"prefetch": False, "registries": registries})


def _asked(parameters: Parameters, default_registry: str) -> Sequence[Asked]:
    """The parameters of a command: `images`, each a pair of its name and its platforms. Raises
    CommandFailed."""
    try:
        asked = [
            Asked(str(text), [str(platform) for platform in platforms] or [this_platform()])
            for text, platforms in parameters["images"]
        ]
        for one in asked:
            parse_wanted(one.text, default_registry)
    except BadRequest as error:
        raise CommandFailed(error.message, 2) from None
    except (LookupError, TypeError, ValueError):
        raise CommandFailed("images: pairs of a name and a list of platforms", 2) from None
    return asked
