"""`python -m bench.fleet`: plans a fleet, and prints what it comes to."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from .answers import Answers, answers, document, table
from .inputs import GB, PRESETS, Plan
from .region import simulated

_OWN = ("nodes", "regions", "zones", "fleet", "near", "seed")
_OF_IMAGES = {"images": "count", "zipf": "zipf", "median": "median", "shared": "shared"}
_OF_LOAD = ("pulls", "waves", "wave", "spread", "hours", "warm")
_OF_SPEEDS = ("nic", "upstream", "upstream_all", "s3", "unpack")
_WAYS = {
    "alone": (False, False),
    "peers": (False, True),
    "far": (True, False),
    "both": (True, True),
}


def main(words: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(words)
    try:
        plans = [planned(preset, options) for preset in options.presets]
    except ValueError as error:
        parser.error(str(error))
    if options.ways:
        plans = [way for plan in plans for way in ways(plan)]
    found = found_of(plans)
    if options.json:
        print(json.dumps([document(*each) for each in zip(plans, found, strict=True)], indent=2))
    else:
        print("\n".join(table(found)))
    return 0


def found_of(plans: Sequence[Plan]) -> list[Answers]:
    """All regions of all plans, as many at once as there are cores."""
    work = [(plan, number) for plan in plans for number in range(plan.regions)]
    with ProcessPoolExecutor(min(len(work), os.cpu_count() or 1)) as pool:
        counted = list(pool.map(simulated, *zip(*work, strict=True)))
    return [
        answers(plan, [each for (of, _), each in zip(work, counted, strict=True) if of is plan])
        for plan in plans
    ]


def ways(plan: Plan) -> list[Plan]:
    """The same fleet without peers and far tier, with one of them, and with both."""
    return [
        replace(plan, name=f"{plan.name}, {name}", far=far, peers=peers)
        for name, (far, peers) in _WAYS.items()
    ]


def planned(preset: str, options: argparse.Namespace) -> Plan:
    """The preset with what the words say of it. Raises ValueError."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    plan = PRESETS[preset]
    plan = replace(
        plan,
        **{name: given[name] for name in (*_OWN, "far", "peers", "home") if name in given},
        images=replace(
            plan.images,
            **{field: given[name] for name, field in _OF_IMAGES.items() if name in given},
        ),
        load=replace(plan.load, **{name: given[name] for name in _OF_LOAD if name in given}),
        speeds=replace(plan.speeds, **{name: given[name] for name in _OF_SPEEDS if name in given}),
    )
    if plan.fleet < 1:
        raise ValueError("a fleet has a node at least")
    if not 1 <= plan.regions <= plan.nodes:
        raise ValueError(f"{plan.nodes} nodes cannot be in {plan.regions} regions")
    return plan


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fleet",
        description="What a fleet of mirrors asks of its upstream, of S3 and of Redis.",
        epilog="example: python -m bench.fleet cluster --nodes 3000 --near 50e9 --ways",
    )
    parser.add_argument("presets", nargs="+", choices=PRESETS, help="what all else is taken from")
    for name, words in _WORDS.items():
        kind = (
            int
            if name in ("nodes", "regions", "zones", "fleet", "seed", "images", "waves")
            else float
        )
        parser.add_argument(f"--{name.replace('_', '-')}", type=_positive(kind), help=words)
    for name, words in _SWITCHES.items():
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=words)
    parser.add_argument("--ways", action="store_true", help="without peers, far tier, and both")
    parser.add_argument("--json", action="store_true", help="with all that was supposed")
    return parser


_WORDS = {
    "nodes": "mirrors, in all regions",
    "regions": "each has an object store of its own",
    "zones": "of a region",
    "fleet": "nodes that share a Redis, and one download",
    "near": f"bytes of each node's disk, as in {100 * GB:.0e}",
    "images": "how many different ones there are",
    "zipf": "exponent of their popularity",
    "median": "bytes of an image",
    "shared": "part of an image's layers that are those of its base",
    "pulls": "a day, of each node",
    "waves": "times a day that all nodes pull a new image",
    "wave": "bytes of its image",
    "spread": "seconds that a wave takes",
    "hours": "that are counted",
    "warm": "hours before them",
    "nic": "bytes a second of a node",
    "upstream": "bytes a second of one download",
    "upstream_all": "bytes a second of a region's downloads",
    "s3": "bytes a second of one connection",
    "unpack": "bytes a second that a client unpacks",
    "seed": "another one makes another trace",
}
_SWITCHES = {
    "far": "an object store in each region",
    "peers": "one download for a fleet's nodes",
    "home": "other regions ask the first region's mirrors",
}


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 <= value < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = "number"
    return number


if __name__ == "__main__":
    sys.exit(main())
