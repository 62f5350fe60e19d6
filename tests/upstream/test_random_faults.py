"""Endpoints that die, come back, lie and refuse at random: what one of them can give is given."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from mirror.asking.retry_policy import RetryPolicy
from mirror.oci.digest import Digest
from mirror.oci.errors import RangeInvalid, Unavailable
from mirror.oci.ranges import ByteRange
from mirror.upstream.endpoint import Trust
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Fault, Hub, cut, page, status
from .conftest import REDIS, Counts, MakeRemote

FAULTS: list[Fault] = [
    status(500),
    status(503, {"Retry-After": "2"}),
    status(404),
    status(403),
    status(429, {"Retry-After": "30"}),
    page(),
    cut(),
    cut(b"half of", announced=1000),
    status(200, {"Content-Type": "application/octet-stream"}, b"a lie"),
]


@pytest.fixture
async def hubs() -> AsyncIterator[list[Hub]]:
    async with Hub() as near, Hub() as far, Hub() as hub:
        for one in (near, far, hub):
            one.challenge, one.redirects = "none", False
        yield [near, far, hub]


@pytest.mark.parametrize("seed", range(6))
async def test_as_long_as_one_endpoint_is_well_everything_is_had(
    hubs: list[Hub], make_remote: MakeRemote, time: HandClock, counts: Counts, seed: int
) -> None:
    draw = random.Random(seed)
    clock = time.clock()
    members = [
        Member(str(n), make_remote(hub.url, policy=RetryPolicy(tries=1)), trust)
        for n, (hub, trust) in enumerate(
            zip(hubs, (Trust.CONTENT, Trust.CONTENT, Trust.TAGS), strict=True)
        )
    ]
    pool = Pool([EndpointState(one, clock, counts) for one in members], clock, events=counts)
    well = hubs[0]
    for number in range(60):
        if number % 10 == 0:  # another one is well now; a moment later that is known
            well = draw.choice(hubs)
            time.now += 31
        for hub in hubs:
            hub._faults.clear()
            if hub is not well:
                hub.fail("registry", draw.choice(FAULTS), times=99)
        data = draw.randbytes(2000)
        layer = f"layer {seed} {number}".encode()
        for hub in hubs:
            digest = Digest.parse(hub.add_blob(data))
            image = Digest.parse(hub.add_image("library/redis", f"{number}", layer))
        assert (await pool.manifest(CONTEXT, REDIS, image)).descriptor.digest == image
        assert await whole(pool, digest, time) == data
        time.now += draw.random()


async def whole(pool: Pool, digest: Digest, time: HandClock) -> bytes:
    """As a fill takes it: goes on where it broke, begins anew when it was wrong."""
    data, sources = b"", []
    for _ in range(20):
        time.now += 0.25
        try:
            stream = await pool.blob(CONTEXT, REDIS, digest, ByteRange(len(data)) if data else None)
        except RangeInvalid:
            data = b""
            continue
        sources.append(stream)
        data = data[: stream.start]
        try:
            while piece := await stream.read():
                data += piece
        except Unavailable:
            continue
        finally:
            await stream.close()
        if digest.matches(data):
            return data
        for source in sources:  # nobody knows whose bytes were wrong
            source.reject("not its digest")
        data, sources = b"", []
    raise AssertionError("never whole")
