"""What a plan comes to: the sum of its regions, as numbers and as a table."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from .inputs import HOUR, Plan
from .region import FAR, PEER, PLACES, UPSTREAM, Tally

_MONTH = 30 * 24.0  # hours


@dataclass(frozen=True, slots=True)
class Answers:
    """Counts are for a day. `hits`: parts of the requests for content that each place answered, and
    `bytes_from`: of their bytes. `redis_most` and `s3_most`: in the busiest second of one region.
    Costs are dollars for 30 days, without servers and what an upstream or its way costs."""

    name: str
    nodes: int
    pulls: float
    pulled_bytes: float
    upstream_bytes: float
    upstream_requests: float
    upstream_share: float
    hits: dict[str, float]
    bytes_from: dict[str, float]
    peer_bytes: float
    region_bytes: float
    s3_in: float
    s3_out: float
    s3_get: float
    s3_put: float
    s3_most: int
    s3_stored: float
    redis_average: float
    redis_most: float
    redis_list: float
    seconds_p50: float
    seconds_p99: float
    cost_s3: float
    cost_traffic: float


def answers(plan: Plan, regions: Sequence[tuple[Tally, float]]) -> Answers:
    tallies = [tally for tally, _ in regions]
    days = plan.load.hours / 24
    prices = plan.prices
    asked = {place: _sum(t.requests[place] for t in tallies) for place in PLACES}
    read = {place: _sum(t.bytes[place] for t in tallies) for place in PLACES}
    upstream_bytes, between_regions = read[UPSTREAM], 0.0
    upstream_requests = _sum(t.upstream_asks for t in tallies)
    if plan.home:
        fetched = {name: size for tally in tallies for name, size in tally.fetched.items()}
        asks = _sum(t.requests[UPSTREAM] for t in tallies)
        upstream_requests = upstream_requests - asks + len(fetched)
        upstream_bytes = sum(fetched.values())
        between_regions = _sum(t.bytes[UPSTREAM] for t in tallies[1:])
    seconds = array("d")
    for tally in tallies:
        seconds.extend(tally.seconds)
    ordered = sorted(seconds)
    s3_get, s3_put = (_sum(t.s3_get for t in tallies), _sum(t.s3_put for t in tallies))
    months = _MONTH / plan.load.hours
    stored = _sum(stored for _, stored in regions)
    protocol = plan.protocol
    fleets = math.ceil(plan.nodes / plan.regions / plan.fleet) * plan.regions
    in_one = min(plan.fleet, math.ceil(plan.nodes / plan.regions))
    looks = in_one / protocol.look if plan.peers else 0.0  # a second
    across = (1 - 1 / plan.zones) * read[PEER]
    idle = looks * protocol.look_commands + in_one * protocol.news
    return Answers(
        name=plan.name,
        nodes=plan.nodes,
        pulls=_sum(t.pulls for t in tallies) / days,
        pulled_bytes=sum(read.values()) / days,
        upstream_bytes=upstream_bytes / days,
        upstream_requests=upstream_requests / days,
        upstream_share=_part(upstream_bytes, sum(read.values())),
        hits={place: _part(count, sum(asked.values())) for place, count in asked.items()},
        bytes_from={place: _part(size, sum(read.values())) for place, size in read.items()},
        peer_bytes=read[PEER] / days,
        region_bytes=between_regions / days,
        s3_in=_sum(t.s3_in for t in tallies) / days,
        s3_out=read[FAR] / days,
        s3_get=s3_get / days,
        s3_put=s3_put / days,
        s3_most=max(max(t.s3_by_second.values(), default=0) for t in tallies),
        s3_stored=stored,
        redis_average=_sum(t.redis for t in tallies) / (plan.load.hours * HOUR) / fleets + idle,
        redis_most=max(max(t.redis_by_second.values(), default=0) for t in tallies) + idle,
        redis_list=min(looks * in_one, in_one * protocol.named) * protocol.entry,
        seconds_p50=percentile(ordered, 0.5),
        seconds_p99=percentile(ordered, 0.99),
        cost_s3=months * (s3_get * prices.s3_get + s3_put * prices.s3_put)
        + stored * prices.s3_month,
        cost_traffic=months
        * (across * prices.between_zones + between_regions * prices.between_regions),
    )


def percentile(ordered: Sequence[float], part: float) -> float:
    """Of values in order; 0 of none."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def document(plan: Plan, found: Answers) -> dict[str, object]:
    """For JSON: what was supposed, too."""
    return {"plan": asdict(plan), "answers": asdict(found)}


def table(found: Sequence[Answers]) -> Iterator[str]:
    """As Markdown: a column a plan."""
    yield f"| | {' | '.join(each.name for each in found)} |"
    yield f"|---|{'---|' * len(found)}"
    for title, shown in _ROWS:
        yield f"| {title} | {' | '.join(shown(each) for each in found)} |"


def _places(parts: dict[str, float]) -> str:
    return ", ".join(f"{100 * part:.3g} %" for part in parts.values())


_ROWS: tuple[tuple[str, Callable[[Answers], str]], ...] = (
    ("nodes", lambda a: _count(a.nodes)),
    ("pulls a day, and their bytes", lambda a: f"{_count(a.pulls)}, {_size(a.pulled_bytes)}"),
    (f"requests answered by {', '.join(PLACES)}", lambda a: _places(a.hits)),
    (f"bytes from {', '.join(PLACES)}", lambda a: _places(a.bytes_from)),
    (
        "upstream, a day: bytes, requests",
        lambda a: f"{_size(a.upstream_bytes)}, {_count(a.upstream_requests)}",
    ),
    ("S3, a day: in, out", lambda a: f"{_size(a.s3_in)}, {_size(a.s3_out)}"),
    ("S3, a day: GET, PUT", lambda a: f"{_count(a.s3_get)}, {_count(a.s3_put)}"),
    ("S3: requests in the busiest second of a region", lambda a: _count(a.s3_most)),
    ("S3: stored at the end", lambda a: _size(a.s3_stored)),
    ("between nodes, a day", lambda a: _size(a.peer_bytes)),
    ("between regions, a day", lambda a: _size(a.region_bytes)),
    (
        "Redis of a fleet: commands a second, in the busiest one, to tell of nodes",
        lambda a: f"{_count(a.redis_average)}, {_count(a.redis_most)}, {_size(a.redis_list)}/s",
    ),
    ("a pull: p50, p99", lambda a: f"{a.seconds_p50:.3g} s, {a.seconds_p99:.3g} s"),
    (
        "30 days: S3, traffic between zones and regions",
        lambda a: f"$ {_count(a.cost_s3)}, $ {_count(a.cost_traffic)}",
    ),
)


def _sum(values: Iterator[float]) -> float:
    return sum(values)


def _part(some: float, all_: float) -> float:
    return some / all_ if all_ else 0.0


def _count(value: float) -> str:
    """Three significant digits."""
    if value < 100:
        return f"{value:.3g}"
    digits = len(f"{value:.0f}") - 3
    return f"{round(value / 10**digits) * 10**digits:,}".replace(",", " ")


def _size(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"
