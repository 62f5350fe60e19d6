"""What is cached already, over TLS at the server's own port."""

from __future__ import annotations

from collections.abc import Callable

from ..corpus import Corpus
from ..load.asking import wrk
from ..load.reading import read
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "a warm blob of 512 MiB, and a manifest, over TLS 1.3"
CONNECTIONS = {1: "1 connection", 8: "8 connections"}
ASKING = 16
KEPT, NEW = "kept connections", "a new connection each"


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, scale.blob)
    blob, manifest = next(corpus.blobs(scale.blob)), corpus.manifest
    upstream = house.upstream()
    upstream.offer([blob], manifest)
    mirror = house.mirror(upstream, tls=True)
    nginx = house.nginx(corpus, [blob], workers=2, tls=True)
    servers = (mirror, nginx)
    for server in servers:
        server.prove(blob.path, blob.digest)
        server.prove(manifest.path, manifest.digest)
    speed, cpu = Table("a blob: GB/s"), Table("a blob: server's CPU seconds a GB")
    rate = Table(f"a manifest, {ASKING} clients: requests/s")
    cost_each = Table(f"a manifest, {ASKING} clients: server's CPU µs a request")

    def reading(server: Server, connections: int) -> Callable[[], None]:
        def sample() -> None:
            with server.cost() as cost:
                found = read(server, blob, connections, processes=2, seconds=scale.seconds)
            speed.add(server.name, CONNECTIONS[connections], found.speed)
            cpu.add(server.name, CONNECTIONS[connections], cost.cpu / found.bytes * 1e9)

        return sample

    def asking(server: Server, kind: str) -> Callable[[], None]:
        headers = {"Connection": "close"} if kind == NEW else {}

        def sample() -> None:
            with server.cost() as cost:
                found = wrk(server, manifest.path, ASKING, scale.seconds, headers)
            rate.add(server.name, kind, found.rate)
            cost_each.add(server.name, kind, cost.cpu / found.requests * 1e6)

        return sample

    for connections in CONNECTIONS:
        interleave(scale.rounds, {server.name: reading(server, connections) for server in servers})
    for kind in (KEPT, NEW):
        interleave(scale.rounds, {server.name: asking(server, kind) for server in servers})
    return Result(
        [speed, cpu, rate, cost_each],
        [
            Target(
                f"{column}: GB/s / nginx's",
                speed.ratio(column, mirror.name, nginx.name),
                0.8,
                at_least=True,
                of=(speed, column),
            )
            for column in CONNECTIONS.values()
        ],
        [
            "Both show the same certificate, and speak TLS_AES_256_GCM_SHA384. Clients decipher "
            "on the same cores, at about what enciphering costs: so speeds are nearer to one "
            "another than CPU seconds. The kernel's own TLS (kTLS) is in neither.",
        ],
    )
