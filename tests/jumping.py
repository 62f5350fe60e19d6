"""An event loop whose time is made of waiting alone: a minute of silence takes no time at all, and
what a busy machine takes for its work is none.

For what waits only for timers, and not for sockets, threads or processes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    _now = 1e4
    _scheduled: list[Any]
    _ready: Any

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
            self._timer_cancelled_count -= 1
        if timers and not self._ready:
            self._now = max(self._now, timers[0]._when)
        super()._run_once()  # type: ignore[misc]


def jump(scenario: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end. That nothing is left to wait for is an error, not a wait for ever."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(asyncio.wait_for(scenario, 24 * 3600))
