"""The peer port of a real mirror: any of its workers answers, and what becomes of those who read
when it is frozen or killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.fleet import Elsewhere, Wanted
from mirror.contracts.second_tier import SecondTierFault
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.ranges import ByteRange
from mirror.peering import Proof
from mirror.upstream.http.resolver import Resolver
from mirror.upstream.peers.client import HttpPeers
from mirror.upstream.peers.nodes import FleetNodes, listed
from mirror.upstream.peers.stream import PeerStream

from ..waiting import eventually
from .fleet.nodes import Fleet, Node

MIB = 1 << 20


@asynccontextmanager
async def asking(fleet: Fleet, node: Node, own: str) -> AsyncIterator[HttpPeers]:
    """As another node of this fleet, by connections of its own."""
    secret = (fleet.folder / "secret").read_text().removesuffix("\n").encode()
    nodes = FleetNodes(own, listed([url_of(node), *(other(n) for n in range(20))]), Events())
    await nodes.look()
    resolver = Resolver(5.0)
    peers = HttpPeers(nodes, Proof(secret, own, time.time), Events(), Clock(), resolver)
    yield peers
    await peers.close()
    await resolver.close()


def url_of(node: Node) -> str:
    return f"http://{node.peers.host}:{node.peers.port}"


def other(number: int) -> str:
    return f"http://10.9.9.{number}:5002"


async def drain(stream: PeerStream) -> bytes:
    data = bytearray()
    try:
        while piece := await stream.read():
            data += piece
    finally:
        await stream.close()
    return bytes(data)


async def test_twelve_follow_one_download(tmp_path: Path) -> None:
    """As many as may, from whichever worker; the others are sent to those. One download upstream,
    and every byte right."""
    async with Fleet(tmp_path, count=1, far=False, speed=8e6, workers=2) as fleet:
        [node] = fleet.nodes
        digest = fleet.origin.blob(14 * MIB, "followed")
        data, wanted = fleet.origin.blobs[digest], Wanted("docker.io", Digest.parse(digest))
        await fleet.everywhere(digest[7:19])
        pull = asyncio.create_task(fleet.pulls(digest))
        await eventually(lambda: fleet.origin.bytes_of[digest] > 2 * MIB, 30)
        told: list[Elsewhere | None] = []

        async def follow(number: int) -> bytes | None:
            start = 1000 * (number % 3)
            part = ByteRange(start) if start else None
            async with asking(fleet, node, other(number)) as peers:
                found = await peers.content(url_of(node), wanted, part)
                if not isinstance(found, PeerStream):
                    told.append(found)
                    return None
                assert (found.start, found.size) == (start, len(data))
                return data[:start] + await drain(found)

        got = await asyncio.gather(*map(follow, range(12)))
        assert all(each is None or each == data for each in got), node.words()
        assert sum(each is not None for each in got) >= 8
        assert all(isinstance(each, Elsewhere) and len(each.urls) == 8 for each in told)
        [whole] = await pull
        assert whole.whole
        assert fleet.origin.requests_of[digest] == 1

        async with asking(fleet, node, other(0)) as peers:
            for part in (ByteRange(5, 9), ByteRange(12 * MIB), None):
                found = await peers.content(url_of(node), wanted, part)
                assert isinstance(found, PeerStream)
                stop = part.stop if part else None
                assert await drain(found) == data[part.start if part else 0 : stop]


async def test_a_node_that_freezes_or_dies_is_left_within_seconds(tmp_path: Path) -> None:
    async with Fleet(tmp_path, count=1, far=False, speed=4e6) as fleet:
        [node] = fleet.nodes
        digest = fleet.origin.blob(60 * MIB, "left")
        wanted = Wanted("docker.io", Digest.parse(digest))
        await fleet.everywhere(digest[7:19])
        pull = asyncio.create_task(fleet.pulls(digest))
        await eventually(lambda: fleet.origin.bytes_of[digest] > 2 * MIB, 30)

        async def left_after(what: Callable[[], None]) -> float:
            """Seconds."""
            async with asking(fleet, node, other(1)) as peers:
                stream = await peers.content(url_of(node), wanted)
                assert isinstance(stream, PeerStream)
                assert await stream.read()
                what()
                began = time.monotonic()
                with pytest.raises(SecondTierFault):
                    await drain(stream)
                assert await peers.content(url_of(node), wanted) is None
                assert peers.is_away(url_of(node))
                return time.monotonic() - began

        assert await left_after(node.freeze) < 10  # two seconds, on a machine that is not busy
        node.thaw()
        assert await left_after(node.kill) < 10
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
