"""The mirrors of one region, which share an object store, pull by pull.

Each content that a node lacks is asked of the object store, then of Redis who of its fleet fetches
it. The first fetches it from upstream and puts it into the object store; the others of the fleet
read along from it, eight of each who has it. What is asked later comes from the object store.

Time is reckoned, not played: a pull's end follows from what has begun before it. A link that all
share serves in the order of asking. A node that gives a content gives each follower an equal part
of its NIC, as if it had as many as it may have: so the times of peers are rather too long.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field

from .images import Catalogue
from .inputs import Plan
from .trace import Pull, pulls

NEAR, PEER, FAR, UPSTREAM = PLACES = ("near", "peer", "far", "upstream")
_NEVER = math.inf


@dataclass(slots=True)
class Tally:
    """What was counted. `requests` and `bytes`: of content, by where it came from. `upstream_asks`:
    with those about tags. `seconds`: that pulls took. `s3_by_second` is of the region,
    `redis_by_second` of its first fleet."""

    pulls: int = 0
    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    bytes: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PLACES, 0.0))
    upstream_asks: int = 0
    fetched: dict[tuple[int, int, int], float] = field(default_factory=dict)
    s3_get: int = 0
    s3_put: int = 0
    s3_in: float = 0.0
    redis: float = 0.0
    seconds: array[float] = field(default_factory=lambda: array("d"))
    redis_by_second: Counter[int] = field(default_factory=Counter)
    s3_by_second: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class _Shared:
    """A content as a fleet has it. `until`: for how long others are sent to who fetches or fetched
    it. `ends`: when it ends at who fetched it and then at each follower, in the order in which they
    came: the n-th reads from the (n - 1) / 8-th."""

    until: float = -_NEVER
    latest: float = -_NEVER
    ends: list[float] = field(default_factory=list)


class _Link:
    """One that all downloads share: so many bytes a second, in the order of asking."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._free_at = -_NEVER

    def end(self, at: float, size: float, own: float) -> float:
        """When these bytes are through that begin at `at` and come at `own` speed at most."""
        self._free_at = max(self._free_at, at) + size / self._speed
        return max(self._free_at, at + size / own)


