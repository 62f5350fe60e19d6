"""The policy that a process lives by, and how the next one takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ..config import Config
from ..server.v2.serving import Serving
from ..switch import Switch
from .policy import Policy, policy_of
from .resources import Resources

log = structlog.get_logger()

_LOOK = 1.0  # seconds between two looks at whether downloads of a registry have ended


class Live:
    """Answers by the policy of the last configuration that it was told of. A request keeps the one
    that it has begun with. Close it."""

    def __init__(self, config: Config, opened: Resources) -> None:
        self._opened = opened
        self._policy = policy_of(config, opened)
        self._policy.begin()
        self._replaced: dict[asyncio.Task[None], Policy] = {}
        self.serving: Switch[Serving] = Switch(self._policy.serving)

    def follow(self, config: Config) -> None:
        """From now on answers by this configuration. The policy before is closed when its last
        request has ended, and the last download of a registry that is there no more."""
        policy = policy_of(config, self._opened)
        policy.begin()
        old, self._policy = self._policy, policy
        unused = self.serving.replace(policy.serving)
        task = asyncio.create_task(self._close_unused(old, unused))
        self._replaced[task] = old
        task.add_done_callback(self._closed)

    async def close(self) -> None:
        replaced = dict(self._replaced)
        for task in replaced:
            task.cancel()
        await asyncio.gather(*replaced, return_exceptions=True)
        for policy in (*replaced.values(), self._policy):
            await policy.close()

    async def _close_unused(self, policy: Policy, unused: Callable[[], Awaitable[object]]) -> None:
        await unused()
        is_idle = self._opened.fills.is_idle
        while not all(map(is_idle, policy.last_asked())):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)
        await policy.close()

    def _closed(self, task: asyncio.Task[None]) -> None:
        del self._replaced[task]
        if not task.cancelled() and task.exception() is not None:
            log.error("policy_not_closed", exc_info=task.exception())
