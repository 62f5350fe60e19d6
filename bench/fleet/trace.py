"""Who pulls what, and when. All of it follows from the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from heapq import merge
from typing import NamedTuple

from .images import Catalogue
from .inputs import DAY, HOUR, Load, Plan


class Pull(NamedTuple):
    """Node `node` of a region pulls version `version` of image `image`. Time 0: counting begins."""

    at: float
    node: int
    image: int
    version: int


def pulls(plan: Plan, region: int, nodes: int, catalogue: Catalogue) -> Iterator[Pull]:
    """A region's, in the order of their times. Its day begins a part of a day after the first's."""
    return merge(
        _singles(plan, region, nodes, catalogue),
        *(_wave(plan, region, nodes, number) for number in range(_waves(plan.load))),
    )


def rate(load: Load, at: float, phase: float) -> float:
    """Pulls a second of one node."""
    return load.pulls / DAY * (1 + load.swing * math.sin(2 * math.pi * (at / DAY + phase)))


def _singles(plan: Plan, region: int, nodes: int, catalogue: Catalogue) -> Iterator[Pull]:
    """By Poisson: candidates at the highest rate, of which as many are kept as the hour has."""
    load, chance = plan.load, random.Random(f"{plan.seed} pulls of region {region}")
    most = nodes * load.pulls / DAY * (1 + load.swing)
    phase = region / plan.regions
    at = -load.warm * HOUR
    while most and (at := at + chance.expovariate(most)) < load.hours * HOUR:
        if chance.random() * most < nodes * rate(load, at, phase):
            image = catalogue.drawn(chance)
            yield Pull(at, chance.randrange(nodes), image, catalogue.version(image, at))


def _waves(load: Load) -> int:
    """How many there are in all, of which the first are in the hours that are not counted."""
    return math.floor(load.waves * (load.warm + load.hours) / 24)


def _wave(plan: Plan, region: int, nodes: int, number: int) -> Iterator[Pull]:
    """Each wave has an image of its own, the same in all regions, at the same time."""
    load, chance = plan.load, random.Random(f"{plan.seed} wave {number} of region {region}")
    begins = -load.warm * HOUR + (number + 0.5) * DAY / load.waves
    times = sorted(begins + chance.random() * load.spread for _ in range(nodes))
    order = chance.sample(range(nodes), nodes)
    image = plan.images.count + number
    return (Pull(at, node, image, 0) for at, node in zip(times, order, strict=True))
