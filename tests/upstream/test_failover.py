"""A blob that begins at one endpoint and goes on at another: the pool under a real fill."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.asking.retry_policy import RetryPolicy
from mirror.clock import Clock
from mirror.contracts.registry import FileContent, Outcome
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.upstream.endpoint import Trust
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool

from ..fakes import CONTEXT
from ..fakes.hub import Fault, Hub, cut, status
from .conftest import QUICK, REDIS, Counts, MakeRemote

DATA = random.Random(12).randbytes(6 << 20)
DIGEST = Digest.of(DATA)


@pytest.fixture
async def hubs() -> AsyncIterator[list[Hub]]:
    async with Hub() as near, Hub() as far, Hub() as hub:
        these = [near, far, hub]
        for one in these:
            one.challenge = "none"
            one.redirects = False
            one.add_blob(DATA)
        yield these


@pytest.fixture
async def fills(tmp_path: Path, counts: Counts) -> AsyncIterator[Fills]:
    store = DiskContent(tmp_path / "store", Bounds(1 << 30), sync=False, events=Events())
    fills = Fills(store, counts, patience=DownloadPatience(pause=0.01))
    yield fills
    await fills.close()
    await store.close()


@pytest.fixture
def pool(hubs: list[Hub], make_remote: MakeRemote, counts: Counts) -> Pool:
    trusts = (Trust.CONTENT, Trust.CONTENT, Trust.TAGS)
    names = ("near", "far", "hub")
    members = [
        Member(name, make_remote(hub.url, name=name, policy=RetryPolicy(tries=1)), trust)
        for name, hub, trust in zip(names, hubs, trusts, strict=True)
    ]
    clock = Clock()
    return Pool([EndpointState(one, clock, counts) for one in members], clock, events=counts)


async def taken(fills: Fills, pool: Pool) -> bytes:
    """The blob as a client reads it while it comes."""
    fill, outcome = fills.join(CONTEXT, DIGEST, pool, REDIS, 30)
    assert outcome is Outcome.FILLED
    reader: FileContent = fill.reader(outcome, REDIS)
    data = b""
    try:
        while (readable := await reader.readable(len(data))) > len(data):
            data += reader.pread(readable - len(data), len(data))
    finally:
        reader.close()
    return data


def ranges(hub: Hub) -> list[str | None]:
    return [seen.headers.get("Range") for seen in hub.seen("registry", "GET")]


async def test_f02_the_next_endpoint_goes_on_from_the_very_byte(
    hubs: list[Hub], pool: Pool, fills: Fills
) -> None:
    near, far, hub = hubs
    near.fail("registry", cut(DATA[:2_000_003], announced=len(DATA)))
    assert await taken(fills, pool) == DATA
    assert ranges(near) == [None]
    assert ranges(far) == ["bytes=2000003-"]
    assert ranges(hub) == []


async def test_f02_and_the_one_after_when_that_breaks_too(
    hubs: list[Hub], pool: Pool, fills: Fills
) -> None:
    near, far, hub = hubs
    near.fail("registry", cut(DATA[:1_500_000], announced=len(DATA)))
    far.fail("registry", partly(1_500_000, 3_000_001))
    assert await taken(fills, pool) == DATA
    assert (ranges(near), ranges(far)) == ([None], ["bytes=1500000-"])
    assert ranges(hub) == ["bytes=3000001-"]


@pytest.mark.parametrize("fault", [status(503), status(404), status(429), cut()])
async def test_f57_an_endpoint_that_has_nothing_to_go_on_with_is_passed_over(
    hubs: list[Hub], pool: Pool, fills: Fills, fault: Fault
) -> None:
    near, far, hub = hubs
    near.fail("registry", cut(DATA[:1_500_000], announced=len(DATA)))
    far.fail("registry", fault, times=99)
    assert await taken(fills, pool) == DATA
    assert ranges(hub) == ["bytes=1500000-"]


async def test_a_connection_given_up_midway_is_given_back(
    hubs: list[Hub], make_remote: MakeRemote, counts: Counts
) -> None:
    """With one connection each, a leaked one would leave nobody to ask."""
    limits = replace(QUICK, connections=1)
    members = [
        Member(str(number), make_remote(hub.url, limits=limits), Trust.TAGS, connections=1)
        for number, hub in enumerate(hubs)
    ]
    clock = Clock()
    pool = Pool([EndpointState(one, clock, counts) for one in members], clock, events=counts)
    for _ in range(5):
        stream = await pool.blob(CONTEXT, REDIS, DIGEST)
        assert await stream.read()
        await stream.close()
    stream = await pool.blob(CONTEXT, REDIS, DIGEST)
    data = b""
    while piece := await stream.read():
        data += piece
    await stream.close()
    assert data == DATA


def partly(start: int, stop: int) -> Fault:
    """Answers the range from `start`, and is cut at `stop`."""
    headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"}
    return cut(DATA[start:stop], announced=len(DATA) - start, code=206, headers=headers)
