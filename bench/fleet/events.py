"""One image pulled by a few nodes, played event by event: a process for each content of each node.

It holds the reckoning of `region` against the same protocol with what that leaves out: links that
are shared in turns, leases that are renewed and run out, followers that are sent on by chance, and
a holder that is killed. It is for some hundred nodes: each 4 MiB of each of them is an event.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from mirror.times import FLEET

from .inputs import Plan

_SLICE = 4 * 1024 * 1024

Steps = Generator[simpy.Event, Any, None]


@dataclass(slots=True)
class Outcome:
    """`ends`: when each node has all, in the order of the nodes; None of one that was killed.
    `pause`: the longest time between two pieces of a content at a node."""

    ends: list[float | None]
    upstream_bytes: float = 0.0
    upstream_requests: int = 0
    far_bytes: float = 0.0
    peer_bytes: float = 0.0
    redis: int = 0
    pause: float = 0.0


@dataclass(slots=True)
class _Fill:
    """A content as it comes to a node. `readers`: the nodes that read it from here. `came`: happens
    with the next bytes, or when the node is killed."""

    came: simpy.Event
    node: int
    have: float = 0.0
    last: float | None = None  # when bytes came
    readers: dict[int, _Fill] = field(default_factory=dict)


class Wave:
    """`starts`: when each node asks for all contents, of these `sizes`. `kill`: when the node that
    fetches the first content is killed."""

    def __init__(
        self, plan: Plan, sizes: Sequence[float], starts: Sequence[float], kill: float | None = None
    ) -> None:
        self._plan = plan
        self._sizes = sizes
        self._env = simpy.Environment()
        self._chance = random.Random(plan.seed)
        self._into = [simpy.Resource(self._env) for _ in starts]
        self._out = [simpy.Resource(self._env) for _ in starts]
        self._way_out = simpy.Resource(self._env)
        self._fills: dict[tuple[int, int], _Fill] = {}
        self._leases: dict[int, tuple[int, float]] = {}  # content: holder, until when
        self._far: set[int] = set()
        self._dead: set[int] = set()
        self.outcome = Outcome([None] * len(starts))
        pulling = [self._env.process(self._pull(node, start)) for node, start in enumerate(starts)]
        if kill is not None:
            self._env.process(self._killing(kill))
        self._env.run(self._env.all_of(pulling))

    def _pull(self, node: int, start: float) -> Steps:
        yield self._env.timeout(start)
        coming = [
            self._env.process(self._content(node, number)) for number in range(len(self._sizes))
        ]
        yield self._env.all_of(coming)
        if node not in self._dead:
            self.outcome.ends[node] = self._env.now

    def _killing(self, at: float) -> Steps:
        yield self._env.timeout(at)
        node, _ = self._leases[0]
        self._dead.add(node)
        for (of, _), fill in self._fills.items():
            if of == node:
                fill.came.succeed()

    def _content(self, node: int, number: int) -> Steps:
        fill = self._fills[node, number] = _Fill(self._env.event(), node)
        while fill.have < self._sizes[number] and node not in self._dead:
            if self._plan.far:
                yield self._env.timeout(self._plan.speeds.s3_latency)
            if number in self._far:
                yield from self._read_far(fill, number)
            elif self._plan.peers:
                yield from self._fetch(fill, number)
            else:
                yield from self._read_upstream(fill, number)

    def _fetch(self, fill: _Fill, number: int) -> Steps:
        self.outcome.redis += 1
        yield self._env.timeout(self._plan.speeds.redis_latency)
        holder, until = self._leases.get(number, (fill.node, 0.0))
        if until <= self._env.now:
            self._leases[number] = (fill.node, self._env.now + FLEET.lease)
            self._env.process(self._renewing(fill, number))
            yield from self._read_upstream(fill, number)
        elif holder == fill.node or (source := self._source(fill, number, holder)) is None:
            yield self._env.timeout(0.1)
        else:
            yield from self._read_peer(fill, number, source)

    def _renewing(self, fill: _Fill, number: int) -> Steps:
        while fill.node not in self._dead and number not in self._far:
            if fill.have >= self._sizes[number] and not self._plan.far:
                break
            yield self._env.timeout(self._plan.protocol.renew)
            if fill.node not in self._dead:
                self.outcome.redis += 1
                self._leases[number] = (fill.node, self._env.now + FLEET.lease)
        if fill.node not in self._dead:
            self.outcome.redis += 1
            self._leases[number] = (fill.node, self._env.now + FLEET.here)

    def _source(self, fill: _Fill, number: int, holder: int) -> _Fill | None:
        """Who gives it: the holder, or one that reads from it and has as much, as it says. Whoever
        is dead sends nobody on."""
        source = self._fills.get((holder, number))
        while (
            source
            and source.node not in self._dead
            and len(source.readers) >= self._plan.protocol.followers
        ):
            ahead = [each for each in source.readers.values() if each.have >= fill.have]
            source = self._chance.choice(ahead) if ahead else None
        return None if source is None or source.node in self._dead else source

    def _read_peer(self, fill: _Fill, number: int, source: _Fill) -> Steps:
        source.readers[fill.node] = fill
        yield self._env.timeout(self._plan.speeds.peer_latency)
        while fill.have < self._sizes[number] and fill.node not in self._dead:
            began = self._env.now
            while source.have <= fill.have and source.node not in self._dead:
                yield source.came | self._env.timeout(FLEET.silent)
                if self._env.now - began >= FLEET.silent:
                    break
            if source.have <= fill.have or source.node in self._dead:
                break
            count = min(_SLICE, source.have - fill.have)
            yield from self._through(self._out[source.node], count / self._plan.speeds.nic)
            yield from self._arrive(fill, count, 0.0)
            self.outcome.peer_bytes += count
        source.readers.pop(fill.node, None)

    def _read_upstream(self, fill: _Fill, number: int) -> Steps:
        speeds, size = self._plan.speeds, self._sizes[number]
        self.outcome.upstream_requests += 1
        yield self._env.timeout(speeds.upstream_latency)
        while fill.have < size and fill.node not in self._dead:
            count = min(_SLICE, size - fill.have)
            yield from self._through(self._way_out, count / speeds.upstream_all)
            yield from self._arrive(fill, count, count / speeds.upstream)
            self.outcome.upstream_bytes += count
        if self._plan.far and fill.node not in self._dead:
            self._env.process(self._putting(number))

    def _read_far(self, fill: _Fill, number: int) -> Steps:
        size = self._sizes[number]
        while fill.have < size and fill.node not in self._dead:
            count = min(_SLICE, size - fill.have)
            yield from self._arrive(fill, count, count / self._plan.speeds.s3)
            self.outcome.far_bytes += count

    def _putting(self, number: int) -> Steps:
        speeds = self._plan.speeds
        yield self._env.timeout(speeds.s3_latency + self._sizes[number] / speeds.s3_put)
        self._far.add(number)

    def _arrive(self, fill: _Fill, count: float, at_least: float) -> Steps:
        """These bytes cross the node's NIC, and take as long as their connection wants."""
        began = self._env.now
        yield from self._through(self._into[fill.node], count / self._plan.speeds.nic)
        yield self._env.timeout(max(0.0, began + at_least - self._env.now))
        if fill.node in self._dead:
            return
        fill.have += count
        if fill.last is not None:
            self.outcome.pause = max(self.outcome.pause, self._env.now - fill.last)
        fill.last = self._env.now
        came, fill.came = fill.came, self._env.event()
        came.succeed()

    def _through(self, link: simpy.Resource, seconds: float) -> Steps:
        with link.request() as turn:
            yield turn
            yield self._env.timeout(seconds)
