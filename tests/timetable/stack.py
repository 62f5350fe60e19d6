"""A cache over a pool of endpoints over wires, and how long a client waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mirror.clock import Clock
from mirror.contracts.context import RequestContext
from mirror.contracts.tags import TagStore
from mirror.events import Events
from mirror.oci.errors import RegistryError
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.queue import FillLimits
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.server.v2.deadlines import in_time, with_deadline
from mirror.server.v2.failures import failure
from mirror.server.v2.target import TargetKind
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import Endpoint
from mirror.upstream.http.transport import Transport
from mirror.upstream.pool.connections import Slots
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool
from mirror.upstream.retries import SOON, Retries

from ..fakes import REDIS, FakeTags, MemoryContent, request_of
from ..jumping import jump
from .wire import LAYER_DIGEST, LIMITS, MANIFEST_DIGEST, TAG, Exchange, Wire, well

CLIENT = request_of("10.0.0.1")


@dataclass(frozen=True)
class Seen:
    """What a client saw: a status, or that its connection was cut, after so many seconds; of a
    blob's rest, the longest silence."""

    what: str
    seconds: float

    def __str__(self) -> str:
        if self.seconds < 0.05:
            return f"{self.what} at once"
        shown = f"{self.seconds:.0f}" if self.seconds >= 9.5 else f"{self.seconds:.1f}"
        return f"{self.what} after {shown.removesuffix('.0')} s"


@dataclass
class Stack:
    cache: PullThrough
    shared: Shared
    fills: Fills
    store: MemoryContent
    wires: Sequence[Wire]
    slots: Sequence[Slots]


@contextlib.asynccontextmanager
async def stack_of(
    endpoints: int,
    tags: TagStore | None = None,
    *,
    connections: int = 32,
    places: int = 128,
    room: int = 1 << 30,
) -> AsyncIterator[Stack]:
    """The endpoints are well, until the test says something else."""
    loop = asyncio.get_running_loop()
    clock, events = Clock(wall=lambda: 1.7e9 + loop.time(), monotonic=loop.time), Events()
    wires, states, slots = [], [], []
    async with contextlib.AsyncExitStack() as closing:
        for number in range(endpoints):
            name = f"hub{number}"
            wires.append(Wire(well))
            slots.append(Slots(name, connections))
            remote = Remote(
                Endpoint(name, f"https://{name}.test", limits=LIMITS),
                cast(Transport, wires[-1]),
                Retries(SOON, clock, draw=lambda: 1.0),
                events,
                clock,
            )
            closing.push_async_callback(remote.close)
            member = Member(name, remote, remote.endpoint.trust, slots=slots[-1], ping=remote.ping)
            states.append(EndpointState(member, clock, events))
            closing.push_async_callback(states[-1].close)
        store = MemoryContent(room)
        fills = Fills(store, events, clock, limits=FillLimits(places, places))
        closing.push_async_callback(fills.close)
        shared = Shared.over(store, tags or FakeTags(), fills, clock=clock)
        cache = PullThrough(Pool(states, clock, events=events), shared)
        closing.push_async_callback(cache.close)
        yield Stack(cache, shared, fills, store, wires, slots)


Look = Callable[[Stack], Awaitable[Seen]]


async def timed(
    kind: TargetKind, ask: Callable[[RequestContext], Awaitable[Any]], *, is_head: bool = False
) -> Seen:
    """What comes of a request of this kind."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    context = with_deadline(CLIENT, kind, is_head=is_head)
    try:
        answer = await in_time(context, ask(context))
    except RegistryError as error:
        return Seen(str(failure(error, kind, "docker/28.5", "").status), loop.time() - began)
    if hasattr(answer, "close"):
        answer.close()
    return Seen("200", loop.time() - began)


async def tag(stack: Stack) -> Seen:
    return await timed(TargetKind.TAG, lambda context: stack.cache.resolve(context, REDIS, TAG))


async def manifest(stack: Stack) -> Seen:
    return await timed(
        TargetKind.MANIFEST,
        lambda context: stack.cache.manifest(context, REDIS, MANIFEST_DIGEST),
    )


async def first_byte(stack: Stack) -> Seen:
    return await timed(
        TargetKind.BLOB, lambda context: stack.cache.blob(context, REDIS, LAYER_DIGEST)
    )


async def rest(stack: Stack) -> Seen:
    """Reads a blob to its end; the longest silence in it, or when it is cut."""
    loop, longest, offset = asyncio.get_running_loop(), 0.0, 0
    content = await stack.cache.blob(CLIENT, REDIS, LAYER_DIGEST)
    began = moved_at = loop.time()
    try:
        while (limit := await content.readable(offset)) > offset:
            longest, offset, moved_at = max(longest, loop.time() - moved_at), limit, loop.time()
    except RegistryError:
        return Seen("cut", loop.time() - began)
    finally:
        content.close()
    return Seen("the rest", longest)


def promises(stack: Stack) -> None:
    """As if a client had the tag, and its manifest."""
    stack.shared.served.name(REDIS.registry, MANIFEST_DIGEST, LAYER_DIGEST)


def seen(look: Look, *troubles: Exchange, promised: bool = False, known: bool = False) -> Seen:
    """What a client sees of endpoints with these troubles. `known`: the tag was answered before,
    and its TTL is over."""

    async def scenario() -> Seen:
        async with stack_of(len(troubles)) as stack:
            if known:
                await stack.cache.resolve(CLIENT, REDIS, TAG)
                await asyncio.sleep(301)
            if promised:
                promises(stack)
            for wire, trouble in zip(stack.wires, troubles, strict=True):
                wire.exchange = trouble
            return await look(stack)

    return jump(scenario())
