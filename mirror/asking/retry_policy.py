"""Asking again what failed: the one policy, and the one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import TypeVar

from ..contracts.context import Asker, left
from ..frozen import dataclass
from ..oci.errors import RegistryError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often something is asked again, and after how long. In seconds, but for `tries`.

    `tries`: in all, the first included. The pause after the first is `pause`; it doubles up to
    `longest_pause`, and a share of `jitter` of it is drawn by chance, so that many who failed
    together do not come back together. `within`: no pause ends later than so long after the first
    try was begun; a try that is under way then ends by itself. `longest_asked`: a failure that asks
    for a longer pause (Retry-After) is not waited out.
    """

    tries: float = inf
    pause: float = 0.25
    longest_pause: float = inf
    within: float = inf
    longest_asked: float = inf
    jitter: float = 0.0

    def pause_after(
        self, tried: int, elapsed: float, asked: float = 0.0, draw: float = 1.0
    ) -> float | None:
        """The seconds until the next try, where `tried` have failed, the first of which was begun
        `elapsed` seconds ago, and the last of which asks for a pause of `asked` seconds; None: no
        more. `draw` is a random number in [0, 1)."""
        if tried >= self.tries or asked > self.longest_asked:
            return None
        pause = min(self.longest_pause, self.pause * 2.0 ** min(tried - 1, 64))
        pause = max(asked, pause * (1 - self.jitter * (1 - draw)))
        return pause if pause and elapsed + pause <= self.within else None


NEVER = RetryPolicy(tries=1)
"""What failed is not asked again."""


async def retrying(
    asker: Asker,
    ask: Callable[[], Awaitable[T]],
    policies: Mapping[type[RegistryError], RetryPolicy],
    *,
    failed: Callable[[RegistryError], None] | None = None,
) -> T:
    """What `ask` gives, asked again after each failure of a kind that `policies` name, the first of
    them that it is of, and for as long as the asker has time. The tries and the time of each kind
    are counted apart. Raises the last failure. `failed` is told of each that is waited out."""
    loop = asyncio.get_running_loop()
    tried: dict[type[RegistryError], int] = {}
    since: dict[type[RegistryError], float] = {}  # the loop's time
    while True:
        began = loop.time()
        try:
            return await ask()
        except tuple(policies) as error:
            kind = next(kind for kind in policies if isinstance(error, kind))
            tried[kind] = tried.get(kind, 0) + 1
            elapsed = loop.time() - since.setdefault(kind, began)
            pause = policies[kind].pause_after(tried[kind], elapsed, error.retry_after or 0.0)
            if pause is None or pause > left(asker):
                raise
            if failed is not None:
                failed(error)
        await asyncio.sleep(pause)
