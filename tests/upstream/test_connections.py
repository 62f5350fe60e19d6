"""Connections to one host: bounded, fairly shared, and given back when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from mirror.contracts.context import AHEAD, Asker
from mirror.contracts.upstream import StreamContent
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository
from mirror.upstream.endpoint import Trust
from mirror.upstream.pool import connections as module
from mirror.upstream.pool.connections import Slots
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool
from mirror.upstream.pool.question import Asked, Question

from ..fakes import CONTEXT, HandClock, request_of
from ..fakes.hub import Hub
from ..waiting import eventually
from .conftest import REDIS, MakeRemote

MIB = 1 << 20


class Host:
    """A registry with large blobs, at a host that bears so few connections."""

    def __init__(
        self, hub: Hub, make_remote: MakeRemote, time: HandClock, connections: int
    ) -> None:
        hub.challenge = "none"
        hub.redirects = False
        self.hub = hub
        self.slots = Slots("hub", connections, patience=5)
        member = Member("hub", make_remote(hub.url), Trust.TAGS, slots=self.slots)
        clock, events = time.clock(), Events()
        self.pool = Pool([EndpointState(member, clock, events)], clock, events=events)
        self.asker: Asker = CONTEXT

    def are(self, client: str) -> None:
        """From now on this client asks."""
        self.asker = request_of(client)

    async def open(self, number: int, start: int = 0) -> StreamContent:
        data = bytes([number]) * (8 * MIB)
        self.hub.add_blob(data)
        part = ByteRange(start) if start else None
        return await self.pool.blob(self.asker, REDIS, Digest.of(data), part)


@pytest.fixture
def host(hub: Hub, make_remote: MakeRemote, time: HandClock) -> Host:
    return Host(hub, make_remote, time, connections=4)  # three of them for blobs


async def rest(stream: StreamContent) -> int:
    """Reads to the end; how many bytes came."""
    came = 0
    try:
        while piece := await stream.read():
            came += len(piece)
    finally:
        await stream.close()
    return came


async def test_who_has_most_gives_one_to_who_has_none(host: Host) -> None:
    host.are("a")
    streams = [await host.open(number) for number in range(3)]
    host.are("b")
    other = await host.open(9)
    assert await rest(other) == 8 * MIB
    with pytest.raises(Unavailable, match="another client"):
        await rest(streams[-1])  # which came last
    for stream in streams[:-1]:
        assert await rest(stream) == 8 * MIB
    assert host.slots.blobs_held == 0


async def test_who_reads_while_it_gives_way_is_told(host: Host) -> None:
    host.are("a")
    streams = []
    for number in range(3):
        stream = await host.open(number)
        await stream.read()
        streams.append(stream)

    reading = asyncio.create_task(rest(streams[-1]))
    await asyncio.sleep(0)
    host.are("b")
    await (await host.open(9)).close()
    with pytest.raises(Unavailable, match="another client"):
        await reading
    for stream in streams:
        await stream.close()


async def test_giving_way_is_no_fault_of_the_endpoint(host: Host) -> None:
    host.are("a")
    streams = [await host.open(number) for number in range(3)]
    for client in ("b", "c"):
        host.are(client)
        streams.append(await host.open(9))
    for stream in streams:
        await asyncio.gather(rest(stream), return_exceptions=True)
    (endpoint,) = host.pool._all
    assert endpoint.is_well(Question(Asked.BLOB, REDIS, "any"))


async def test_what_gave_way_goes_on_where_it_was(host: Host) -> None:
    host.are("a")
    streams = [await host.open(number) for number in range(3)]
    came = len(await streams[-1].read())
    host.are("b")
    other = await host.open(9)
    with pytest.raises(Unavailable):
        await rest(streams[-1])
    await other.close()
    host.are("a")
    assert await rest(await host.open(2, came)) == 8 * MIB - came
    for stream in streams:
        await stream.close()


async def test_a_small_question_is_asked_while_one_client_takes_all_for_blobs(host: Host) -> None:
    host.are("a")
    streams = [await host.open(number) for number in range(3)]
    waiting = asyncio.create_task(host.open(3))
    await asyncio.sleep(0)
    assert host.slots.free(Asked.TAG)
    assert not host.slots.free(Asked.BLOB)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for stream in streams:
        await stream.close()


async def test_one_client_takes_turns_with_itself(host: Host) -> None:
    host.slots._places._quantum = 0.05
    host.are("a")
    streams = [await host.open(number) for number in range(3)]
    late = await host.open(3)
    assert await rest(late) == 8 * MIB
    for stream in streams:
        await stream.close()


ANY = Digest.of(b"any")


@pytest.mark.parametrize(
    ("ask", "asked"),
    [
        (lambda pool, repository: pool.resolve(CONTEXT, repository, "7"), Asked.TAG),
        (lambda pool, repository: pool.tags(CONTEXT, repository), Asked.LIST),
        (lambda pool, repository: pool.stat(CONTEXT, repository, ANY), Asked.STAT),
        (lambda pool, repository: pool.manifest(CONTEXT, repository, ANY), Asked.MANIFEST),
        (lambda pool, repository: pool.blob(CONTEXT, repository, ANY), Asked.BLOB),
    ],
    ids=lambda value: value.value if isinstance(value, Asked) else "",
)
async def test_who_waits_for_an_answer_that_does_not_come_gives_way(
    host: Host, ask: Callable[[Pool, Repository], Awaitable[object]], asked: Asked
) -> None:
    """One client asks for more of it than there are connections; then another one comes."""
    until = asyncio.Event()

    async def mute(request: web.Request) -> None:
        if "/mute/" in request.path:
            await until.wait()

    host.hub.fail("registry", mute, times=1000)
    host.hub.add_image("library/redis", "7")
    host.are("a")
    repositories = [Repository("docker.io", f"mute/{number}") for number in range(8)]
    asking = [asyncio.ensure_future(ask(host.pool, repository)) for repository in repositories]
    await eventually(lambda: not host.slots.free(asked))
    host.are("b")
    async with asyncio.timeout(1):
        await host.pool.resolve(host.asker, REDIS, "7")
        await (await host.open(9)).close()
    until.set()
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_an_answer_that_takes_longer_than_a_turn_comes(host: Host) -> None:
    """Of one client, which asks for more than there are connections."""
    host.slots._places._quantum = 0.02

    async def slow(request: web.Request) -> None:
        await asyncio.sleep(0.3)

    host.hub.fail("registry", slow, times=1000)
    names = [f"slow/{number}" for number in range(8)]
    for name in names:
        host.hub.add_image(name, "7")
    host.are("a")
    async with asyncio.timeout(10):
        await asyncio.gather(
            *(host.pool.resolve(host.asker, Repository("docker.io", name), "7") for name in names)
        )


async def test_clients_that_wait_take_turns() -> None:
    slots = Slots("hub", 1, patience=5)
    order = []

    async def ask(client: str) -> None:
        slot = await slots.take(request_of(client), Asked.TAG)
        order.append(client)
        await asyncio.sleep(0)
        slots.give(slot)

    await asyncio.gather(*(ask(client) for client in ("a", "a", "a", "a", "b", "c")))
    assert order == ["a", "a", "b", "c", "a", "a"]


async def test_what_is_fetched_ahead_gives_way_to_all_and_does_not_wait(host: Host) -> None:
    host.asker = AHEAD
    streams = [await host.open(number) for number in range(3)]
    with pytest.raises(Unavailable, match="in use"):
        await host.open(3)
    host.are("a")
    mine = [await host.open(number) for number in range(4, 7)]
    for stream in mine:
        assert await rest(stream) == 8 * MIB
    for stream in streams:
        await stream.close()


async def test_how_many_of_one_client_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 32)
    slots = Slots("hub", 1, patience=5)
    held = await slots.take(request_of("a"), Asked.TAG)
    waiting = [asyncio.create_task(slots.take(request_of("a"), Asked.TAG)) for _ in range(32)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="in use"):
        await slots.take(request_of("a"), Asked.TAG)
    other = asyncio.create_task(slots.take(request_of("b"), Asked.TAG))
    await asyncio.sleep(0)
    assert not other.done()
    for task in (*waiting, other):
        task.cancel()
    await asyncio.gather(*waiting, other, return_exceptions=True)
    slots.give(held)
