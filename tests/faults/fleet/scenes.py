"""What happens to a fleet while all its nodes' clients pull one cold blob, and what they see of it.

A scene harms something as soon as a part of the blob has come, and mends it when the clients of the
nodes that were not harmed have what they asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from ...e2e.programs import run
from ...waiting import eventually
from ..disk.mounts import fill_up, given_back
from .lines import Line
from .nodes import Fleet, Node
from .pulls import Pull, pull

_NUMBERS = itertools.count()
AFTER = 0.5  # which part of the blob has come when it happens


@dataclass
class Going:
    """A pull of one blob by everybody. `harmed`: nodes whose own clients are not counted."""

    fleet: Fleet
    digest: str
    holder: Node
    harmed: set[str] = field(default_factory=set)

    def harm(self, node: Node) -> Node:
        self.harmed.add(node.url)
        return node

    @property
    def follower(self) -> Node:
        return next(node for node in self.fleet.nodes if node is not self.holder)


Scene = Callable[[Going], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def nothing(going: Going) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def holder_killed(going: Going) -> AsyncIterator[None]:
    node = going.harm(going.holder)
    node.kill()
    yield
    await node.start()


@contextlib.asynccontextmanager
async def holder_frozen(going: Going) -> AsyncIterator[None]:
    node = going.harm(going.holder)
    node.freeze()
    try:
        yield
    finally:
        node.thaw()


@contextlib.asynccontextmanager
async def follower_killed(going: Going) -> AsyncIterator[None]:
    node = going.harm(going.follower)
    node.kill()
    yield
    await node.start()


@contextlib.asynccontextmanager
async def two_killed(going: Going) -> AsyncIterator[None]:
    """The holder, and whoever goes on in its place."""
    asked = going.fleet.origin.asked_by[going.digest]
    first = going.harm(going.holder)
    before = len(asked)
    first.kill()
    number = going.fleet.nodes.index(first)
    await eventually(lambda: set(asked[before:]) - {number}, 30)
    second = going.harm(going.fleet.nodes[(set(asked[before:]) - {number}).pop()])
    second.kill()
    yield
    await asyncio.gather(first.start(), second.start())


@contextlib.asynccontextmanager
async def redis_frozen(going: Going) -> AsyncIterator[None]:
    going.fleet.redis.pause()
    try:
        yield
    finally:
        going.fleet.redis.resume()


@contextlib.asynccontextmanager
async def redis_killed(going: Going) -> AsyncIterator[None]:
    going.fleet.redis.kill()
    yield
    going.fleet.redis.start()


@contextlib.asynccontextmanager
async def far_frozen(going: Going) -> AsyncIterator[None]:
    assert going.fleet.far is not None
    going.fleet.far.pause()
    try:
        yield
    finally:
        going.fleet.far.resume()


@contextlib.asynccontextmanager
async def far_killed(going: Going) -> AsyncIterator[None]:
    assert going.fleet.far is not None
    going.fleet.far.kill()
    yield
    await asyncio.to_thread(going.fleet.far.start)


@contextlib.asynccontextmanager
async def holder_unreachable(going: Going) -> AsyncIterator[None]:
    """To the other nodes alone: its own clients are served."""
    going.holder.peers.silence()
    yield
    going.holder.peers.mend()


@contextlib.asynccontextmanager
async def holder_without_redis(going: Going) -> AsyncIterator[None]:
    going.holder.redis.silence()
    yield
    going.holder.redis.mend()


@contextlib.asynccontextmanager
async def holder_without_far(going: Going) -> AsyncIterator[None]:
    going.holder.far.silence()
    yield
    going.holder.far.mend()


@contextlib.asynccontextmanager
async def holder_alone(going: Going) -> AsyncIterator[None]:
    """It has its clients and the registry, and nothing else."""
    lines = (going.holder.peers, going.holder.redis, going.holder.far)
    for line in lines:
        line.silence()
    yield
    for line in lines:
        line.mend()


@contextlib.asynccontextmanager
async def master_killed(going: Going) -> AsyncIterator[None]:
    guarded = going.fleet.guarded
    assert guarded is not None
    old = await asyncio.to_thread(guarded.master)
    old.kill()
    yield
    await asyncio.to_thread(guarded.fails_over_from, old)


@contextlib.asynccontextmanager
async def holder_full(going: Going) -> AsyncIterator[None]:
    with given_back(fill_up(going.holder.storage)):
        yield


@contextlib.asynccontextmanager
async def follower_full(going: Going) -> AsyncIterator[None]:
    with given_back(fill_up(going.follower.storage)):
        yield


@contextlib.asynccontextmanager
async def all_full(going: Going) -> AsyncIterator[None]:
    with contextlib.ExitStack() as stack:
        for node in going.fleet.nodes:
            stack.enter_context(given_back(fill_up(node.storage)))
        yield


@contextlib.asynccontextmanager
async def _dropped(*lines: Line) -> AsyncIterator[None]:
    """The kernel drops each packet to and from these; nobody is told. In a network of one's own:
    see `__main__`."""
    for line in lines:
        _rule("-I", line)
    yield
    for line in lines:
        _rule("-D", line)


def _rule(what: str, line: Line) -> None:
    for side in ("-s", "-d"):
        run("iptables", what, "INPUT", side, line.host, "-j", "DROP")


def holder_dropped(going: Going) -> AbstractAsyncContextManager[None]:
    return _dropped(going.holder.peers)


def redis_dropped(going: Going) -> AbstractAsyncContextManager[None]:
    return _dropped(*(node.redis for node in going.fleet.nodes))


def far_dropped(going: Going) -> AbstractAsyncContextManager[None]:
    return _dropped(*(node.far for node in going.fleet.nodes))


def all_dropped(going: Going) -> AbstractAsyncContextManager[None]:
    holder = going.holder
    return _dropped(holder.peers, holder.redis, holder.far)


WITH_IPTABLES: dict[str, Scene] = {
    "iptables: holder from nodes": holder_dropped,
    "iptables: all from Redis": redis_dropped,
    "iptables: all from S3": far_dropped,
    "iptables: holder from all three": all_dropped,
}
WITH_DISKS: dict[str, Scene] = {
    "holder's disk full": holder_full,
    "follower's disk full": follower_full,
    "all disks full": all_full,
}
WITH_SENTINELS: dict[str, Scene] = {"Redis: fail-over": master_killed}
SCENES: dict[str, Scene] = {
    "nothing": nothing,
    "holder: kill -9": holder_killed,
    "holder: SIGSTOP": holder_frozen,
    "follower: kill -9": follower_killed,
    "two holders in turn: kill -9": two_killed,
    "Redis: SIGSTOP": redis_frozen,
    "Redis: kill -9": redis_killed,
    "S3: SIGSTOP": far_frozen,
    "S3: kill -9": far_killed,
    "holder cut off from nodes": holder_unreachable,
    "holder cut off from Redis": holder_without_redis,
    "holder cut off from S3": holder_without_far,
    "holder cut off from all three": holder_alone,
}


@dataclass(frozen=True)
class Seen:
    """`others`: pulls of the nodes' clients that were not harmed, and all of the front's."""

    others: Sequence[Pull]
    harmed: Sequence[Pull]
    requests: int
    sent: float
    """How many times the blob's bytes went out upstream."""

    @property
    def failed(self) -> list[Pull]:
        return [each for each in self.others if not each.whole]

    @property
    def wrong(self) -> list[Pull]:
        return [each for each in (*self.others, *self.harmed) if each.wrong]

    @property
    def gap(self) -> float:
        """The longest that one of the others waited for a byte, the first one included."""
        return max(max(each.gap, each.first) for each in self.others)


async def seen(
    fleet: Fleet, scene: Scene, size: int, *, clients: int = 2, by_front: int = 2
) -> Seen:
    """All is whole again when it returns."""
    number = next(_NUMBERS)
    digest = fleet.origin.blob(size, f"{number}", f"v{number}")
    await fleet.everywhere(f"v{number}")

    pulls = {
        asyncio.create_task(pull(node.url, digest)): node.url
        for node in fleet.nodes
        for _ in range(clients)
    }
    pulls |= {asyncio.create_task(pull(fleet.front.url, digest)): "" for _ in range(by_front)}
    going = Going(fleet, digest, await fleet.holder(digest, int(size * AFTER)))
    async with scene(going):
        others = [task for task, url in pulls.items() if url not in going.harmed]
        await asyncio.gather(*others)
    await asyncio.gather(*pulls)
    await fleet.at_rest()
    return Seen(
        [task.result() for task in others],
        [task.result() for task in pulls if task not in others],
        fleet.origin.requests_of[digest],
        fleet.origin.sent(digest),
    )
