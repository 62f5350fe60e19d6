"""What a plan is made of: all that the simulation is told, and what it supposes otherwise.

Sizes are bytes, times seconds, speeds bytes a second. docs/scale.md has the source of each number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mirror.times import FLEET

GB = 1e9
HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Images:
    """What is pulled. `median` and `p90` of an image's compressed bytes, and of its layers' number.

    `zipf`: the n-th most popular image is pulled n ** -zipf times as often as the first. `bases`:
    images whose layers the others begin with; `shared`: the part of an image's layers that are its
    base's. `changes`: times a day that an image's tag moves to one with other layers on that base.
    """

    count: int = 1000
    zipf: float = 0.9
    median: float = 17e6
    p90: float = 480e6
    largest: float = 5e9
    layers_median: float = 8
    layers_p90: float = 18
    layers_most: int = 120
    uneven: float = 2.6  # sigma of the logarithm of a layer's part of its image
    bases: int = 30
    shared: float = 0.4
    changes: float = 0.2
    manifest: int = 3000  # an index, and a manifest
    config: int = 8000


@dataclass(frozen=True, slots=True)
class Load:
    """Who pulls when. `pulls`: a day, of each node, by Poisson, whose rate swings by `swing` of
    itself in a day. `waves`: times a day that a new image of `wave` bytes is pulled by all nodes,
    each at a random moment within `spread` seconds. `warm`: simulated hours before the `hours` that
    are counted."""

    pulls: float = 20.0
    swing: float = 0.6
    waves: int = 2
    wave: float = 500e6
    spread: float = 10.0
    hours: float = 24.0
    warm: float = 24.0


@dataclass(frozen=True, slots=True)
class Speeds:
    """`upstream`: of one download; `upstream_all`: of all of a region together. `s3` and `s3_put`:
    of one connection. `nic`: of a node, in each direction. `unpack`: of a client, of compressed
    bytes. `latency` of each: to the first byte."""

    nic: float = 1.25e9
    upstream: float = 60e6
    upstream_all: float = 1.25e9
    upstream_latency: float = 0.2
    home: float = 60e6  # from another region
    home_latency: float = 0.15
    s3: float = 85e6
    s3_put: float = 85e6
    s3_latency: float = 0.1
    peer_latency: float = 0.003
    redis_latency: float = 0.001
    unpack: float = 100e6


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars, as a list of prices said on `date`: put in your own."""

    date: str = "2026-03, us-east-1, S3 Standard, list prices"
    s3_put: float = 5e-6
    s3_get: float = 0.4e-6
    s3_month: float = 0.023 / GB
    between_zones: float = 0.02 / GB  # 0.01 at either end
    between_regions: float = 0.02 / GB


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the mirror does, and what an act of it costs in commands of Redis and requests to S3.

    `look`: between two times that a node enters itself in Redis and reads the list of all, by
    `look_commands`, an entry of which has `entry` bytes; of more than `look` * `named` nodes it is
    read less often, so that no node reads more than `named` entries a second. `followers`: how many
    a node gives one content to at a time. `news`: commands a second of each node, also of one that
    does nothing, for what the others were told (an MGET and a PING, twice). Commands, with those
    within scripts: `tag_read` for each tag that is asked for, `tag_write` for each that an upstream
    was asked about, `miss` for each content that is not here (what is known of its repository),
    `lease` for each ask who fetches it, `renewal` each `renew` seconds, `come` when it is
    here. `part`: from this size on an upload has parts."""

    look: float = FLEET.look
    look_commands: float = 5.0
    news: float = 4.0
    entry: float = 110.0
    named: float = 50.0
    followers: int = 8
    renew: float = FLEET.renew
    here: float = FLEET.here
    ttl: float = 300.0
    tag_read: float = 8.0
    tag_write: float = 8.0
    miss: float = 4.5
    lease: float = 3.0
    renewal: float = 4.0
    come: float = 3.0
    part: float = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """`near`: bytes of each node's disk. `far`: an object store in each region. `peers`: one
    download for the nodes of a fleet, which share a Redis; `fleet`: so many nodes are one. `home`:
    the other regions ask the first one's mirrors, which ask the upstream. `zones`: between which a
    region's nodes are spread."""

    name: str = "cluster"
    nodes: int = 300
    regions: int = 1
    zones: int = 3
    fleet: int = 1000
    near: float = 100 * GB
    far: bool = True
    peers: bool = True
    home: bool = False
    images: Images = field(default_factory=Images)
    load: Load = field(default_factory=Load)
    speeds: Speeds = field(default_factory=Speeds)
    prices: Prices = field(default_factory=Prices)
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 1


PRESETS = {
    "team": Plan(
        name="team",
        nodes=3,
        zones=1,
        near=500 * GB,
        images=Images(count=300, bases=15),
        load=Load(pulls=400, waves=0),
    ),
    "cluster": Plan(name="cluster", nodes=300),
    "region": Plan(
        name="region",
        nodes=10_000,
        images=Images(count=5000, bases=100),
        load=Load(pulls=12, waves=4, spread=30),
    ),
    "planet": Plan(
        name="planet",
        nodes=100_000,
        regions=10,
        home=True,
        images=Images(count=20_000, bases=200),
        load=Load(pulls=6, waves=2, spread=60, hours=12, warm=12),
    ),
}
"""Mirrors for so many machines: one address in front of three; one on each node of a cluster, of a
region's clusters, and of ten regions'."""
