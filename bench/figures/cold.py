"""A big blob that nobody has asked for before."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from statistics import median

from ..corpus import Blob, Corpus
from ..load.keeping import keep
from ..load.probing import first_byte
from ..load.reading import read
from ..results import Result, Table, Target, interleave
from ..scale import MIB, Scale
from ..servers import House, Server, Upstream

TITLE = "a cold blob of 512 MiB, a fresh digest each time"
SHAPED = 125e6
LEAST = "limit: receive, hash, write"
DIRECT = "upstream, direct"


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, scale.blob)
    blobs = corpus.blobs(scale.blob)
    fast = _over(house, blobs, scale.rounds, None, "loopback")
    shaped = _over(house, blobs, scale.long_rounds, SHAPED, "125 MB/s")
    first = _first_bytes(house, corpus, scale)
    return Result(
        [fast, shaped, first],
        [
            Target(
                "fast link: time / direct",
                fast.ratio("seconds", "mirror", DIRECT),
                2.5,
                of=(fast, "seconds"),
            ),
            Target(
                "fast link: time / docker-registry's",
                fast.ratio("seconds", "mirror", "docker-registry"),
                1.0,
                of=(fast, "seconds"),
            ),
            Target(
                "fast link: CPU s/GB",
                fast.median("mirror", "server's CPU s/GB"),
                1.5,
                of=(fast, "server's CPU s/GB"),
            ),
            Target(
                "125 MB/s: time / direct",
                shaped.ratio("seconds", "mirror", DIRECT),
                1.03,
                of=(shaped, "seconds"),
            ),
            Target(
                "first byte of a miss − upstream's own, ms",
                first.median("mirror", "beyond direct, ms"),
                5.0,
                of=(first, "beyond direct, ms"),
            ),
        ],
        [
            "The mirror proves the digest and puts the blob on the disk (fdatasync) before its "
            "last bytes go out; docker-registry does not. `durability: none` leaves out the disk.",
            f"{LEAST}: one thread, no server, no fdatasync.",
        ],
    )


def _over(house: House, blobs: Iterator[Blob], rounds: int, rate: float | None, link: str) -> Table:
    """One blob after the other over one link, by everybody in turn."""
    table = Table(f"one connection, upstream over {link}")
    upstream = house.upstream(rate=rate)

    gone = None

    def fresh() -> Blob:
        nonlocal gone
        if gone is not None:  # memory that was never used before is dear to a virtual machine
            house.forget(gone.digest)
        gone = blob = next(blobs)
        upstream.offer([blob])
        os.sync()  # what was written before is not to be paid for now
        return blob

    def fetch(server: Server) -> Callable[[], None]:
        def sample() -> None:
            blob = fresh()
            with server.cost() as cost:
                found = read(server, blob, copy=True)
            table.add(server.name, "seconds", found.seconds)
            table.add(server.name, "first byte, ms", found.first[0] * 1000)
            table.add(server.name, "server's CPU s/GB", cost.cpu / blob.size * 1e9)
            table.add(server.name, "peak memory, MB", cost.memory / 1e6)

        return sample

    def least() -> None:
        blob = fresh()
        seconds, used = keep(upstream, blob, house.folder / "kept")
        table.add(LEAST, "seconds", seconds)
        table.add(LEAST, "server's CPU s/GB", used / blob.size * 1e9)

    servers = _servers(house, upstream)
    interleave(rounds, {server.name: fetch(server) for server in servers} | {LEAST: least})
    for server in servers:
        last = fresh()
        server.prove(last.path, last.digest)
        server.prove(last.path, last.digest)  # and from the cache
    return table


def _servers(house: House, upstream: Upstream) -> list[Server]:
    return [
        upstream,
        house.mirror(upstream),
        house.mirror(upstream, "mirror, durability: none", durability="none"),
        house.docker_registry(upstream),
    ]


def _first_bytes(house: House, corpus: Corpus, scale: Scale) -> Table:
    table = Table(f"first byte of a miss of 4 MiB, medians of {scale.first_bytes}")
    upstream, blobs = house.upstream(delay=0.02), corpus.blobs(4 * MIB)
    servers = _servers(house, upstream)

    def first(server: Server) -> Callable[[], None]:
        def sample() -> None:
            wanted = list(itertools.islice(blobs, scale.first_bytes))
            upstream.offer(wanted)
            table.add(server.name, "ms", median(first_byte(server, blob) for blob in wanted))

        return sample

    interleave(scale.rounds, {server.name: first(server) for server in servers})
    for name, cells in table.cells.items():
        for own, direct in zip(cells["ms"], table.cells[DIRECT]["ms"], strict=True):
            if name != DIRECT:
                cells.setdefault("beyond direct, ms", []).append(own - direct)
    return table
