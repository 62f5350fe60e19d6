"""The nodes of a fleet in Redis: each enters itself, and goes on to say that it is there.

One hash has all of them: a URL, and when it was last entered, by Redis' own clock, signed by the
fleet's secret. Whoever may write there without having the secret can take nodes out, and enter
none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ...clock import Clock
from ...peering import LONGEST_URL, is_mac_of, mac_of
from ...times import FLEET
from ..redis_client import failure_kind

_KEY = "registry-mirror:1:fleet:nodes:"
_KEPT = 86400  # seconds for which Redis keeps the list of a fleet that is gone

# Of more than these, garbage most likely, so many are read, in no order.
_MOST = 12_000
_READ = 10_000


class RedisNodes:
    """Enters `own`, and finds who else did. Fleets of several secrets, which ask nothing of one
    another, have a list each."""

    def __init__(self, client: Redis, own: str, secret: bytes, clock: Clock, limit: float) -> None:
        self._client = client
        self._own = own
        self._secret = secret
        self._clock = clock
        self._limit = limit
        self._key = _KEY + mac_of(secret, "list of nodes")[:16]
        self._ahead: float | None = None  # Redis' clock, ahead of the monotonic one

    async def stay(self) -> None:
        """Enters this node again and again, without an end: as often as it is to be known, however
        seldom a long list is read."""
        while True:
            with contextlib.suppress(OSError):  # whoever reads the list tells of it
                await self.enter()
            await asyncio.sleep(FLEET.look)

    async def enter(self) -> None:
        """This node is there, by now. Raises OSError."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset(self._key, self._own, self._entry(await self._now()))
        pipeline.expire(self._key, _KEPT)
        await self._exchange(pipeline.execute())

    async def find(self) -> Collection[str]:
        """All that were entered in the last `FLEET.listed` seconds. Raises OSError."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.time()
        pipeline.hlen(self._key)
        (now, _), count = await self._exchange(pipeline.execute())
        # Anew each time: that clock may have been set, and this machine have stood still.
        self._ahead = now - self._clock.monotonic()
        if count > _MOST:
            listed = await self._exchange(self._client.hrandfield(self._key, _READ, True))
            found = dict(zip(listed[::2], listed[1::2], strict=True))
        else:
            found = await self._exchange(self._client.hgetall(self._key))
        there, gone = self._read(found, now)
        if gone:
            await self._exchange(self._client.hdel(self._key, *gone[:1000]))
        return there

    async def close(self) -> None:
        await self._client.aclose()

    def _entry(self, now: int) -> str:
        return f"{now} {mac_of(self._secret, 'node', self._own, str(now))}"

    async def _now(self) -> int:
        """By Redis' clock: those of the nodes may differ."""
        if self._ahead is None:
            seconds, _ = await self._exchange(self._client.time())
            self._ahead = seconds - self._clock.monotonic()
        return int(self._clock.monotonic() + self._ahead)

    def _read(self, found: Mapping[bytes, bytes], now: int) -> tuple[Collection[str], list[bytes]]:
        """The URLs of those that are there, and the fields of what is to be taken out."""
        there, gone = set(), []
        for field, value in found.items():
            url = field.decode("ascii", "replace")
            at, _, mac = value[:100].decode("ascii", "replace").partition(" ")
            age = now - int(at) if at.isdigit() and len(at) < 13 else FLEET.forgotten + 1
            if not -FLEET.forgotten <= age <= FLEET.forgotten or len(url) > LONGEST_URL:
                gone.append(field)
            elif age <= FLEET.listed and is_mac_of(mac, self._secret, "node", url, at):
                there.add(url)
        return there, gone

    async def _exchange(self, asked: Any) -> Any:
        try:
            async with asyncio.timeout(self._limit):
                return await asked
        except (RedisError, OSError, TimeoutError) as error:
            self._ahead = None  # it may be another Redis by then
            raise OSError(failure_kind(error)) from None
