"""How long the first byte of what nobody has asked for before takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from statistics import median

from ..corpus import Corpus
from ..load.probing import first_byte
from ..results import Result, Table, Target, interleave
from ..scale import MIB, Scale
from ..servers import House, Server
from .cold import DIRECT

TITLE = "the first byte of a miss of 4 MiB, from an upstream that needs 20 ms to answer"
SIZE = 4 * MIB
DELAY = 0.02
BEYOND = "beyond direct, ms"


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, SIZE)
    plain, tls = (_first_bytes(house, corpus, scale, tls) for tls in (False, True))
    return Result(
        [plain, tls],
        [
            Target(
                f"{link}: first byte of a miss − upstream's own, ms",
                table.median("mirror", BEYOND),
                3.0,
                of=(table, BEYOND),
            )
            for link, table in (("plain HTTP", plain), ("TLS", tls))
        ],
        [
            "Asked one after the other, so that a connection to the upstream is there, where a "
            "server keeps one. Who asks directly has connected before it asks, with TLS too."
        ],
    )


def _first_bytes(house: House, corpus: Corpus, scale: Scale, tls: bool) -> Table:
    link = "TLS" if tls else "plain HTTP"
    table = Table(f"{link}: medians of {scale.first_bytes}")
    upstream, blobs = house.upstream(delay=DELAY, tls=tls), corpus.blobs(SIZE)
    servers: list[Server] = [upstream, house.mirror(upstream), house.docker_registry(upstream)]

    def first(server: Server) -> Callable[[], None]:
        def sample() -> None:
            wanted = list(itertools.islice(blobs, scale.first_bytes))
            upstream.offer(wanted)
            with server.cost() as cost:
                took = median(first_byte(server, blob) for blob in wanted)
                server.program.wait_until_idle(every=0.5)
            table.add(server.name, "ms", took)
            table.add(server.name, "server's CPU ms a miss", cost.cpu / len(wanted) * 1000)

        return sample

    interleave(scale.rounds, {server.name: first(server) for server in servers})
    for name, cells in table.cells.items():
        for own, direct in zip(cells["ms"], table.cells[DIRECT]["ms"], strict=True):
            if name != DIRECT:
                cells.setdefault(BEYOND, []).append(own - direct)
    return table
