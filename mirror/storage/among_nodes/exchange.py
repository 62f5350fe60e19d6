"""One process' exchange with Redis about what nodes tell one another."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

from ...events import Events
from ...redis_url import RedisAccess
from ...times import STORES
from ..redis_client import exchanged, failure_kind, redis_client
from ..shares import ByRepository
from ..tags.health import Health

Command = tuple[str | bytes | int | float, ...]

Write = Callable[[], Command | None]
"""Called when it is sent, which may be later than was thought; None: it is too late for it."""

# Writes that wait, and how many of them are sent at once.
_WAITING = 10_000
_BATCH = 200

# Seconds between two batches: what is noted within is sent together.
_TOGETHER = 0.05

# An exchange behind may take so many times as long as one that a request waits for: this process
# may have been late itself.
_PATIENCE = 4

# Seconds after which another node's news are heard.
_EACH = 0.5


class Exchange:
    """`later` writes behind, `ask` reads on the way of a request, `news` reads twice a second.

    No request waits longer than `limit` seconds. After a failure nothing is asked, but for one
    exchange behind after 0.5 to 5 seconds; what is to be written waits for it, in bounds. Nothing
    is asked either before the first exchange has gone well, so that it may begin with Redis down.
    """

    def __init__(
        self,
        access: RedisAccess,
        events: Events,
        limit: float = STORES.redis,
        pauses: tuple[float, float] = (1.0, 5.0),
    ) -> None:
        """`pauses`: the shortest and the longest between two tries, in seconds. Raises ValueError,
        without the password, for a URL of another form."""
        self._limit, self._patience = limit, _PATIENCE * limit
        self._client = redis_client(access, self._patience)
        self._pauses = pauses
        self._works = False  # the tag memory, which has the same Redis, tells the log
        self._taking = Health("redis", "share", events)
        self._unwritten: ByRepository[Write] = ByRepository(_WAITING)
        self._woken = asyncio.Event()
        self._news: list[tuple[Callable[[], Command | None], Callable[[Any], None]]] = []

    def later(self, key: str, write: Write) -> None:
        """Written soon. `key`, `registry/repository:what`, says what it is of: a write of the same
        that waits is dropped."""
        self._unwritten[key] = write
        self._woken.set()

    def news(self, ask: Callable[[], Command | None], tell: Callable[[Any], None]) -> None:
        """From now on this is asked twice a second, and `tell` told the answer."""
        self._news.append((ask, tell))

    async def ask(self, *command: str | bytes | int) -> Any:
        """The answer; None also where Redis gives none."""
        (answer,) = await self.ask_all(command)
        return answer

    async def ask_all(self, *commands: Command) -> Sequence[Any]:
        """As `ask`, of several together."""
        if not self._works:
            return [None] * len(commands)
        try:
            answers = await self._sent(commands, self._limit)
        except Exception:  # whatever is at the other end
            self._works = False
            return [None] * len(commands)
        return [None if isinstance(answer, ResponseError) else answer for answer in answers]

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        pause, longest = self._pauses
        at = asyncio.get_running_loop().time
        due = at()
        while True:
            try:
                if at() >= due:
                    due = at() + _EACH
                    await self._hear()
                await self._write()
            except Exception:  # whatever is at the other end
                self._works = False
                with contextlib.suppress(Exception):  # those that are idle may be dead
                    await self._client.connection_pool.disconnect(inuse_connections=False)
                # Spread, so that many nodes do not fall upon a Redis that has just come back.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
                pause, due = min(pause * 2, longest), at()
                continue
            pause = self._pauses[0]
            await asyncio.sleep(_TOGETHER)
            if not self._unwritten:
                self._woken.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - at())):
                        await self._woken.wait()

    async def close(self) -> None:
        """Writes what waits, if that is quick, and ends the connections."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._limit):
                while self._unwritten:
                    await self._write()
        with contextlib.suppress(Exception):  # nothing is left to be done about it
            async with asyncio.timeout(self._limit):
                await self._client.aclose()

    async def _hear(self) -> None:
        asked = [(command, tell) for ask, tell in self._news if (command := ask()) is not None]
        answers = await self._sent([("PING",), *(command for command, _ in asked)], self._patience)
        if isinstance(answers[0], ResponseError):
            raise answers[0]
        self._works = True
        for (_, tell), answer in zip(asked, answers[1:], strict=True):
            if not isinstance(answer, ResponseError):
                tell(answer)

    async def _write(self) -> None:
        """A batch of what waits. What Redis refuses is dropped: it would be refused again."""
        batch = list(islice(self._unwritten.items(), _BATCH))
        commands = [(key, write, write()) for key, write in batch]
        sent = [command for _, _, command in commands if command is not None]
        answers = await self._sent(sent, self._patience) if sent else []
        for key, write, _ in commands:
            if self._unwritten.get(key) is write:
                self._unwritten.pop(key)
        refused = next((each for each in answers if isinstance(each, ResponseError)), None)
        if refused is not None:
            self._taking.failed(failure_kind(refused))
        elif answers:
            self._taking.worked()

    async def _sent(self, commands: Sequence[Command], limit: float) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await exchanged(pipeline, limit)
