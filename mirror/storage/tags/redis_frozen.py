"""Tags that are frozen, in Redis, and the copy of them that this process goes by."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from ...clock import Clock
from ...contracts.tags import TagStoreError
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ..redis_client import is_other_type

log = structlog.get_logger()

_FROZEN = "registry-mirror:1:frozen"  # a hash: tag → digest

# Seconds for which this process believes its copy of what is frozen: with the exchange it takes to
# see it anew, less than the second that is promised.
_FROZEN_COPY = 0.5

_POLICY = "maxmemory-policy volatile-ttl"


class FrozenTags:
    """By the keys of tags. `exchange` sends a pipeline and gives all its answers; `ask` does so,
    and raises where one of them is an error. Both raise TagStoreError."""

    def __init__(
        self,
        client: Redis,
        exchange: Callable[[Pipeline], Awaitable[list[Any]]],
        ask: Callable[[str, Pipeline], Awaitable[list[Any]]],
        clock: Clock,
    ) -> None:
        self._client = client
        self._exchange = exchange
        self._ask = ask
        self._clock = clock
        self._copy: dict[str, Digest] | None = None  # of all, as of `_copied_at`
        self._copied_at = 0.0
        self._looked = False  # at how this Redis makes room

    async def freeze(self, key: str, digest: Digest) -> None:
        """Raises TagStoreError."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset(_FROZEN, key, str(digest))
        (answer,) = await self._ask("put", pipeline)
        if is_other_type(answer):
            pipeline.delete(_FROZEN)
            pipeline.hset(_FROZEN, key, str(digest))
            await self._ask("put", pipeline)
        self._copied_at = -math.inf

    async def unfreeze(self, key: str) -> bool:
        """Raises TagStoreError."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hdel(_FROZEN, key)
        (deleted,) = await self._ask("delete", pipeline)
        self._copied_at = -math.inf
        return bool(deleted == 1)  # and not an answer that something else is there

    async def all(self, may_ask: bool) -> Mapping[str, Digest]:
        """As Redis said within the last half second; or last, where it does not answer, or may not
        be asked."""
        now = self._clock.monotonic()
        known = self._copy
        if (known is None or now - self._copied_at >= _FROZEN_COPY) and may_ask:
            if known is not None:
                self._copied_at = now  # one asks; the others have the copy meanwhile
            with contextlib.suppress(TagStoreError):
                self._copy = await self._load()
                self._copied_at = now
        return self._copy or {}

    def away(self) -> None:
        """Redis does not answer: it may be another one when it is back."""
        self._looked = False

    async def _look_at_policy(self) -> None:
        """Tells the log where this Redis may drop what nothing else remembers."""
        self._looked = True
        pipeline = self._client.pipeline(transaction=False)
        pipeline.info("memory")
        with contextlib.suppress(TagStoreError):
            (memory,) = await self._exchange(pipeline)
            if isinstance(memory, dict) and memory.get("maxmemory"):  # others say no such thing
                policy = str(memory.get("maxmemory_policy", ""))
                if policy.startswith("allkeys"):
                    log.warning(
                        "redis_may_drop_pins",
                        reason="and the history by which min_age knows young tags",
                        policy=policy,
                        write=_POLICY,
                    )

    async def _load(self) -> dict[str, Digest]:
        if not self._looked:
            await self._look_at_policy()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(_FROZEN)
        (fields,) = await self._ask("get", pipeline)
        frozen = {}
        for key, said in () if is_other_type(fields) else fields.items():
            with contextlib.suppress(UnicodeDecodeError, DigestInvalid):  # none of ours
                frozen[key.decode()] = Digest.parse(said.decode())
        return frozen
