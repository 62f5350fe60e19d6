"""The memory of bodies that are left: it goes at once, not when the garbage is collected."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from mirror.asking.retry_policy import RetryPolicy
from mirror.clock import Clock
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.ranges import ByteRange
from mirror.pullthrough.fills.parallel import ParallelPolicy
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.upstream.endpoint import Trust
from mirror.upstream.pool.body import Body, Watch
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool

from ..fakes import CONTEXT
from ..fakes.hub import Hub
from ..faults.bodies import breaks, drips, stalls
from ..waiting import eventually
from .conftest import QUICK, REDIS, Lent, MakeRemote

SIZE = 4 << 20
SENT = 1_500_000
BLOBS = 6
ENDS = {"falls silent": stalls, "drips": drips, "breaks": breaks}
WATCH = Watch(silent=0.1, alone=0.2, longest=0.4, slow_window=0.3)


def pool_of(hub: Hub, make_remote: MakeRemote, connections: int = 32) -> Pool:
    limits = replace(QUICK, connections=connections)
    remote = make_remote(hub.url, policy=RetryPolicy(tries=1), limits=limits)
    clock, events = Clock(), Events()
    member = Member("hub", remote, Trust.TAGS, connections)
    return Pool([EndpointState(member, clock, events)], clock, watch=WATCH, events=events)


def misbehave(hub: Hub, end: str, size: int) -> list[Digest]:
    hub.challenge, hub.redirects = "none", False
    digests = [hub.add_blob(os.urandom(size)) for _ in range(BLOBS)]

    async def fault(request: web.Request) -> web.StreamResponse | None:
        return await ENDS[end](hub.blobs[request.path.rpartition("/")[2]], SENT)(request)

    hub.fail("registry", fault, 10_000)
    return [Digest.parse(digest) for digest in digests]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("parts", [1, 4], ids=["in order", "parted"])
@pytest.mark.parametrize("connections", [BLOBS + 1, 64], ids=["few connections", "many"])
async def test_no_memory_of_a_body_is_kept_that_was_given_up(
    hub: Hub,
    make_remote: MakeRemote,
    tmp_path: Path,
    lent: Lent,
    end: str,
    parts: int,
    connections: int,
) -> None:
    digests = misbehave(hub, end, SIZE)
    store = DiskContent(tmp_path / "store", Bounds(1 << 30), sync=False, events=Events())
    fills = Fills(
        store,
        Events(),
        patience=DownloadPatience(first_byte=0.8, stalled=0.8, pause=0.01, longest_pause=0.1),
        parting=ParallelPolicy(over=SIZE, long=0.1, part=SIZE // 4, connections=parts, measure=0.2),
    )
    pool = pool_of(hub, make_remote, connections)
    coming = [fills.join(CONTEXT, digest, pool, REDIS, 2.0)[0] for digest in digests]
    ends = await asyncio.gather(*(fill.ended() for fill in coming), return_exceptions=True)
    assert {type(one) for one in ends} == {Unavailable}
    assert lent.were >= BLOBS
    await eventually(lambda: len(lent) == 0)  # tasks that end in a moment; no garbage is collected
    # Nor is the body itself, in an error that has kept its frames.
    assert not [one for one in gc.get_objects() if isinstance(one, Body)]
    await fills.close()
    await store.close()


async def test_no_memory_of_a_body_is_kept_whose_reader_leaves(
    hub: Hub, make_remote: MakeRemote, lent: Lent
) -> None:
    digests = misbehave(hub, "falls silent", SIZE)
    pool = pool_of(hub, make_remote)

    async def read(digest: Digest) -> None:
        body = await pool.blob(CONTEXT, REDIS, digest, ByteRange(0))
        try:
            while await body.read():
                pass
        finally:
            await body.close()

    reading = [asyncio.create_task(read(digest)) for digest in digests]
    await eventually(lambda: lent.were >= BLOBS)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    await eventually(lambda: len(lent) == 0)
