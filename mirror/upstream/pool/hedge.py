"""One question to several candidates, the next one asked when the first is late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, TypeVar

from ...frozen import dataclass
from ...oci.errors import Denied, RegistryError, Unavailable, Unknown, Untrustworthy
from ...tasks import ended
from ...times import HEDGES

C = TypeVar("C")
T = TypeVar("T")
W = TypeVar("W")

# After these another may still be asked. Any other error is an answer, or a mistake of ours.
FAILURES = (Unknown, Denied, Unavailable, Untrustworthy)

# Asks that wait for an answer at once, where a candidate that is late is asked once more.
_AT_ONCE = 3


class _Alarm(asyncio.Future[None]):
    """Rings once. It is no task: one for each ask, which as a rule never rings."""

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop=loop)
        self._timer = loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        if not self.done():
            self.set_result(None)

    def cancel(self, msg: object = None) -> bool:
        self._timer.cancel()
        return super().cancel(msg)


def alarm(seconds: float) -> asyncio.Future[None]:
    """As asyncio.sleep."""
    return _Alarm(seconds)


class NobodyAnswered(Exception):
    """All candidates were asked, and failed."""


@dataclass(frozen=True, slots=True)
class Race(Generic[C, T]):
    """How candidates are asked. `late`: after how many seconds without an answer of this candidate
    another is asked too; `spare`: whether this one may be asked while others have still to answer,
    and `hedged` is called when it is; `failed` is called for each failure; an answer that comes too
    late goes to `discard`.

    `sleep` is a parameter for the sake of tests.
    """

    ask: Callable[[C], Awaitable[T]]
    late: Callable[[C], float]
    spare: Callable[[C], bool]
    hedged: Callable[[C], object]
    failed: Callable[[C, RegistryError], None]
    discard: Callable[[T], Awaitable[None]]
    sleep: Callable[[float], Awaitable[None]] = alarm

    async def run(
        self, candidates: Sequence[C], silent: tuple[C, Awaitable[T]] | None = None
    ) -> tuple[T, Sequence[tuple[C, bool]]]:
        """The first answer; and the candidates that were asked while another was late, each with
        whether that ask was the one that answered.

        They are asked in their order: the next when all before have failed, or when they are late;
        where none is left, one that is late once more, beside its first ask. `silent` is under way
        already, and late. Asks that are still under way in the end are cancelled. Raises
        NobodyAnswered.
        """
        asked: dict[asyncio.Future[T], C] = {}
        try:
            won = await self._first(candidates, silent, asked)
        except BaseException:
            await self._end(asked)
            raise
        try:
            await self._end(asked)
        except BaseException:  # the caller never gets the answer, and so cannot close it
            await self.discard(won[0])
            raise
        return won

    async def _first(
        self,
        candidates: Sequence[C],
        silent: tuple[C, Awaitable[T]] | None,
        asked: dict[asyncio.Future[T], C],
    ) -> tuple[T, Sequence[tuple[C, bool]]]:
        """As `run`. `asked`: the asks that are still under way in the end."""
        waiting = list(candidates)
        hedges: dict[asyncio.Future[T], C] = {}
        slept, again_at, pause = 0.0, HEDGES.again, HEDGES.again
        seconds = 0.0  # of the alarm
        alarm: asyncio.Future[None] | None = None
        changed = asyncio.Event()  # asyncio.wait takes twice as long, and this is for each ask

        def watched(future: asyncio.Future[W]) -> asyncio.Future[W]:
            future.add_done_callback(lambda _: changed.set())
            return future

        async def answer_of(candidate: C) -> T:
            try:
                return await self.ask(candidate)
            finally:
                changed.set()  # a turn of the loop sooner than by a callback

        if silent is not None:
            asked[watched(asyncio.ensure_future(silent[1]))] = silent[0]
            again_at = 0.0
        try:
            while True:
                besides = None
                if not asked:
                    if not waiting:
                        raise NobodyAnswered
                    besides = waiting.pop(0)
                elif alarm is None or alarm.done():
                    slept += seconds
                    besides = next(filter(self.spare, waiting), None)
                    if besides is not None:
                        waiting.remove(besides)
                    elif again_at <= slept < HEDGES.again_for and len(asked) < _AT_ONCE:
                        besides = next(filter(self.spare, asked.values()), None)
                        if besides is not None:
                            pause *= 2
                            again_at = slept + pause
                if besides is not None:
                    task = asyncio.ensure_future(answer_of(besides))
                    if asked:
                        hedges[task] = besides
                        self.hedged(besides)
                    asked[task] = besides
                if besides is not None or alarm is None or alarm.done():
                    if alarm is not None:
                        alarm.cancel()
                    seconds = self.late([*asked.values()][-1])
                    alarm = watched(asyncio.ensure_future(self.sleep(seconds)))
                await changed.wait()
                changed.clear()
                for done in [one for one in asked if one.done()]:
                    candidate = asked.pop(done)
                    try:
                        answer = done.result()
                    except FAILURES as error:
                        self.failed(candidate, error.bare())
                    else:
                        return answer, [(hedge, ask is done) for ask, hedge in hedges.items()]
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _end(self, asked: Collection[asyncio.Future[T]]) -> None:
        """Returns when these asks have ended, also when it is cancelled meanwhile."""
        for task in asked:
            task.cancel()
        try:
            await ended(asked)
        finally:
            for task in asked:
                if not task.cancelled() and task.exception() is None:
                    await self.discard(task.result())
