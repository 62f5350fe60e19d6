"""What a hit and the process cost as the cache and the connections grow."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

from ..ballast import SIZE, Ballast
from ..corpus import Corpus
from ..load.idling import idle_connections
from ..load.probing import percentile, probe, probe_each
from ..plots import Line, Lines
from ..programs import allow_descriptors
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "cost growth: cached blobs, and connections that are kept open"
P50, P99, CPU, MEMORY = "hit, ms: p50", "p99", "server's CPU µs a hit", "memory (PSS), MiB"
_SEED = 13


def measure(house: House, scale: Scale) -> Result:
    allow_descriptors()
    corpus = Corpus(house.folder, 1)
    upstream = house.upstream()
    upstream.offer([corpus.config], corpus.manifest)
    blobs = _blobs(house, upstream, scale)
    mirror, nginx = house.mirror(upstream), house.nginx(corpus, workers=1)
    for server in (mirror, nginx):
        server.prove(corpus.manifest.path, corpus.manifest.digest)
    connections = _connections((mirror, nginx), corpus.manifest.path, scale)
    tables = [blobs, *connections.values()]
    few, many = str(scale.blobs[1]), str(scale.blobs[-1])
    one, most = str(scale.connections[0]), str(scale.connections[-1])
    own = connections[mirror.name]
    each = (_more(own, most, one) or 0) * 1024 / scale.connections[-1]
    return Result(
        tables,
        [
            Target(f"{many} blobs: p50 / at {few}", blobs.ratio(P50, many, few), 1.25),
            Target(f"{many} blobs: CPU / at {few}", blobs.ratio(CPU, many, few), 1.25),
            Target(f"{many} blobs: MiB more than at {few}", _more(blobs, many, few), 16),
            Target(f"{most} connections: p50 / at {one}", own.ratio(P50, most, one), 1.25),
            Target(f"{most} connections: KiB for each", each, 32),
        ],
        [
            f"Blobs: a mirror for each number, and {scale.hits:,} of them at random over one "
            f"connection. They are names of a few files of {SIZE} bytes, put into the store behind "
            f"the mirror's back; recorded and shown as if pulled. Of {scale.blobs[0]:,} all are "
            "asked for again within seconds, and answered from the response cache: others are "
            "compared.",
            "Connections: each has had one answer, and is idle; a manifest is asked for on one "
            "more, every 2 ms.",
        ],
        plots=[
            Lines(f"{words}, by {x}", x, unit, _lines(tables, column))
            for x, tables in (
                ("cached blobs", {mirror.name: blobs}),
                ("idle connections", connections),
            )
            for words, unit, column in (
                ("The median of a hit", "ms", P50),
                ("99 % of hits", "ms", P99),
                ("Memory", "MiB", MEMORY),
            )
        ],
    )


def _blobs(house: House, upstream: Server, scale: Scale) -> Table:
    table, chance = Table("cached blobs"), random.Random(_SEED)

    def hits(mirror: Server, ballast: Ballast, count: int) -> Callable[[], None]:
        def sample() -> None:
            # Each once: what is asked for again is from the response cache.
            wanted = ballast.blobs(chance.sample(range(count), scale.hits))
            with mirror.cost() as cost:
                took = probe_each(mirror, wanted)
            table.add(str(count), P50, percentile(took, 50))
            table.add(str(count), P99, percentile(took, 99))
            table.add(str(count), CPU, cost.cpu / len(wanted) * 1e6)
            table.add(str(count), MEMORY, mirror.program.memory().own / 2**20)

        return sample

    samples = {}
    for count in scale.blobs:
        mirror = house.mirror(upstream)
        ballast = Ballast(mirror)
        ballast.grow(count)
        samples[str(count)] = hits(mirror, ballast, count)
    os.sync()
    interleave(scale.rounds, samples)
    return table


def _connections(servers: Sequence[Server], path: str, scale: Scale) -> dict[str, Table]:
    tables = {server.name: Table(f"idle connections to {server.name}") for server in servers}

    def beside(server: Server, count: int) -> Callable[[], None]:
        def sample() -> None:
            with idle_connections(server, path, count):
                took = probe(server, path, scale.seconds / 2)
                memory = server.program.memory().own
            tables[server.name].add(str(count), P50, percentile(took, 50))
            tables[server.name].add(str(count), P99, percentile(took, 99))
            tables[server.name].add(str(count), MEMORY, memory / 2**20)

        return sample

    for count in scale.connections:  # what they leave behind must not be in those with fewer
        interleave(scale.long_rounds, {each.name: beside(each, count) for each in servers})
    return tables


def _more(table: Table, row: str, other: str) -> float | None:
    upper, lower = table.median(row, MEMORY), table.median(other, MEMORY)
    return None if upper is None or lower is None else upper - lower


def _lines(tables: dict[str, Table], column: str) -> dict[str, Line]:
    return {
        name: [(float(row), cells[column]) for row, cells in table.cells.items()]
        for name, table in tables.items()
    }
