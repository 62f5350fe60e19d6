"""Three real mirrors beside their simulation: the same pulls, and what came of them.

    python -m bench.fleet.real [--json]

Redis, SeaweedFS and an upstream run beside them. Pulls come one after the other; of each wave all
nodes pull at once. It exits with 1 where the two are further apart than they may be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..corpus import INDEX_TYPE, MANIFEST_TYPE, Blob, Corpus, Manifest
from ..nodes import Image, Nodes, fleet, image_of, pull_on_all
from ..programs import allow_descriptors
from ..servers import House, Upstream
from .images import Catalogue
from .inputs import GB, PRESETS, Images, Load
from .region import FAR, PEER, UPSTREAM, Region
from .trace import Pull, pulls

PLAN = replace(
    PRESETS["team"],
    near=100 * GB,
    images=Images(
        count=12,
        median=2e6,
        p90=8e6,
        largest=16e6,
        layers_median=5,
        layers_p90=8,
        layers_most=12,
        bases=3,
        changes=0.0,
    ),
    load=Load(pulls=12, waves=4, wave=12e6, spread=0.0, hours=24, warm=0),
)
# As it is on one machine: no distances, and an object store that takes 75 MB/s.
PLAN = replace(
    PLAN,
    speeds=replace(
        PLAN.speeds,
        upstream=40e6,
        upstream_all=40e6,
        upstream_latency=0.01,
        s3=500e6,
        s3_put=75e6,
        s3_latency=0.01,
        unpack=1e15,
    ),
    protocol=replace(PLAN.protocol, ttl=3600.0),
)
_PAUSE = 1.0  # seconds after each pull: what it has fetched is in the object store by then
TOLERATED = {
    "pulls": 0.0,
    "contents from upstream": 0.0,
    "bytes from upstream": 0.01,
    "contents from other nodes and S3": 0.0,
    "contents from other nodes": 0.3,
    "objects in S3": 0.0,
    "bytes in S3": 0.01,
    "Redis: entries in the list of nodes": 0.25,
    "Redis: all commands": 0.35,
}
"""How far each number may be from the simulation's, as a part of the real one."""


@dataclass(frozen=True)
class Beside:
    real: float
    reckoned: float
    tolerated: float

    @property
    def apart(self) -> float:
        return abs(self.reckoned - self.real) / self.real if self.real else abs(self.reckoned)

    @property
    def is_near(self) -> bool:
        return self.apart <= self.tolerated


def compared() -> dict[str, Beside]:
    allow_descriptors()
    with tempfile.TemporaryDirectory() as folder, House(Path(folder)) as house:
        upstream = house.upstream(rate=PLAN.speeds.upstream_all)
        catalogue = Catalogue(PLAN.images, PLAN.seed, PLAN.load.wave)
        trace = steps(list(pulls(PLAN, 0, PLAN.nodes, catalogue)))
        images = _offered(house, upstream, catalogue, trace)
        with fleet(house, upstream, PLAN.nodes) as nodes:
            before, began = nodes.commands(), time.monotonic()
            at = _pulled(nodes, images, trace)
            seconds, after = time.monotonic() - began, nodes.commands()
            real = _counted(nodes, upstream, images)
        commands = {name: after[name] - before.get(name, 0) for name in after}
        real |= {
            "pulls": sum(len(step) for step in trace),
            "Redis: entries in the list of nodes": commands["hset"],
            "Redis: all commands": sum(commands.values()),
        }
        reckoned = _reckoned(catalogue, trace, at, seconds)
    return {
        name: Beside(real[name], reckoned[name], tolerated) for name, tolerated in TOLERATED.items()
    }


def steps(trace: Sequence[Pull]) -> list[list[Pull]]:
    """Those that come at once, together: single pulls, and waves."""
    found: list[list[Pull]] = []
    for pull in trace:
        if found and found[-1][0].image >= PLAN.images.count and found[-1][0].image == pull.image:
            found[-1].append(pull)
        else:
            found.append([pull])
    return found


