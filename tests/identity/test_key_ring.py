"""Keys that tokens are signed with, which several processes make and read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mirror.identity.key_ring import KeyRing

from ..fakes import HandClock, MemoryIdentity


class SlowerAtFirst(MemoryIdentity):
    """Of readings at the same time, the one that began first is the last to end."""

    slow = 100

    async def signing_keys(self) -> Sequence[tuple[str, bytes, float]]:
        found = await super().signing_keys()
        turns, self.slow = self.slow, self.slow // 2
        for _ in range(turns):
            await asyncio.sleep(0)
        return found


def ring(records: MemoryIdentity, clock: HandClock) -> KeyRing:
    return KeyRing(records, wall=lambda: clock.wall, monotonic=clock)


async def test_tokens_that_are_the_first_at_the_same_time_are_known() -> None:
    clock = HandClock()
    keys = ring(SlowerAtFirst(), clock)

    async def used() -> bytes | None:
        id, _ = await keys.newest()
        key = await keys.known(id)
        for _ in range(150):  # until all readings are over
            key = key and await keys.known(id)
            await asyncio.sleep(0)
        return key

    assert None not in await asyncio.gather(*(used() for _ in range(5)))


async def test_a_key_that_another_process_has_just_made_is_known_at_once() -> None:
    clock = HandClock()
    records = MemoryIdentity()
    one, other = ring(records, clock), ring(records, clock)
    await one.newest()
    await other.newest()
    clock.now += 86_401
    await other.known("none")  # it has read them a moment ago
    id, key = await one.newest()
    assert await other.known(id) == key
