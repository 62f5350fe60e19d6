"""What goes on in the mirror, as one object for commands, the page and the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw

from .. import __version__
from ..activity.board import Board
from ..activity.endpoints import Configured
from ..activity.news import Asked
from ..activity.watching import Filling, UnderWay, Watch
from ..activity.words import image_name
from ..config import Config
from ..contracts.activity import (
    CacheState,
    ConfigState,
    Download,
    Happening,
    ImageHere,
    LogControl,
    Minute,
    Piece,
    Pull,
    PullRequest,
    Reloaded,
    Status,
    Top,
    UnknownSubject,
    Why,
    rendered,
)
from ..contracts.catalogue import CatalogueUnavailable
from ..contracts.events import ConfigLoaded, ConfigReloaded
from ..contracts.tags import TagStoreError
from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.reference import ImageReference, parse_image
from ..pullthrough.fills.states import FillState
from ..pullthrough.freshness import Freshness, RecordState, age_of, judge
from ..pullthrough.images import Images, this_platform
from ..quantities import lasted
from ..server import control
from ..server.control import Command, CommandFailed, Parameters
from ..server.http.request_ids import is_id
from ..server.v2.access_log import AccessLog, product
from ..tasks import beside
from ..threads import aside
from .endpoints import configured_endpoints
from .live import Live
from .policy import freshness_of
from .resources import Process, Resources

BEAT = 1.0
"""Seconds between two tellings of what a process has seen."""

_LOOKED = 10.0  # seconds for which what takes a look into a database is good
_STAT = 2.0  # seconds for the file's state, which may be on a share that is gone
_PIECES = 500
_OWN_ID = re.compile("[0-9a-f]{16}")  # as mirror/server/http/request_ids.py makes them
_LONGEST = 1024  # characters of what is asked about


def under_way(access: AccessLog, opened: Resources) -> UnderWay:
    """The requests and downloads of this process that go on."""
    clock = opened.process.clock

    def requests() -> Iterator[Asked]:
        now, wall = clock.monotonic(), clock.wall()
        for one in access.running:
            took = now - one.arrived
            first = took if one.first_byte is None else one.first_byte - one.arrived
            request = PullRequest(
                wall - took,
                one.context.request_id,
                one.client,
                product(one.agent),
                one.method,
                one.kind.value,
                one.reference,
                one.outcome.value if one.first_byte is not None else "",
                one.status,
                first,
                took,
                one.sent_by_now,
                is_running=True,
            )
            yield Asked(one.registry, one.repository, request, one.digest)

    def downloads() -> Iterator[Filling]:
        for fill in opened.fills.under_way:
            yield Filling(
                fill.number,
                fill.repository.registry,
                fill.repository.name,
                str(fill.digest),
                fill.state is FillState.WAITING,
                max(fill.written, fill.came),
                fill.size,
                len(fill.readers),
            )

    return UnderWay(requests, downloads)


class ConfigWatch:
    """When the configuration was loaded, and whether its file has changed since."""

    def __init__(self, path: Path | None, process: Process) -> None:
        self._path = None if path is None else os.path.abspath(path)
        self._wall = process.clock.wall
        self._loaded_at = self._wall()
        self._stamp = _stamp(self._path)
        self._last: Reloaded | None = None
        process.events.listen(ConfigLoaded, self._loaded)
        process.events.listen(ConfigReloaded, self._reloaded)

    def _loaded(self, event: ConfigLoaded) -> None:
        self._loaded_at, self._stamp = event.at, _stamp(self._path)

    def _reloaded(self, event: ConfigReloaded) -> None:
        self._last = Reloaded(self._wall(), event.result, event.words)

    async def state(self) -> ConfigState:
        found: tuple[int, int, int] | None = self._stamp
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STAT):
                found = await aside(_stamp, self._path)
        changed = None
        if found is not None and found != self._stamp:
            changed = found[0] / 1e9
        is_gone = self._path is not None and found is None
        return ConfigState(self._path or "", self._loaded_at, changed, is_gone, self._last)


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    """When the file was written, its size and its number; None where there is none."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What only those know who run the processes. `serving`: the pids of those that serve, and how
    many of them answer."""

    config: ConfigWatch
    log: LogControl
    serving: Callable[[], tuple[Sequence[int], int]]


class LiveActivity:
    """An Activity."""

    def __init__(
        self, config: Config, opened: Resources, board: Board, surroundings: Surroundings
    ) -> None:
        self._opened = opened
        self._board = board
        self._surroundings = surroundings
        self._wall = opened.process.clock.wall
        self._monotonic = opened.process.clock.monotonic
        self._started_at = self._wall()
        self._looked: tuple[float, int | None, float | None] | None = None
        self._live = Live(config, opened.asking_nobody())
        self._take(config)

    def follow(self, config: Config) -> None:
        """From now on this is the configuration."""
        self._live.follow(config)
        self._take(config)

    def _take(self, config: Config) -> None:
        self._config = config
        self._board.follow(config.default_registry)
        self._endpoints = [
            Configured(registry, endpoint.name, endpoint.url)
            for registry, endpoints in configured_endpoints(config).items()
            for endpoint in endpoints
        ]

    async def close(self) -> None:
        await self._live.close()

    async def status(self) -> Status:
        config, store, around = self._config, self._opened.store, self._surroundings
        pids, serving = around.serving()
        usage = store.usage()
        images, oldest = await self._look()
        free = None
        with contextlib.suppress(OSError):
            free = (await aside(store.space.disk)).free
        return Status(
            __version__,
            os.getpid(),
            pids,
            serving,
            self._started_at,
            self._wall(),
            _addresses(config.listen),
            str(config.admin.listen),
            str(store.root),
            await around.config.state(),
            CacheState(
                usage.content_bytes,
                usage.max_bytes,
                usage.reserved_bytes,
                usage.entries,
                images,
                oldest,
                free,
            ),
            self._board.history.day(),
            self._board.rates(),
            around.log.state,
            self._board.endpoints(self._endpoints),
        )

    async def _look(self) -> tuple[int | None, float | None]:
        now = self._monotonic()
        if self._looked is None or now - self._looked[0] > _LOOKED:
            images, oldest = None, None
            with contextlib.suppress(CatalogueUnavailable):
                images = await self._opened.catalogue.count_images()
            with contextlib.suppress(OSError, apsw.Error):
                oldest = await self._opened.store.oldest_use()
            self._looked = now, images, oldest
        return self._looked[1:]

    def top(self) -> Top:
        return self._board.top()

    def minutes(self) -> Sequence[Minute]:
        return self._board.history.minutes()

    def downloads(self) -> Sequence[Download]:
        return self._board.downloads()

    def pulls(self, limit: int = 50, like: str = "") -> Sequence[Pull]:
        return self._board.pulls.newest(limit, like)

    def happenings(self, limit: int = 50) -> Sequence[Happening]:
        return self._board.happenings(limit)

    async def changed(self, than: int, within: float) -> int:
        return await self._board.changed(than, within)

    async def why(self, subject: str) -> Why:
        subject = subject.strip()[:_LONGEST]
        if is_id(subject) and (found := self._board.pulls.with_request(subject)):
            return Why(subject, found)
        if _OWN_ID.fullmatch(subject):
            raise UnknownSubject(f"no request of late has the id {subject}")
        try:
            image = parse_image(subject, self._config.default_registry)
        except RegistryError as error:
            raise UnknownSubject(
                f"{subject} is no image ({error.message}), and no request of late has this id"
            ) from error
        repository = image.repository
        pulls = self._board.pulls.of_image(
            repository.registry, repository.name, str(image.reference)
        )
        return Why(subject, pulls, await self._here(image))

    async def _here(self, image: ImageReference) -> ImageHere:
        repository, reference = image.repository, image.reference
        name = image_name(
            repository.registry, repository.name, str(reference), self._config.default_registry
        )
        digest = str(reference) if isinstance(reference, Digest) else ""
        age, ttl = None, None
        state = RecordState.FRESH if digest else RecordState.EXPIRED
        if isinstance(reference, str):
            registry = self._config.registries.get(repository.registry)
            if registry is None and not self._config.allow_any_registry:
                return ImageHere(name, "", None, None, "the mirror is not for this registry")
            periods = Freshness()
            if registry is not None:
                rules = freshness_of(registry, self._config.offline)
                periods = rules.of(repository, reference)
            ttl = periods.ttl
            try:
                record = await self._opened.tags.get(repository, reference)
            except TagStoreError as error:
                return ImageHere(name, "", None, ttl, f"the tag memory does not answer: {error}")
            if record is not None:
                age = age_of(record, self._wall())
                digest = str(record.descriptor.digest) if record.descriptor is not None else ""
            state = judge(record, self._wall(), periods)
        missing = await self._missing(image, digest)
        return ImageHere(name, digest, age, ttl, self._would(state, digest, age, ttl), missing)

    def _would(self, state: RecordState, digest: str, age: float | None, ttl: float | None) -> str:
        if age is None or ttl is None:
            if digest:
                return "a digest is what it is: no upstream is asked for what is here"
            return "nothing is known of this tag: a pull asks the upstream for it"
        if state is RecordState.FRESH:
            if not digest:
                return f"the upstream said {lasted(age)} ago that there is none: that is believed"
            return f"the tag is fresh for {lasted(ttl - age)} more: the upstream is not asked"
        over = lasted(max(0.0, age - ttl))
        if state is RecordState.REVALIDATE:
            return f"ttl {lasted(ttl)} over by {over}: it is answered, the upstream asked behind"
        if state is RecordState.EXPIRED:
            return "it is too old to be answered unless the upstream says that it is so still"
        return (
            f"ttl {lasted(ttl)} over by {over}: the upstream is asked first, and this answered "
            "if it cannot say"
        )

    async def _missing(self, image: ImageReference, digest: str) -> Sequence[Piece]:
        """What is not here of it for this machine's platform, as far as its manifests are here."""
        if not digest:
            return ()
        found: list[Piece] = []
        with self._live.serving.use() as use:
            images = Images(use.value.registry, self._opened.store)
            pieces = images.pieces(image.repository, Digest.parse(digest), this_platform())
            try:
                async for piece in pieces:
                    descriptor = piece.descriptor
                    content = await self._opened.store.open(descriptor.digest)
                    if content is not None:
                        content.close()
                        continue
                    why = self._board.why_missing(str(descriptor.digest))
                    found.append(Piece(piece.role, str(descriptor.digest), descriptor.size, why))
            except RegistryError as error:
                found.append(Piece("manifest", digest, None, error.message))
        return found[:_PIECES]

    # Commands.

    def commands(self) -> Mapping[str, Command]:
        async def status(_: Parameters) -> Mapping[str, Any]:
            return rendered(await self.status())

        async def top(_: Parameters) -> Mapping[str, Any]:
            return rendered(self.top())

        async def why(parameters: Parameters) -> Mapping[str, Any]:
            try:
                return rendered(await self.why(str(parameters.get("subject", ""))))
            except UnknownSubject as error:
                raise CommandFailed(str(error)) from error

        return {"status": control.one(status), "top": control.one(top), "why": control.one(why)}


def _addresses(listen: object) -> Sequence[str]:
    return [str(each) for each in listen] if isinstance(listen, tuple) else [str(listen)]


@contextlib.asynccontextmanager
async def seeing(
    config: Config, opened: Resources, board: Board, surroundings: Surroundings
) -> AsyncIterator[LiveActivity]:
    """What goes on, while the context lasts."""
    activity = LiveActivity(config, opened, board, surroundings)
    try:
        yield activity
    finally:
        await activity.close()


@contextlib.asynccontextmanager
async def watching(watch: Watch, board: Board) -> AsyncIterator[None]:
    """While the context lasts, the board hears what this process sees."""

    async def beat() -> None:
        while True:
            board.hear(os.getpid(), watch.news())
            await asyncio.sleep(BEAT)

    async with beside(beat(), "activity"):
        yield
    board.hear(os.getpid(), watch.news())
    board.end()
