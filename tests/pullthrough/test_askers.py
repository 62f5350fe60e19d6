"""In whose name an upstream is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from mirror.contracts.context import AHEAD, RequestContext
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.prefetch import Prefetcher
from mirror.pullthrough.shared import Shared

from ..fakes import FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of, request_of
from ..waiting import eventually
from .test_fills import BIG, REDIS, read_all

A, B = request_of("a"), request_of("b")
LAYERS = [bytes([number]) * 1000 for number in range(4)]
ASKS: dict[str, Callable[[PullThrough, RequestContext], object]] = {
    "resolve": lambda cache, context: cache.resolve(context, REDIS, "7"),
    "manifest": lambda cache, context: cache.manifest(context, REDIS, Digest.of(manifest_of())),
    "stat": lambda cache, context: cache.stat(context, REDIS, Digest.of(BIG)),
    "referrers": lambda cache, context: cache.referrers(context, REDIS, Digest.of(BIG)),
    "tags": lambda cache, context: cache.tags(context, REDIS),
}


@pytest.mark.parametrize("method", ASKS)
async def test_an_upstream_is_asked_in_the_name_of_the_request(
    cache: PullThrough, upstream: FakeUpstream, method: str
) -> None:
    upstream.push("7", manifest_of(), BIG)
    upstream.lists[Digest.of(BIG)] = b'{"schemaVersion": 2, "manifests": []}'
    await ASKS[method](cache, A)  # type: ignore[misc]
    assert (method, "a") in upstream.clients
    assert {client for _, client in upstream.clients} == {"a"}


async def test_an_ask_that_many_join_goes_on_in_the_name_of_whoever_began_it(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    upstream.push("7", manifest_of(), BIG)
    upstream.gate.clear()
    first = asyncio.create_task(cache.resolve(A, REDIS, "7"))
    await eventually(lambda: upstream.asked["resolve"] == 1)
    second = asyncio.create_task(cache.resolve(B, REDIS, "7"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    upstream.gate.set()
    await second
    assert upstream.clients == [("resolve", "a"), ("manifest", "a")]


async def test_who_has_joined_a_silent_ask_asks_beside_it_in_its_own_name(
    upstream: FakeUpstream, store: MemoryContent, fills: Fills
) -> None:
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), fills))
    joined = set(ASKS) - {"tags"}  # of which each is asked for on its own
    upstream.push("7", manifest_of(), BIG)
    upstream.lists[Digest.of(BIG)] = b'{"schemaVersion": 2, "manifests": []}'
    upstream.gate.clear()
    first = [asyncio.ensure_future(ASKS[method](cache, A)) for method in joined]
    await eventually(lambda: set(upstream.clients) == {(method, "a") for method in joined})
    second = [asyncio.ensure_future(ASKS[method](cache, B)) for method in joined]
    await eventually(lambda: {(method, "b") for method in joined} <= set(upstream.clients))
    upstream.gate.set()
    await asyncio.gather(*first, *second)
    await cache.close()


async def test_a_fill_asks_for_whoever_reads_it_by_now(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    """Its first client has left: another one's share is taken from then on."""
    upstream.blobs[Digest.of(BIG)] = BIG
    upstream.gate.clear()
    first = asyncio.create_task(cache.blob(A, REDIS, Digest.of(BIG)))
    await eventually(lambda: upstream.asked["blob"] == 1)
    asker = upstream.asker
    assert asker is not None
    assert (asker.client, asker.is_wanted) == ("a", True)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not asker.is_wanted
    second = asyncio.create_task(cache.blob(B, REDIS, Digest.of(BIG)))
    await eventually(lambda: asker.is_wanted)
    assert asker.client == "b"
    upstream.gate.set()
    assert await read_all(await second) == BIG


async def test_what_is_fetched_ahead_is_in_no_client_s_name(
    upstream: FakeUpstream, store: MemoryContent
) -> None:
    """Though a client's request has set it off."""
    manifest = manifest_of(*LAYERS)
    upstream.push("7", manifest, *LAYERS)
    fills = Fills(store, Events())
    shared = Shared.over(store, FakeTags(), fills)
    cache = PullThrough(upstream, shared, prefetcher=Prefetcher(upstream, shared))
    await cache.manifest(A, REDIS, Digest.of(manifest))
    assert await read_all(await cache.blob(A, REDIS, Digest.of(LAYERS[1]))) == LAYERS[1]
    await eventually(lambda: upstream.asked["blob"] >= len(LAYERS) - 1)
    clients = [client for what, client in upstream.clients if what == "blob"]
    assert sorted(clients) == sorted(["a", *[AHEAD.client] * (len(LAYERS) - 2)])
    await cache.close()
    await fills.close()


async def test_what_a_request_sets_off_is_logged_with_its_id(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.push("7", manifest_of())
    await cache.resolve(A, REDIS, "7")
    wall.now += 301
    upstream.down = Unavailable("down")
    with capture_logs() as logs:
        await cache.resolve(RequestContext("the-second", "b"), REDIS, "7")
    [line] = [line for line in logs if line["event"] == "answered_stale"]
    assert line["request_id"] == "the-second"
