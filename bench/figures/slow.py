"""A thousand slow readers, and a manifest hit beside them."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..corpus import Corpus
from ..load.probing import percentile, probe
from ..load.slow_reading import SlowReaders
from ..programs import allow_descriptors
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "1,000 readers at 100 kB/s, and a manifest hit beside them"
READERS = 1000
RATE = 100e3
MEMORY, BESIDE = "memory (PSS), MB", "beside / alone"
RATIO = f"p50 {BESIDE}"
_SETTLING = 2.0  # seconds for a thousand connections to be made


def measure(house: House, scale: Scale) -> Result:
    allow_descriptors()
    corpus = Corpus(house.folder, scale.blob)
    blob = next(corpus.blobs(scale.blob))
    upstream = house.upstream()
    upstream.offer([blob], corpus.manifest)
    servers = {"nginx": house.nginx(corpus, [blob], workers=2)}
    for workers in (1, 2):
        name = f"mirror, {workers} worker{'s' * (workers > 1)}"
        servers[name] = house.mirror(upstream, name, workers=workers)
    table = Table("a manifest hit, ms")
    path = corpus.manifest.path
    for server in servers.values():
        server.prove(blob.path, blob.digest)
        server.prove(path, corpus.manifest.digest)

    def measured(server: Server) -> Callable[[], None]:
        def sample() -> None:
            before = probe(server, path, scale.seconds)
            with server.cost() as cost:
                readers = SlowReaders(server, blob, READERS, RATE, scale.slow_seconds)
                readers.go()
                time.sleep(_SETTLING)
                beside = probe(server, path, scale.slow_seconds - _SETTLING)
                memory = server.program.memory().own
                speed = readers.speed()
            for point in (50, 99):
                alone, then = percentile(before, point), percentile(beside, point)
                table.add(server.name, f"p{point} alone", alone)
                table.add(server.name, f"p{point} beside", then)
                table.add(server.name, f"p{point} {BESIDE}", then / alone)
            table.add(server.name, "MB/s of all readers", speed / 1e6)
            table.add(server.name, MEMORY, memory / 1e6)
            table.add(
                server.name, "server's CPU s/GB", cost.cpu / (speed * scale.slow_seconds) * 1e9
            )

        return sample

    interleave(scale.rounds, {name: measured(server) for name, server in servers.items()})
    mirrors = [name for name in servers if name != "nginx"]
    return Result(
        [table],
        [
            target
            for name in mirrors
            for target in (
                Target(
                    f"{name}: memory, MB",
                    table.median(name, MEMORY),
                    160,
                    of=(table, MEMORY),
                    row=name,
                ),
                Target(
                    f"{name}: p50 beside / alone",
                    table.median(name, RATIO),
                    3,
                    of=(table, RATIO),
                    row=name,
                ),
            )
        ],
        [
            "Memory: near the end of it, while all of them read. PSS counts once what processes "
            "share: resident memory would count what workers have by their fork for each of them."
        ],
    )
