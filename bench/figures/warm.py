"""A big blob that is cached already."""

from __future__ import annotations

from collections.abc import Callable

from ..corpus import Corpus
from ..load.reading import read
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "a warm blob of 512 MiB"
CONNECTIONS = (1, 8, 64)


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, scale.blob)
    blob = next(corpus.blobs(scale.blob))
    upstream = house.upstream()
    upstream.offer([blob])
    mirror = house.mirror(upstream)
    nginx = house.nginx(corpus, [blob], workers=2)
    registry = house.docker_registry(upstream)
    for server in (mirror, nginx, registry):
        server.prove(blob.path, blob.digest)
    speed, cpu, memory = Table("GB/s"), Table("server's CPU seconds a GB"), Table("peak memory, MB")

    def reading(server: Server, connections: int) -> Callable[[], None]:
        column = f"{connections} connection{'s' * (connections > 1)}"

        def sample() -> None:
            with server.cost() as cost:
                found = read(server, blob, connections, processes=2, seconds=scale.seconds)
            speed.add(server.name, column, found.speed)
            cpu.add(server.name, column, cost.cpu / found.bytes * 1e9)
            memory.add(server.name, column, cost.memory / 1e6)

        return sample

    for connections in CONNECTIONS:
        interleave(
            scale.rounds,
            {server.name: reading(server, connections) for server in (mirror, nginx, registry)},
        )
    one, many = "1 connection", [f"{count} connections" for count in CONNECTIONS[1:]]
    return Result(
        [speed, cpu, memory],
        [
            _speed(speed, one, nginx, 1.0),
            _speed(speed, one, registry, 2.0),
            *(_speed(speed, each, nginx, 0.9) for each in many),
            *(
                Target(
                    f"{each}: CPU s/GB / nginx's",
                    cpu.ratio(each, "mirror", nginx.name),
                    1.1,
                    of=(cpu, each),
                )
                for each in (one, *many)
            ),
        ],
    )


def _speed(table: Table, column: str, peer: Server, bound: float) -> Target:
    ratio = table.ratio(column, "mirror", peer.name)
    promise = f"{column}: GB/s / {peer.name.partition(',')[0]}'s"
    return Target(promise, ratio, bound, at_least=True, of=(table, column))
