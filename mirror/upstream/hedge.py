"""One question to several who may know, the next one asked when the first is late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..oci.errors import Denied, RegistryError, Unavailable, Unknown, Untrustworthy

C = TypeVar("C")
T = TypeVar("T")

# After these another may still be asked. Any other error is an answer, or a mistake of ours.
FAILURES = (Unknown, Denied, Unavailable, Untrustworthy)


class NobodyAnswered(Exception):
    """All were asked, and failed."""


@dataclass(frozen=True, slots=True)
class Race(Generic[C, T]):
    """How to ask. `late`: after how many seconds without an answer of this one another is asked
    too; `spare`: whether this one may be asked while others have still to answer; `failed` is told
    of each failure; an answer that comes too late goes to `discard`.

    `sleep` is a parameter for the sake of tests.
    """

    ask: Callable[[C], Awaitable[T]]
    late: Callable[[C], float]
    spare: Callable[[C], bool]
    failed: Callable[[C, RegistryError], None]
    discard: Callable[[T], Awaitable[None]]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, candidates: Sequence[C]) -> tuple[T, Sequence[C]]:
        """The first answer, and who had been asked besides the first one while it was late.

        They are asked in their order: the next when all before have failed, or when they are late.
        Whoever is still being asked in the end is cancelled. Raises NobodyAnswered.
        """
        waiting = list(candidates)
        asked: dict[asyncio.Future[T], C] = {}
        hedges: list[C] = []
        alarm: asyncio.Future[None] | None = None
        try:
            while True:
                if not asked:
                    if not waiting:
                        raise NobodyAnswered
                    if len(waiting) == 1 and alarm is None:
                        return await self._alone(waiting.pop()), hedges
                    alarm = self._start(waiting.pop(0), asked, alarm)
                watched: set[asyncio.Future[T] | asyncio.Future[None]] = {*asked}
                if alarm is not None:
                    watched.add(alarm)
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in asked if task.done()]:
                    candidate = asked[task]
                    try:
                        answer = task.result()
                    except FAILURES as error:
                        del asked[task]
                        self.failed(candidate, error)
                    else:
                        del asked[task]
                        return answer, hedges
                if alarm is None or not alarm.done():
                    continue
                alarm = None
                besides = next(filter(self.spare, waiting), None)
                if asked and besides is not None:
                    waiting.remove(besides)
                    hedges.append(besides)
                    alarm = self._start(besides, asked, alarm)
                elif asked and waiting:  # one may become spare
                    alarm = self._alarm([*asked.values()][-1])
        finally:
            if alarm is not None:
                alarm.cancel()
            await self._end(asked)

    async def _alone(self, candidate: C) -> T:
        """The last one left, with nobody to be asked besides: no task is needed."""
        try:
            return await self.ask(candidate)
        except FAILURES as error:
            self.failed(candidate, error)
            raise NobodyAnswered from None

    def _start(
        self, candidate: C, asked: dict[asyncio.Future[T], C], alarm: asyncio.Future[None] | None
    ) -> asyncio.Future[None]:
        """Asks, and sets the alarm to when this one is late."""
        if alarm is not None:
            alarm.cancel()
        asked[asyncio.ensure_future(self.ask(candidate))] = candidate
        return self._alarm(candidate)

    def _alarm(self, candidate: C) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.sleep(self.late(candidate)))

    async def _end(self, asked: dict[asyncio.Future[T], C]) -> None:
        for task in asked:
            task.cancel()
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if not isinstance(answer, BaseException):
                await self.discard(answer)
