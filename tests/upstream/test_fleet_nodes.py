"""Which nodes there are, whoever names them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from typing import cast

from aiohttp.abc import ResolveResult

from mirror.contracts.events import FleetNodesCounted
from mirror.contracts.fleet import mark_of
from mirror.upstream.http.resolver import Resolver
from mirror.upstream.peers.nodes import MOST, FleetNodes, by_dns, listed

from ..fakes import Recorder
from ..waiting import eventually

A, B, C = (f"http://10.0.0.{n}:5003" for n in (1, 2, 3))


class Naming:
    """Names these, or fails."""

    def __init__(self, *urls: str) -> None:
        self.urls: Collection[str] = urls
        self.fails = False
        self.looks = 0

    async def __call__(self) -> Collection[str]:
        self.looks += 1
        if self.fails:
            raise OSError("no answer in time")
        return self.urls


async def test_its_own_is_known_before_anybody_says() -> None:
    nodes = FleetNodes(A, listed([B]), Recorder())
    assert nodes.knows(A)
    assert not nodes.knows(B)
    await nodes.look()
    assert set(nodes.all) == {A, B}
    assert nodes.url_of(mark_of(B)) == B
    assert nodes.url_of(mark_of(C)) is None


async def test_who_was_named_last_is_known_while_nobody_can_say() -> None:
    naming, told = Naming(B, C), Recorder()
    nodes = FleetNodes(A, naming, told)
    await nodes.look()
    naming.fails = True
    await nodes.look()
    assert set(nodes.all) == {A, B, C}
    naming.fails, naming.urls = False, [B]
    await nodes.look()
    assert set(nodes.all) == {A, B}
    assert not nodes.knows(C)
    assert [one.known for one in told.of(FleetNodesCounted)] == [1, 3, 2]


async def test_naming_is_read_again_and_again() -> None:
    naming = Naming(B)
    nodes = FleetNodes(A, naming, Recorder(), every=0.01)
    task = asyncio.create_task(nodes.run())
    await eventually(lambda: naming.looks > 3)
    naming.fails = True
    await eventually(lambda: naming.looks > 6)
    naming.fails, naming.urls = False, [C]
    await eventually(lambda: nodes.knows(C))
    task.cancel()


async def test_a_node_that_has_just_started_and_is_told_nothing_asks_again_soon() -> None:
    naming = Naming(B)
    naming.fails = True
    nodes = FleetNodes(A, naming, Recorder(), every=3600)
    task = asyncio.create_task(nodes.run())
    await eventually(lambda: naming.looks)
    naming.fails = False
    await eventually(lambda: nodes.knows(B))
    task.cancel()


async def test_one_that_is_not_known_is_looked_for_soon() -> None:
    naming, loop = Naming(B), asyncio.get_running_loop()
    nodes = FleetNodes(A, naming, Recorder(), every=100.0)
    quick = FleetNodes(A, naming, Recorder(), every=6.0)
    tasks = [asyncio.create_task(each.run()) for each in (nodes, quick)]
    await eventually(lambda: naming.looks == 2)
    naming.urls, began = [B, C], loop.time()
    assert not quick.knows(C)
    assert not nodes.knows(C)  # whose turn to look once more is after 20 s
    await eventually(lambda: C in quick.all)
    assert 1.0 < loop.time() - began < 5.5
    assert C not in nodes.all
    for task in tasks:
        task.cancel()


async def test_no_more_are_known_than_a_process_bears() -> None:
    nodes = FleetNodes(A, listed([f"http://h{n}:1" for n in range(MOST + 10)]), Recorder())
    await nodes.look()
    assert len(nodes.all) == MOST
    assert nodes.knows(A)


async def test_by_dns_each_address_is_a_node() -> None:
    class Names:
        async def resolve(
            self, host: str, port: int, family: socket.AddressFamily
        ) -> list[ResolveResult]:
            assert (host, family) == ("peers.svc", socket.AF_UNSPEC)
            addresses = ("10.0.0.1", "2001:db8:0:0::7", "fe80::1%eth0", "10.0.0.1")
            return [cast(ResolveResult, {"host": each, "port": port}) for each in addresses]

    found = by_dns("https", "peers.svc", 5003, cast(Resolver, Names()))
    assert set(await found()) == {
        "https://10.0.0.1:5003",
        "https://[2001:db8::7]:5003",
        "https://[fe80::1]:5003",
    }


async def test_a_real_name_is_resolved() -> None:
    resolver = Resolver(5.0)
    assert "http://127.0.0.1:5003" in await by_dns("http", "localhost", 5003, resolver)()
    await resolver.close()
