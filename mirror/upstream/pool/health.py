"""Whether an endpoint is there, whatever it is asked for.

Clients choose what an endpoint is asked for, and some requests fail at an endpoint that is well: a
broken blob, a repository that a registry trips over, a list that takes it minutes. So failed
requests never speak against the endpoint itself. They raise a doubt, and the mirror asks a question
of its own, which no client shapes: its answer is what counts. Where one of two endpoints answered
503, 20 tags of as many repositories came so in 1.2 s, and without it in 9.6 s; where one was
silent, in 16 s and in 184 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...clock import Clock
from ...oci.errors import RegistryError, Unavailable
from ..failures import Unreachable
from .breaker import PAUSES, Breaker, BreakerState, Trouble

Ping = Callable[[], Awaitable[None]]
"""Asks the endpoint whether it is there. Raises Unavailable when it is not."""

_DOUBT = PAUSES[Trouble.FAULT].failures  # requests that fail in a row
# Seconds until the next question, while requests fail at an endpoint that is well; and where an
# endpoint that had nothing to say to the question gave what it was asked for.
_PAUSE = 5.0
_LONG_PAUSE = 600.0


class HealthCheck:
    """Holds the breaker of one endpoint. `changed` is called when it opens (True) or closes."""

    def __init__(self, ping: Ping, clock: Clock, changed: Callable[[bool], None]) -> None:
        self._ping = ping
        self._clock = clock
        self._changed = changed
        self.breaker = Breaker(PAUSES[Trouble.FAULT])
        self._row = 0  # requests that failed since the last that was answered
        self._not_before = float("-inf")  # monotonic: no question is asked
        self._unheard = False  # the endpoint had nothing to say to the last question
        self._asking: asyncio.Task[RegistryError | None] | None = None

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def answered(self) -> None:
        """The endpoint gave what was asked for, or said that it does not have it."""
        self._row = 0
        if self.breaker.succeeded():
            self._changed(False)
        if self._unheard:
            self._unheard = False
            self._not_before = self._clock.monotonic() + _LONG_PAUSE

    def failed(self, error: Unavailable) -> None:
        """A request failed, through what was asked for or through the endpoint."""
        if isinstance(error, Unreachable):
            self._fail(error)
        else:
            self.doubted()

    def doubted(self) -> None:
        """A request failed, or was silent while another endpoint answered: one more of these in a
        row, and the endpoint is asked whether it is there."""
        self._row += 1
        now = self._clock.monotonic()
        is_open = self.breaker.state(now) is not BreakerState.CLOSED
        if self._row >= _DOUBT and not is_open and now >= self._not_before:
            self._question()

    async def trial(self) -> None:
        """Asks whether the endpoint is back, where it was down. Raises Unavailable where it cannot
        be reached. Another failure raises nothing: an endpoint may have nothing to say to the
        question, and still give what it is asked for."""
        now = self._clock.monotonic()
        if self.breaker.state(now) is BreakerState.CLOSED:
            return
        self.breaker.begin_trial(now)  # until it is decided, the endpoint is down for all others
        error = await asyncio.shield(self._question())
        if isinstance(error, Unreachable):
            raise error.with_traceback(None)

    def _question(self) -> asyncio.Task[RegistryError | None]:
        """The mirror's question: one at a time, shared by all that wait for it. It goes on when
        they leave."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return self._asking

    async def _ask(self) -> RegistryError | None:
        try:
            await self._ping()
        except RegistryError as error:
            # Each of the requests before was a failure, too.
            self._unheard = not isinstance(error, Unreachable)
            self._fail(error, since=_DOUBT)
            return error
        self._unheard = False
        self._not_before = self._clock.monotonic() + _PAUSE
        self.answered()
        return None

    def _fail(self, error: RegistryError, since: int = 1) -> None:
        now, least = self._clock.monotonic(), error.retry_after or 0.0
        opened = [self.breaker.failed(now, error.message, least) for _ in range(since)]
        if any(opened):
            self._changed(True)
