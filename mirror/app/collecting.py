"""Garbage collection and retention of repositories of one's own, in the process that holds the
store."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from ..clock import Clock
from ..config.collection import CollectionConfig
from ..contracts.administration import RetentionPlan
from ..contracts.uploads import CollectedContent
from ..events import Events
from ..hosted.garbage import Collected, CollectionPlan, Collector, Forecast
from ..hosted.retention import BY, Records, Retention
from ..server.control import Command, CommandFailed, Parameters, Tells
from .administering import NOT_CONFIGURED

Line = Mapping[str, Any]


_LATE = 60.0


def late(config: CollectionConfig) -> float:
    """By so many seconds the time may be too early when somebody last relied on something: not
    each HEAD is written down."""
    return min(_LATE, config.grace / 10)


class Collecting:
    """`registry`: the name that repositories are given to others by."""

    def __init__(
        self,
        registry: str,
        records: Records,
        held: CollectedContent,
        config: CollectionConfig,
        events: Events,
        clock: Clock,
    ) -> None:
        self._plan = CollectionPlan(config.every, config.grace + late(config), config.at_most)
        self.retention = Retention(registry, records, events, clock, lambda: self._plan.grace)
        self.collector = Collector(records, held, self._plan, events, clock, self.retention.run)
        self._monotonic = clock.monotonic

    def grace(self) -> float:
        """Seconds for which what nobody relies on any more stays."""
        return self._plan.grace

    async def run(self) -> None:
        """Both, whenever they are due, for ever."""
        await self.collector.run()

    async def follow_rules(self, repository: str, is_trial: bool) -> RetentionPlan:
        """What the rules take away of this repository now, or would."""
        if is_trial:
            found = await self.retention.plan(repository)
        else:
            found = await self.retention.apply(repository, BY)
        return RetentionPlan(
            repository,
            tuple(one.tag.name for one in found.tags if one.tag is not None),
            tuple(one.digest for one in found.manifests),
            is_trial,
            tuple(one.why for one in (*found.tags, *found.manifests)),
        )

    async def command(self, given: Parameters) -> AsyncGenerator[Line, None]:
        """`gc`: line by line what would go, and last what has been done."""
        collector = self.collector
        if given.get("is_trial"):
            forecast = await collector.forecast()
            for one in forecast.going:
                yield dataclasses.asdict(one)
            yield {"kind": "total", "result": "trial", **_waiting(forecast)}
            return
        due_in = (collector.next_at or 0.0) - self._monotonic()
        if not given.get("is_now") and due_in > 0:
            last = collector.last
            yield {
                "kind": "total",
                "result": "not due",
                "due_in": due_in,
                "last": None if last is None else _told(last),
            }
            return
        try:
            collected = await collector.collect()
            forecast = await collector.forecast()
        except Exception as error:
            raise CommandFailed(f"the collection failed, see the log: {error}") from error
        yield {"kind": "total", **_told(collected), **_waiting(forecast)}


def _told(collected: Collected) -> Line:
    return dataclasses.asdict(collected)


def _waiting(forecast: Forecast) -> Line:
    return {
        "would_free": forecast.freed,
        "would_go": len(forecast.going),
        "waiting": forecast.waiting,
        "waiting_bytes": forecast.waiting_bytes,
        "grace": forecast.grace,
    }


def collecting_commands(collecting: Callable[[], Collecting | None]) -> Mapping[str, Command]:
    """By their names. `collecting`: None where nothing is hosted."""

    async def run(given: Parameters) -> AsyncGenerator[Line, None]:
        found = collecting()
        if found is None:
            raise CommandFailed(NOT_CONFIGURED, 2)
        async for line in found.command(given):
            yield line

    return {"gc": Tells(run)}
