"""What one node at a time does, of all that share a Redis."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import structlog

from ..redis_url import RedisAccess
from ..times import STORES
from .redis_client import failure_kind, redis_client

log = structlog.get_logger()

_PREFIX = "registry-mirror:1:turn:"
_TURN = 120.0  # seconds without a sign of life, after which it is somebody else's turn

# Both only where it is this node's turn. KEYS: the turn, when it was done. ARGV: who, ms, ms.
_KEEP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_GIVE_BACK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
return redis.call('DEL', KEYS[1])
"""


class RedisTurn:
    """A Turn of all nodes that share this Redis. Raises ValueError, without the password, for a URL
    of another form."""

    def __init__(self, access: RedisAccess, name: str) -> None:
        self._client = redis_client(access, 8 * STORES.redis)  # nobody waits for it
        self._turn, self._done = f"{_PREFIX}{name}", f"{_PREFIX}{name}:done"
        self._me = secrets.token_hex(16)

    async def take(self) -> bool:
        try:
            if await self._client.exists(self._done):
                return False
            taken = await self._client.set(self._turn, self._me, nx=True, px=int(_TURN * 1000))
            return bool(taken)
        except Exception as error:  # whatever is at the other end
            self._tell("take", error)
            return False

    async def keep(self) -> bool:
        try:
            kept = await self._client.eval(_KEEP, 1, self._turn, self._me, str(int(_TURN * 1000)))
            return bool(kept)
        except Exception as error:
            self._tell("keep", error)
            return False

    async def give_back(self, again_after: float = 0.0) -> None:
        try:
            await self._client.eval(
                _GIVE_BACK, 2, self._turn, self._done, self._me, str(int(again_after * 1000))
            )
        except Exception as error:  # it ends by itself
            self._tell("give back", error)

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STORES.redis):
                await self._client.aclose()

    def _tell(self, what: str, error: Exception) -> None:
        log.warning("turn_not_known", operation=what, reason=failure_kind(error))
