"""What one process of a node does for the second tier: content is given to it, and what is too old
or too much goes there, with the commands about it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import asdict
from typing import Any

import structlog

from ..config.s3 import S3Config
from ..contracts.events import SecondTierSwept
from ..contracts.fleet import Leases
from ..contracts.second_tier import FarContent, FarFault, FarRecords, Turn
from ..pullthrough.far_uploads import FarUploads
from ..pullthrough.second_tier import TierState
from ..server.control import Command, CommandFailed, Parameters, Tells
from ..storage.second_tier.sweep import Sweep, SweepPolicy, Swept
from .process import Process

log = structlog.get_logger()

Line = Mapping[str, Any]

_EVERY = 6 * 3600.0  # seconds between two sweeps, whichever node does them
_LOOK = 600.0  # seconds between two looks at whether one is due
_PAGE = 2000  # pieces of content
_KINDS = {True: "s3", False: "folder"}

_USED_WITHIN = 7 * 86400.0  # seconds, where content goes by its size alone

NOT_CONFIGURED = "there is nothing behind the disk here: see storage.s3"


def sweep_policy(s3: S3Config | None) -> SweepPolicy:
    return SweepPolicy() if s3 is None else SweepPolicy(s3.max_size, s3.keep)


def renewed_after(s3: S3Config) -> float | None:
    """After how many seconds content that is used is said to be; None: nothing goes there."""
    if s3.keep is not None:
        return s3.keep / 4
    return None if s3.max_size is None else _USED_WITHIN


class FarKeeping:
    """`far` None: a tier without an object store's means, of which nothing is removed."""

    def __init__(
        self,
        state: TierState,
        records: FarRecords,
        policy: SweepPolicy,
        turn: Turn,
        process: Process,
        leases: Leases | None,
    ) -> None:
        self._state = state
        self._records = records
        self._policy = policy
        self._turn = turn
        self._leases = leases
        self._events, self._clock = process.events, process.clock
        self._sweeping = asyncio.Lock()
        self._last: tuple[float, Line] | None = None  # when, in seconds since the epoch

    async def run(self) -> None:
        """Until cancelled. Its faults are logged."""
        async with asyncio.TaskGroup() as group:
            uploads = FarUploads(self._state, self._records, self._clock, leases=self._leases)
            group.create_task(uploads.run())
            if self._state.far is not None:
                group.create_task(self._sweep_for_ever(self._state.far))

    async def _sweep_for_ever(self, far: FarContent) -> None:
        while True:
            # Spread: nodes are often started together.
            await asyncio.sleep(_LOOK * random.uniform(0.5, 1.5))  # noqa: S311 (no secret)
            if not await self._turn.take():
                continue
            again_after = 0.0
            try:
                await self._sweep(far, self._turn.keep)
                again_after = _EVERY
            except FarFault:
                pass  # it was told; tried again at the next look
            except Exception:
                log.exception("second_tier_sweep_failed")
            finally:
                await self._turn.give_back(again_after)

    async def _sweep(self, far: FarContent, may_go_on: Callable[[], Any]) -> Line:
        """What it has done. Raises FarFault."""
        async with self._sweeping:
            try:
                swept = await Sweep(far, self._policy, self._clock).run(may_go_on)
            except FarFault as error:
                log.error("second_tier_sweep_failed", reason=str(error))
                self._events.emit(SecondTierSwept(self._clock.wall(), failed=True))
                raise
        at = self._clock.wall()
        told = _told(swept)
        self._last = at, told
        gone = {str(why): (each.objects, each.bytes) for why, each in swept.gone.items()}
        there = swept.there
        self._events.emit(SecondTierSwept(at, False, there.objects, there.bytes, gone))
        log.info("second_tier_swept", objects=there.objects, bytes=there.bytes, gone=gone)
        return told

    async def status(self, _: Parameters) -> AsyncGenerator[Line, None]:
        found = await self._records.backlog()
        oldest = None if found.oldest is None else max(0.0, self._clock.wall() - found.oldest)
        last = None
        if self._last is not None:
            last = {"ago": max(0.0, self._clock.wall() - self._last[0]), **self._last[1]}
        yield {
            "tier": _KINDS[self._state.far is not None],
            "left_alone": self._state.is_away,
            "backlog": found.count,
            "oldest": oldest,
            "max_size": self._policy.max_size,
            "keep": self._policy.keep,
            "last_sweep": last,
        }

    async def sweep(self, given: Parameters) -> AsyncGenerator[Line, None]:
        """Now, whosever turn it is: two at once harm nothing."""
        far = self._state.far
        if far is None:
            raise CommandFailed("nothing is removed from a folder: sweep is for storage.s3", 2)
        try:
            if given.get("is_trial"):
                forecast = await Sweep(far, self._policy, self._clock).forecast()
                yield {"result": "trial", **_told(forecast)}
            else:
                yield {"result": "done", **await self._sweep(far, _always)}
        except FarFault as error:
            raise CommandFailed(f"the object store does not do it: {error}") from error

    async def recheck(self, _: Parameters) -> AsyncGenerator[Line, None]:
        """All that was noted as far is due again: the tier may have lost it."""
        after: str | None = ""
        while after is not None:
            after = await self._records.doubt(after, _PAGE, self._clock.wall())
        yield {"backlog": (await self._records.backlog()).count}

    async def close(self) -> None:
        await self._turn.close()


async def _always() -> bool:
    return True


def _told(swept: Swept) -> Line:
    return {
        "there": asdict(swept.there),
        "set_aside": asdict(swept.aside),
        "gone": {str(why): asdict(each) for why, each in swept.gone.items()},
        "oldest": swept.oldest,
    }


def far_commands(keeping: FarKeeping | None) -> Mapping[str, Command]:
    """By their names. `keeping` None: there is nothing behind the disk."""

    async def nothing(_: Parameters) -> AsyncGenerator[Line, None]:
        raise CommandFailed(NOT_CONFIGURED, 2)
        yield {}

    if keeping is None:
        return dict.fromkeys(("far-status", "far-sweep", "far-recheck"), Tells(nothing))
    return {
        "far-status": Tells(keeping.status),
        "far-sweep": Tells(keeping.sweep),
        "far-recheck": Tells(keeping.recheck),
    }