def _offered(
    house: House, upstream: Upstream, catalogue: Catalogue, trace: Sequence[Sequence[Pull]]
) -> dict[int, Image]:
    """Each image made real; the catalogue is told how large its documents have become."""
    corpus = Corpus(house.folder, int(PLAN.images.largest))
    layers: dict[int, Blob] = {}
    images = {}
    for number in dict.fromkeys(step[0].image for step in trace):
        contents = catalogue.image(number, 0)
        config, *others = contents.others
        for other in others:
            if other not in layers:
                layers[other] = next(corpus.blobs(int(catalogue.sizes[other]) + 64))
        images[number] = made = _with_index(image_of([layers[other] for other in others]))
        upstream.offer(made.blobs, *made.manifests)
        documents = [len(each.data) for each in made.manifests]
        for content, size in zip(
            (*contents.documents, config, *others),
            (*documents, *(blob.size for blob in made.blobs)),
            strict=True,
        ):
            catalogue.sizes[content] = size
    return images


def _with_index(image: Image) -> Image:
    (manifest,) = image.manifests
    part = {"mediaType": MANIFEST_TYPE, "digest": manifest.digest, "size": len(manifest.data)}
    platform = {"platform": {"architecture": "amd64", "os": "linux"}}
    listed = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [part | platform]}
    index = Manifest(json.dumps(listed).encode(), INDEX_TYPE, manifest.tag)
    return Image([index, Manifest(manifest.data, tag=None)], image.blobs)


def _pulled(nodes: Nodes, images: dict[int, Image], trace: Sequence[Sequence[Pull]]) -> list[float]:
    """When each step began."""
    began, at = time.monotonic(), []
    for step in trace:
        at.append(time.monotonic() - began)
        pull_on_all([nodes.mirrors[pull.node] for pull in step], images[step[0].image])
        time.sleep(_PAUSE)
    return at


def _counted(nodes: Nodes, upstream: Upstream, images: dict[int, Image]) -> dict[str, float]:
    contents = {each.digest: each for image in images.values() for each in image.blobs}
    documents = {each.digest: each for image in images.values() for each in image.manifests}
    given = {digest: upstream.given(digest) for digest in (*contents, *documents)}
    sizes = {digest: len(each.data) for digest, each in documents.items()}
    counts = nodes.counts()
    followed = counts['registry_mirror_fleet_asked_total{result="follows"}']
    far = counts['registry_mirror_second_tier_asks_total{result="hit"}']
    objects = {
        name.rpartition("/")[2]: size
        for name, size in nodes.seaweed.objects(nodes.bucket).items()
        if "/sha256/" in f"/{name}"
    }
    return {
        "contents from upstream": sum(downloads for downloads, _ in given.values()),
        "bytes from upstream": sum(sent for _, sent in given.values())
        + sum(given[digest][0] * size for digest, size in sizes.items()),
        "contents from other nodes and S3": followed + far,
        "contents from other nodes": followed,
        "objects in S3": len(objects),
        "bytes in S3": sum(objects.values()),
    }


def _reckoned(
    catalogue: Catalogue, trace: Sequence[Sequence[Pull]], at: Sequence[float], seconds: float
) -> dict[str, float]:
    region = Region(PLAN, 0, PLAN.nodes, catalogue)
    for step, begins in zip(trace, at, strict=True):
        for pull in step:
            region.pull(pull._replace(at=begins))
    tally, protocol = region.tally, PLAN.protocol
    looks = PLAN.nodes * seconds / protocol.look
    idle = looks * protocol.look_commands + PLAN.nodes * seconds * protocol.news
    return {
        "pulls": tally.pulls,
        "contents from upstream": tally.requests[UPSTREAM],
        "bytes from upstream": tally.bytes[UPSTREAM],
        "contents from other nodes and S3": tally.requests[PEER] + tally.requests[FAR],
        "contents from other nodes": tally.requests[PEER],
        "objects in S3": len(tally.fetched),
        "bytes in S3": tally.s3_in,
        "Redis: entries in the list of nodes": looks,
        "Redis: all commands": tally.redis + idle,
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fleet.real",
        description="Three real mirrors beside their simulation.",
        epilog="example: python -m bench.fleet.real",
    )
    parser.add_argument("--json", action="store_true", help="instead of a table")
    options = parser.parse_args(words)
    found = compared()
    if options.json:
        print(json.dumps({name: vars(each) for name, each in found.items()}, indent=2))
    else:
        print("| | real | reckoned | apart | may be |")
        print("|---|---|---|---|---|")
        for name, each in found.items():
            numbers = f"{each.real:,.0f} | {each.reckoned:,.0f}".replace(",", " ")
            print(f"| {name} | {numbers} | {each.apart:.1%} | {each.tolerated:.0%} |")
    far = [name for name, each in found.items() if not each.is_near]
    for name in far:
        print(f"{name}: further apart than it may be", file=sys.stderr)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
