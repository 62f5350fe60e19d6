"""What one node of a fleet was shown counts for all of them, and nobody else's word does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from mirror.clock import Clock
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.storage.among_nodes.exchange import Exchange
from mirror.storage.among_nodes.links import FleetLinks
from mirror.storage.records.links import LinkRecords

from ...fakes import HandClock
from ...redis_server import RedisServer
from ...waiting import eventually
from .conftest import Node

SECRET, OTHER = Repository("corp", "team/secret"), Repository("corp", "team/other")
LAYER, LAYER2 = Digest.of(b"layer"), Digest.of(b"layer 2")
KEYS = "registry-mirror:1:link:*"

Links = Callable[..., FleetLinks]


@pytest.fixture
async def links(node: Node, tmp_path: Path) -> AsyncIterator[Links]:
    made: list[FleetLinks] = []

    def make(
        secret: bytes = b"of the fleet",
        exchange: Exchange | None = None,
        clock: Clock | None = None,
    ) -> FleetLinks:
        own = LinkRecords(tmp_path / f"links{len(made)}.db", Clock())
        made.append(FleetLinks(own, exchange or node(), secret, clock or Clock()))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def eventually_seen(links: FleetLinks, digest: Digest = LAYER) -> float:
    return await eventually(lambda: links.seen_elsewhere(SECRET, digest)) or 0.0


async def test_what_one_was_shown_all_have_seen(links: Links) -> None:
    wall = HandClock(1_000_000.0)
    one, other = links(clock=Clock(wall=wall)), links()
    await one.add(SECRET, [LAYER])
    assert await eventually_seen(other) == 1_000_000.0
    assert await other.seen(SECRET, LAYER) is None  # it stays the other's word
    assert await other.seen_elsewhere(OTHER, LAYER) is None
    assert await other.seen_elsewhere(SECRET, LAYER2) is None


async def test_f46_whoever_has_another_secret_opens_nothing(links: Links, raw: Redis) -> None:
    forger, other = links(b"of somebody else"), links()
    await forger.add(SECRET, [LAYER])
    await eventually_seen(forger)
    assert await other.seen_elsewhere(SECRET, LAYER) is None
    # Where he takes the place of a link that is good:
    (forged,) = await raw.keys(KEYS)
    await other.add(SECRET, [LAYER])
    await eventually_seen(other)
    (name,) = set(await raw.keys(KEYS)) - {forged}
    await raw.set(name, await raw.get(forged))
    assert await other.seen_elsewhere(SECRET, LAYER) is None


async def test_a_link_opens_nothing_but_its_own_digest_for_its_time(
    links: Links, raw: Redis
) -> None:
    node = links()
    await node.add(SECRET, [LAYER])
    await eventually_seen(node)
    (first,) = await raw.keys(KEYS)
    await node.add(SECRET, [LAYER2])
    await eventually_seen(node, LAYER2)
    (second,) = set(await raw.keys(KEYS)) - {first}
    good = await raw.get(first)
    await raw.set(second, good)
    assert await node.seen_elsewhere(SECRET, LAYER2) is None
    for wrong in (good[:-1], good + b"x", b"", bytes([good[0] ^ 1]) + good[1:], b"\xff" * 24):
        await raw.set(first, wrong)
        assert await node.seen_elsewhere(SECRET, LAYER) is None
    await raw.delete(first)
    await raw.lpush(first, "x")
    assert await node.seen_elsewhere(SECRET, LAYER) is None
    await raw.delete(first)
    await raw.set(first, good)
    assert await node.seen_elsewhere(SECRET, LAYER) is not None


async def test_it_is_kept_for_days_and_tells_no_names(links: Links, raw: Redis) -> None:
    node = links()
    await node.add(SECRET, [LAYER])
    await eventually_seen(node)
    (name,) = await raw.keys(KEYS)
    assert 15 * 86400 < await raw.ttl(name) <= 16 * 86400
    assert b"secret" not in name
    assert LAYER.hex.encode() not in name


async def test_what_is_purged_is_gone_for_those_who_have_not_seen_it(links: Links) -> None:
    one, other = links(), links()
    await one.add(SECRET, [LAYER])
    await eventually_seen(other)
    await one.remove(SECRET, [LAYER])

    async def is_gone() -> bool:
        return await other.seen_elsewhere(SECRET, LAYER) is None

    await eventually(is_gone)
    assert await one.seen(SECRET, LAYER) is None


async def test_without_redis_each_goes_by_its_own(links: Links, node: Node, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "other") as server:
        exchange = node(server.url)
        one = links(exchange=exchange)
        await one.add(SECRET, [LAYER])
        assert await one.seen(SECRET, LAYER) is not None
        assert await one.seen_elsewhere(SECRET, LAYER) is None
        server.start()
        await eventually_seen(one)  # what was noted meanwhile is there
        server.pause()
        try:
            quick = links(exchange=node(server.url, limit=0.1))
            assert await quick.seen_elsewhere(SECRET, LAYER) is None
            assert await quick.seen(SECRET, LAYER) is None
        finally:
            server.resume()
        await eventually_seen(one)
