"""From the start of the program to its first answer, and the memory that it has when idle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from ..ballast import Ballast
from ..corpus import Corpus, small_images
from ..load.probing import percentile, probe
from ..load.pulling import pull
from ..programs import ROOT, Unavailable
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "start to first answer with 100,000 and 1,000,000 blobs in the cache, and memory"
FIRST, MEMORY = "first answer, s", "idle: memory (PSS), MiB"
TWICE, AGAIN = "asked twice: PSS, MiB", "asked six times more: PSS, MiB"
CLIENTS = 32
BLOBS, MANY = 100_000, 1_000_000
_IMPORTS = "import aiohttp.web, apsw, prometheus_client, structlog"


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, 1)
    upstream = house.upstream()
    upstream.offer([corpus.config], corpus.manifest)
    registry, mirror = house.docker_registry(upstream), house.mirror(upstream, durability="none")
    workers = house.mirror(upstream, "mirror, 2 workers", workers=2, durability="none")
    many = min(MANY, scale.blobs[-1])
    full = house.mirror(upstream, f"mirror, {many:,} blobs", durability="none")
    servers, notes = [mirror, workers, full, registry], list[str]()
    try:
        servers.append(house.drayage(upstream))
    except Unavailable as error:
        notes.append(f"Not measured: drayage. {error}")
    for server in servers:
        server.prove(corpus.manifest.tag_path, corpus.manifest.digest)
    blobs = min(BLOBS, scale.blobs[-1])
    for server in (mirror, workers):
        Ballast(server).grow(blobs)
    Ballast(full).grow(many)
    table = Table(f"mirrors with {blobs:,} blobs, the others with one manifest")
    tags = Table(f"{scale.tags:,} tags, each with a manifest of its own")

    def start_again(server: Server) -> float:
        server.program.stop()
        began = time.monotonic()
        server.program.start_again()
        server.program.wait_until(lambda: _answers(server, corpus), 60)
        return time.monotonic() - began

    def starting(server: Server) -> Callable[[], None]:
        def sample() -> None:
            table.add(server.name, FIRST, start_again(server))
            took = probe(server, corpus.manifest.path, scale.seconds / 2)
            table.add(server.name, "a hit just then, ms: p50", percentile(took, 50))
            table.add(server.name, "p99", percentile(took, 99))

        return sample

    interleave(
        scale.rounds,
        {server.name: starting(server) for server in servers}
        | {"imports": lambda: table.add("limit: Python and its imports", FIRST, _imports())},
    )
    for server in servers:
        start_again(server)
        server.program.wait_until_idle()
        memory = server.program.memory()
        table.add(server.name, MEMORY, memory.own / 2**20)
        table.add(server.name, "RSS, MiB", memory.resident / 2**20)
        table.add(server.name, "CPU s until it is idle", server.program.cpu())
    images = small_images(scale.tags)
    upstream.offer([], *(image.index for image in images))
    pulls = [image.pull[:1] for image in images]
    for server in (full, registry):  # which asks its upstream for each: minutes
        servers.remove(server)
        server.program.stop()
    for server in servers:
        idle = server.program.memory().own
        for column, times in ((TWICE, 2), (AGAIN, 6)):
            for _ in range(times):
                pull(server, pulls, CLIENTS)
            tags.add(server.name, column, server.program.memory().own / 2**20)
        more = server.program.memory().own - idle
        tags.add(server.name, "more than before, KiB a tag", more / 2**10 / scale.tags)
    before = tags.median(mirror.name, TWICE)
    grown = tags.median(mirror.name, AGAIN)
    again = grown / before if grown and before else None
    return Result(
        [table, tags],
        [
            Target(FIRST, table.median(mirror.name, FIRST), 0.6, of=(table, FIRST)),
            Target(f"{many:,} blobs: {FIRST}", table.median(full.name, FIRST), 0.6),
            Target(MEMORY, table.median(mirror.name, MEMORY), 45, of=(table, MEMORY)),
            Target("hot tags: PSS, MiB", grown, 120, of=(tags, AGAIN)),
            Target("hot tags: PSS, asked six times more / twice", again, 1.05),
        ],
        [
            "The first answer is a cached manifest by its tag. PSS counts once what processes "
            "share. The blobs are names of one file of 4 KiB, put into the store behind the "
            "mirror's back; at each start it looks whether every one of them is there.",
            *notes,
        ],
    )


def _answers(server: Server, corpus: Corpus) -> bool:
    try:
        return server.ask(corpus.manifest.tag_path)[2] == corpus.manifest.data
    except OSError:
        return False


def _imports() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, check=True)
    return time.monotonic() - began
