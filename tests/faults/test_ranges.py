"""Ranges of a blob that is not here, as clients ask for that read layers lazily."""

from __future__ import annotations

import asyncio
import os

from ..waiting import eventually
from .bodies import MIB, waits
from .house import House, Mirror

KIB = 1 << 10


async def part(mirror: Mirror, digest: str, data: bytes, start: int, stop: int) -> bool:
    answer = await mirror.blob(digest, {"Range": f"bytes={start}-{stop - 1}"})
    return (answer.status, answer.body == data[start:stop]) == (206, True)


async def test_f56_ranges_of_a_cold_blob_come_first_and_the_rest_follows(house: House) -> None:
    data = os.urandom(30 * MIB)
    digest = house.hub.add_blob(data)
    mirror = await house.mirror()
    ends = [(30 * MIB - 100, 30 * MIB), (12 * MIB + 5, 12 * MIB + 70 * KIB), (0, 4 * KIB)]
    ends += [(number * MIB, number * MIB + 30) for number in range(1, 29, 3)]
    assert all(await asyncio.gather(*(part(mirror, digest, data, *one) for one in ends)))
    await eventually(mirror.blobs)
    answer = await mirror.blob(digest)
    assert answer.is_whole(digest)
    assert answer.headers["Cache-Status"].endswith("hit")
    assert await mirror.metric("upstream_bytes_total") < len(data) * 1.2


async def test_f56_a_range_far_ahead_of_a_download_that_hangs_does_not_wait(
    house: House,
) -> None:
    data = os.urandom(30 * MIB)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", waits(data, 2 * MIB, go_on := asyncio.Event()))
    mirror = await house.mirror(limits={"parts": 1})
    async with mirror.connection() as whole:
        await whole.get(f"/v2/library/redis/blobs/{digest}")
        assert (await whole.head())[0] == 200
        async with asyncio.timeout(10):
            assert await part(mirror, digest, data, 20 * MIB, 20 * MIB + 30)
            asked = house.hub.count("blobs")
            assert await part(mirror, digest, data, 20 * MIB + 10, 20 * MIB + 20)
        assert house.hub.count("blobs") == asked
    go_on.set()
    await eventually(mirror.blobs)


async def test_f56_two_workers_give_ranges_of_one_download(house: House) -> None:
    data = os.urandom(30 * MIB)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", waits(data, 2 * MIB, go_on := asyncio.Event()))
    mirror = await house.mirror(workers=2, limits={"parts": 1})
    async with mirror.connection() as whole:
        await whole.get(f"/v2/library/redis/blobs/{digest}")
        assert (await whole.head())[0] == 200
        async with asyncio.timeout(20):  # connections go to both
            starts = [number * MIB for number in range(5, 29)]
            for start in starts:
                assert await part(mirror, digest, data, start, start + 30)
    go_on.set()
    await eventually(mirror.blobs)
