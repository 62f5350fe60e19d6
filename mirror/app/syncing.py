"""The key `sync`: its entries run in the process that holds the store."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from ..config import ClockWindow, Config, SyncConfig, sync_name
from ..contracts.context import RequestContext
from ..contracts.events import QuotaReported
from ..contracts.registry import Reader
from ..contracts.sync import (
    Bringing,
    Brought,
    Postponed,
    UnknownEntry,
    rendered,
)
from ..oci.errors import RateLimited
from ..oci.reference import ImageReference, Repository
from ..policy.sparing import Sparing
from ..pullthrough.images import this_platform
from ..server.control import Command, CommandFailed, Parameters, Tells
from ..storage.records.sync_runs import SyncRuns
from ..sync.quotas import Quotas
from ..sync.schedule import Plan, Window
from ..sync.scheduler import Entry, Scheduler, Sync
from .ahead import Ahead
from .logins import name_of
from .resources import Resources

_OPERATOR = RequestContext(request_id="", client="")
_ANSWERED_WITHIN = 30.0  # seconds, of a question that is not counted

Line = Mapping[str, Any]


class SyncEntries:
    """The entries of the configuration that counts. `scheduler` is what runs them."""

    def __init__(self, config: Config, opened: Resources, ahead: Ahead) -> None:
        self._config = config
        self._opened = opened
        self._ahead = ahead
        process = opened.process
        self._quotas = Quotas(process.clock)
        self._turns: dict[str, asyncio.Lock] = {}  # by registry, of those that are configured
        process.events.listen(QuotaReported, self._quotas.reported)
        self.scheduler = Scheduler(
            self._bringing,
            SyncRuns(opened.store.root),
            process.events,
            process.clock,
            random.random,
        )
        self.follow(config)

    def follow(self, config: Config) -> None:
        """From now on this is the configuration."""
        self._config = config
        entries = [_entry(entry, index) for index, entry in enumerate(config.sync)]
        self.scheduler.follow(Sync(entries, config.default_registry, config.offline))

    def commands(self) -> Mapping[str, Command]:
        return {"sync-list": Tells(self._list), "sync-run": Tells(self._run_now)}

    async def run(self) -> None:
        """Runs what is due, for ever. What has come of a run that is cut stays, and the run goes on
        when the mirror starts again."""
        await self.scheduler.keep()

    async def _list(self, _: Parameters) -> AsyncGenerator[Line, None]:
        for state in self.scheduler.entries():
            yield rendered(state)

    async def _run_now(self, parameters: Parameters) -> AsyncGenerator[Line, None]:
        names = [str(name) for name in parameters.get("names", ())]
        try:
            async with contextlib.aclosing(self.scheduler.run(names)) as told:
                async for one in told:
                    yield rendered(one)
        except UnknownEntry as error:
            raise CommandFailed(str(error), 2) from None

    def _bringing(self, spare: float) -> Bringing:
        def pulling(
            repository: Repository, reference: str
        ) -> contextlib.AbstractAsyncContextManager[None]:
            return self._pulling(repository, reference, spare)

        def around(reader: Reader) -> Reader:
            return Sparing(reader, self._opened.store, pulling)

        return _LeavingPulls(self._ahead.bringing(around, self._opened.fills))

    @contextlib.asynccontextmanager
    async def _pulling(
        self, repository: Repository, reference: str, spare: float
    ) -> AsyncIterator[None]:
        """One pull at a time of a registry that counts them: each answer says what is left."""
        registry = repository.registry
        endpoints = self._endpoints(registry)
        if not endpoints or self._quotas.counts_nothing(registry, endpoints):
            yield
            return
        async with self._turns.setdefault(registry, asyncio.Lock()):
            await self._check(repository, reference, spare)
            yield

    async def _check(self, repository: Repository, reference: str, spare: float) -> None:
        """Returns when this may be pulled, or is no pull. What is left of a limit is asked by a
        HEAD, which no registry counts. Raises Postponed, and what the HEAD raises."""
        registry, upstreams = repository.registry, self._opened.upstreams
        endpoints = self._endpoints(registry)
        if upstreams is None:
            return
        if not self._quotas.is_to_be_asked(registry, endpoints, spare):
            return
        asker = _OPERATOR.lasting(_ANSWERED_WITHIN)
        said = await upstreams.upstream(registry).resolve(asker, repository, reference)
        left = self._quotas.left(endpoints)
        if left is None or left > spare:
            return
        content = await self._opened.store.open(said.digest)
        if content is not None:
            content.close()
            return
        raise Postponed(
            f"{left:.0%} of the pulls that {registry} grants are left, and spare_quota leaves "
            f"{spare:.0%} to clients"
        )

    def _endpoints(self, registry: str) -> Sequence[str]:
        found = self._config.registries.get(registry)
        if found is None or self._config.offline:
            return ()
        return [name_of(each) for each in found.endpoints if each.trust == "tags"]


class _LeavingPulls:
    """A Bringing: another, of which what a registry limits waits for the next run."""

    def __init__(self, inner: Bringing) -> None:
        self._inner = inner

    async def bring(
        self, image: ImageReference, platform: str, progress: Callable[[int, int], None]
    ) -> Brought:
        try:
            return await self._inner.bring(image, platform, progress)
        except RateLimited as error:
            raise Postponed(error.message) from error

    async def tags(self, repository: Repository) -> Sequence[str]:
        return await self._inner.tags(repository)

    async def repositories(self, registry: str) -> Sequence[Repository]:
        return await self._inner.repositories(registry)


def _entry(config: SyncConfig, index: int) -> Entry:
    return Entry(
        name=sync_name(config, index),
        images=config.images,
        platforms=config.platforms or (this_platform(),),
        plan=Plan(config.every, None if config.window is None else _window(config.window)),
        window="" if config.window is None else str(config.window),
        newest=config.newest,
        spare_quota=config.spare_quota,
    )


def _window(window: ClockWindow) -> Window:
    zone = None if window.zone is None else ZoneInfo(window.zone)
    return Window(window.start, window.stop, zone)
