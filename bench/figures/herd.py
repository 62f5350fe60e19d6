"""Many clients that want one cold blob, at random moments while it comes over a slow connection."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median

from ..corpus import Corpus
from ..load.reading import Readers, read
from ..programs import allow_descriptors
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "100 clients join one cold blob of 256 MiB over 50 MB/s"
CLIENTS = 100
RATE = 50e6
_SEED = 11


def measure(house: House, scale: Scale) -> Result:
    allow_descriptors()
    corpus = Corpus(house.folder, scale.herd_blob)
    blobs = corpus.blobs(scale.herd_blob)
    upstream = house.upstream(rate=RATE)
    ideal = scale.herd_blob / RATE
    table = Table(f"the connection alone takes {ideal:.2f} s")
    chance = random.Random(_SEED)

    def herd(server: Server) -> Callable[[], None]:
        def sample() -> None:
            blob = next(blobs)
            upstream.offer([blob])
            starts = [0.0, *(chance.uniform(0, ideal) for _ in range(CLIENTS - 1))]
            with server.cost() as cost, upstream.cost() as feeding:
                readers = Readers(server, blob, CLIENTS, processes=2, starts=starts)
                readers.go()
                found = readers.reading()
            downloads, sent = upstream.given(blob.digest)
            table.add(server.name, "downloads", downloads)
            table.add(server.name, "upstream bytes / blob", sent / blob.size)
            table.add(server.name, "last client's end / ideal", found.seconds / ideal)
            table.add(server.name, "first byte, ms: median", median(found.first) * 1000)
            table.add(server.name, "slowest first byte, ms", max(found.first) * 1000)
            table.add(server.name, "largest worker's memory, MB", cost.largest / 1e6)
            table.add(server.name, "server's CPU s", cost.cpu)
            table.add(server.name, "upstream's CPU s", feeding.cpu)

        return sample

    def direct() -> None:
        blob = next(blobs)
        upstream.offer([blob])
        found = read(upstream, blob)
        table.add("upstream, direct, 1 client", "last client's end / ideal", found.seconds / ideal)
        table.add("upstream, direct, 1 client", "first byte, ms: median", found.first[0] * 1000)

    samples = {}
    for workers in (1, 2):
        name = f"mirror, {workers} worker{'s' * (workers > 1)}"
        server = house.mirror(upstream, name, workers=workers)
        samples[name] = herd(server)
        blob = next(blobs)
        upstream.offer([blob])
        server.prove(blob.path, blob.digest)
    mirrors = list(samples)
    samples["direct"] = direct
    interleave(scale.rounds, samples)
    return Result([table], [target for name in mirrors for target in _targets(table, name)])


def _targets(table: Table, name: str) -> list[Target]:
    own_first = table.median(name, "first byte, ms: median")
    direct = table.median("upstream, direct, 1 client", "first byte, ms: median")
    beyond = own_first - direct if own_first is not None and direct is not None else None
    promises = {
        "downloads": 1.0,
        "upstream bytes / blob": 1.0,
        "last client's end / ideal": 1.2,
        "largest worker's memory, MB": 120,
    }
    return [
        *(
            Target(
                f"{name}: {column}",
                table.median(name, column),
                bound,
                of=(table, column),
                row=name,
            )
            for column, bound in promises.items()
        ),
        Target(f"{name}: median first byte beyond the upstream's, ms", beyond, 50.0),
    ]