class Region:
    """Its state between pulls. `pull` wants them in the order of their times."""

    def __init__(self, plan: Plan, number: int, nodes: int, catalogue: Catalogue) -> None:
        self.tally = Tally()
        self.nodes = nodes
        self.stored = 0.0  # bytes in the object store
        self._plan = plan
        self._is_home = number == 0 or not plan.home
        self._catalogue = catalogue
        # Of each node, when what it has is, or was, there whole: the least recently used first.
        self._near: list[dict[int, float]] = [{} for _ in range(nodes)]
        self._used = array("d", bytes(8 * nodes))
        self._shared: dict[tuple[int, int], _Shared] = {}  # by content and fleet
        self._far_at: dict[int, float] = {}  # from when the object store has a content
        self._tags: dict[tuple[int, int], float] = {}  # until when they are fresh
        self._way_out = _Link(plan.speeds.upstream_all)
        children = max(1, min(plan.protocol.followers, min(nodes, plan.fleet) - 1))
        self._to_follower = plan.speeds.nic / children

    def pull(self, pull: Pull) -> float:
        """Seconds until its client has it unpacked."""
        speeds, sizes = self._plan.speeds, self._catalogue.sizes
        at, image = self._tag(pull), self._catalogue.image(pull.image, pull.version)
        for number in image.documents:
            at = self._content(at, pull.node, number, sizes[number], sizes[number])
        ends, through, unpacked = [], 0.0, at
        for number in image.others:
            through += sizes[number]
            ends.append(self._content(at, pull.node, number, sizes[number], through))
        for number, end in zip(image.others, ends, strict=True):
            unpacked = max(unpacked, end) + sizes[number] / speeds.unpack
        self.tally.pulls += 1
        self.tally.seconds.append(unpacked - pull.at)
        return unpacked - pull.at

    def _tag(self, pull: Pull) -> float:
        """When it is known what the tag points to. A fleet asks once in `ttl`, otherwise each node
        does."""
        plan = self._plan
        fleet = pull.node // plan.fleet
        node = -1 - fleet if plan.peers or plan.far else pull.node
        self._redis(fleet, pull.at, plan.protocol.tag_read)
        at = pull.at + plan.speeds.redis_latency
        if self._tags.get((pull.image, node), -_NEVER) >= at:
            return at
        self._tags[pull.image, node] = at + plan.protocol.ttl
        self._redis(fleet, at, plan.protocol.tag_write)
        self.tally.upstream_asks += 1
        return at + plan.speeds.upstream_latency

    def _content(self, at: float, node: int, number: int, size: float, through: float) -> float:
        """When it has come to the node and its client. `through`: the bytes that the client gets by
        then of this pull."""
        near, tally, speeds = self._near[node], self.tally, self._plan.speeds
        there = near.pop(number, None)
        if there is not None:
            near[number] = there
            source, end = NEAR, max(there, at + through / speeds.nic)
        else:
            source, end = self._fetched(at, node // self._plan.fleet, number, through)
            near[number] = end
            self._make_room(node, size)
        tally.requests[source] += 1
        tally.bytes[source] += size
        return end

    def _make_room(self, node: int, size: float) -> None:
        near, sizes = self._near[node], self._catalogue.sizes
        used = self._used[node] + size
        while used > self._plan.near and len(near) > 1:
            oldest = next(iter(near))
            del near[oldest]
            used -= sizes[oldest]
        self._used[node] = used

    def _fetched(self, at: float, fleet: int, number: int, through: float) -> tuple[str, float]:
        plan, speeds, size = self._plan, self._plan.speeds, self._catalogue.sizes[number]
        by_nic = at + through / speeds.nic
        if plan.peers or plan.far:
            self._redis(fleet, at, plan.protocol.miss)
        if plan.far:
            self._s3(at, 1, 0)
            at += speeds.s3_latency
            if self._far_at.get(number, _NEVER) <= at:
                return FAR, max(by_nic, at + size / speeds.s3)
        if not plan.peers:
            return UPSTREAM, max(by_nic, self._upstream(at, number))
        self._redis(fleet, at, plan.protocol.lease)
        at += speeds.redis_latency
        shared = self._shared.get((number, fleet))
        if shared is None:
            shared = self._shared[number, fleet] = _Shared()
        if shared.until > at:
            return PEER, max(by_nic, self._followed(at, through, shared))
        end = self._upstream(at, number)
        held = max(end, self._far_at.get(number, end)) - at
        protocol = plan.protocol
        self._redis(fleet, end, held / protocol.renew * protocol.renewal + protocol.come)
        shared.until = end + plan.protocol.here
        shared.ends, shared.latest = [end], end
        return UPSTREAM, max(by_nic, end)

    def _upstream(self, at: float, number: int) -> float:
        speeds, tally, size = self._plan.speeds, self.tally, self._catalogue.sizes[number]
        tally.upstream_asks += 1
        tally.fetched[self._catalogue.names[number]] = size
        if self._is_home:
            end = self._way_out.end(at + speeds.upstream_latency, size, speeds.upstream)
        else:
            end = self._way_out.end(at + speeds.home_latency, size, speeds.home)
        if self._plan.far and number not in self._far_at:
            self._far_at[number] = end + speeds.s3_latency + size / speeds.s3_put
            parts = math.ceil(size / self._plan.protocol.part)
            self._s3(end, 0, 1 if parts == 1 else parts + 2)
            tally.s3_in += size
            self.stored += size
        return end

    def _followed(self, at: float, through: float, shared: _Shared) -> float:
        if at > shared.latest:  # nobody reads it now: who asks is the first of who fetched it
            del shared.ends[1:]
        speeds, followers = self._plan.speeds, self._plan.protocol.followers
        place, depth = len(shared.ends), 1
        above = parent = (place - 1) // followers
        while above:
            above, depth = (above - 1) // followers, depth + 1
        at += depth * speeds.peer_latency
        end = max(
            shared.ends[parent] + speeds.peer_latency,
            at + through / self._to_follower,
        )
        shared.ends.append(end)
        shared.latest = max(shared.latest, end)
        return end

    def _s3(self, at: float, gets: int, puts: int) -> None:
        self.tally.s3_get += gets
        self.tally.s3_put += puts
        self.tally.s3_by_second[int(at)] += gets + puts

    def _redis(self, fleet: int, at: float, commands: float) -> None:
        self.tally.redis += commands
        if fleet == 0:
            self.tally.redis_by_second[int(at)] += round(commands)


def simulated(plan: Plan, number: int) -> tuple[Tally, float]:
    """What is counted in one region, and the bytes that its object store has at the end."""
    share, rest = divmod(plan.nodes, plan.regions)
    catalogue = Catalogue(plan.images, plan.seed, plan.load.wave)
    region = Region(plan, number, share + (number < rest), catalogue)
    is_counted = False
    for pull in pulls(plan, number, region.nodes, catalogue):
        if pull.at >= 0 and not is_counted:
            is_counted, region.tally = True, Tally()
        region.pull(pull)
    return region.tally, region.stored
