"""A cold image on three nodes of a fleet at once, and on one mirror alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ..corpus import Corpus
from ..nodes import fleet, image_of, pull_on_all
from ..results import Result, Table, Target, interleave
from ..scale import MIB, Scale
from ..servers import House, Server

TITLE = "a cold image on three nodes at once, over 20 MB/s"
RATE = 20e6
ONE = "mirror, one node"
THREE = "mirror, three nodes"
# Of an image's bytes, what each layer has: one dominates, as in most images.
LAYERS = (0.375, 0.25, 0.125, 0.125, 0.125)


def measure(house: House, scale: Scale) -> Result:
    size = scale.herd_blob // 4
    upstream = house.upstream(rate=RATE)
    corpus = Corpus(house.folder, size)
    layers = [corpus.blobs(int(size * part)) for part in LAYERS]
    table = Table(f"an image of {size // MIB} MiB in {len(LAYERS)} layers")

    def cold(name: str, servers: Sequence[Server]) -> Callable[[], None]:
        def sample() -> None:
            image = image_of([next(each) for each in layers])
            upstream.offer(image.blobs, *image.manifests)
            with ExitStack() as stack:
                costs = [stack.enter_context(server.cost()) for server in servers]
                began = time.monotonic()
                pull_on_all(servers, image)
                table.add(name, "seconds, until the last has all", time.monotonic() - began)
            digests = [each.digest for each in image.blobs]
            digests += [each.digest for each in image.manifests]
            given = [upstream.given(digest) for digest in digests]
            table.add(name, "upstream bytes / image", sum(sent for _, sent in given) / image.size)
            table.add(name, "downloads / contents", sum(each for each, _ in given) / len(given))
            table.add(name, "CPU s of all", sum(cost.cpu for cost in costs))

        return sample

    one = house.mirror(upstream, ONE)
    with fleet(house, upstream, 3) as nodes:
        interleave(scale.long_rounds, {ONE: cold(ONE, [one]), THREE: cold(THREE, nodes.mirrors)})
    seconds = "seconds, until the last has all"
    return Result(
        [table],
        [
            Target(
                "time of three nodes at once / of one alone",
                table.ratio(seconds, THREE, ONE),
                1.1,
                of=(table, seconds),
                row=THREE,
            ),
            *(
                Target(
                    f"three nodes: {column}",
                    table.median(THREE, column),
                    bound,
                    of=(table, column),
                    row=THREE,
                )
                for column, bound in (
                    ("upstream bytes / image", 1.01),
                    ("downloads / contents", 1.0),
                )
            ),
        ],
        [
            f"The upstream's link is shared: {RATE / 1e6:.0f} MB/s, since all nodes, Redis, "
            "SeaweedFS, the clients and the upstream run on this one machine.",
            "What is above 1.00 of the bytes is what an upstream has sent of a connection that was "
            "cut, when the rest came by several.",
            "The three are a fleet with Redis, and put what they fetch into SeaweedFS meanwhile; "
            "the one alone has neither.",
        ],
    )
