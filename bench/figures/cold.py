"""A big blob that nobody has asked for before, over plain HTTP."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

from ..corpus import Blob, Corpus
from ..load.keeping import keep
from ..load.reading import read
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server, Upstream

TITLE = "a cold blob of 512 MiB, a fresh digest each time"
SHAPED = 125e6
LEAST = "limit: receive, hash, write"
DIRECT = "upstream, direct"
SECONDS, CPU = "seconds", "server's CPU s/GB"
NOTES = [
    "The mirror proves the digest before the last bytes go out, and syncs the blob (fdatasync) "
    "before it is in its store, which no client waits for; docker-registry does neither, but "
    "fetches it a second time, to keep it: time is the client's, CPU seconds are all that a server "
    "uses until it is done. `durability: none` leaves out the sync.",
    f"{LEAST}: one thread receives, another hashes and writes; no server, no fdatasync.",
]


def measure(house: House, scale: Scale) -> Result:
    blobs = Corpus(house.folder, scale.blob).blobs(scale.blob)
    fast = Fetching(house, blobs, house.upstream())
    fast.compare(scale.rounds, "one connection, upstream over loopback", fast.all_servers())
    slow = Fetching(house, blobs, house.upstream(rate=SHAPED))
    slow.compare(scale.long_rounds, "one connection, upstream over 125 MB/s", slow.all_servers())
    seconds, shaped = (fast.table, SECONDS), (slow.table, SECONDS)
    return Result(
        [fast.table, slow.table],
        [
            Target(
                "fast link: time / direct",
                fast.table.ratio(SECONDS, "mirror", DIRECT),
                2.2,
                of=seconds,
            ),
            Target(
                "fast link: time / docker-registry's",
                fast.table.ratio(SECONDS, "mirror", "docker-registry"),
                1.0,
                of=seconds,
            ),
            Target(
                "fast link: CPU s/GB", fast.table.median("mirror", CPU), 1.5, of=(fast.table, CPU)
            ),
            Target(
                "125 MB/s: time / direct",
                slow.table.ratio(SECONDS, "mirror", DIRECT),
                1.03,
                of=shaped,
            ),
        ],
        NOTES,
    )


class Fetching:
    """Fresh blobs of one upstream, by everybody in turn: one at a time, or several at once."""

    def __init__(self, house: House, blobs: Iterator[Blob], upstream: Upstream) -> None:
        self._house = house
        self._blobs = blobs
        self._upstream = upstream
        self._gone: list[Blob] = []
        self.table = Table("")

    def servers(self) -> list[Server]:
        house, upstream = self._house, self._upstream
        return [upstream, house.mirror(upstream), house.docker_registry(upstream)]

    def all_servers(self) -> list[Server]:
        name = "mirror, durability: none"
        return [*self.servers(), self._house.mirror(self._upstream, name, durability="none")]

    def compare(self, rounds: int, title: str, servers: list[Server], at_once: int = 1) -> Table:
        """The samples of all; where it is one at a time, of the least that can be done, too, and
        in the end one blob of each server is proven, as it comes and from its cache."""
        self.table = Table(title)
        samples = {server.name: self._fetch(server, at_once) for server in servers}
        if at_once == 1:
            samples[LEAST] = self._least
        interleave(rounds, samples)
        for server in servers if at_once == 1 else ():
            (last,) = self._fresh(1)
            server.prove(last.path, last.digest)
            server.prove(last.path, last.digest)
        return self.table

    def _fresh(self, count: int) -> list[Blob]:
        for blob in self._gone:  # memory that was never used before is dear to a virtual machine
            self._house.forget(blob.digest)
        self._gone = list(itertools.islice(self._blobs, count))
        self._upstream.offer(self._gone)
        os.sync()  # what was written before is not to be paid for now
        return self._gone

    def _fetch(self, server: Server, at_once: int) -> Callable[[], None]:
        def sample() -> None:
            blobs = self._fresh(at_once)
            with server.cost() as cost:
                found = read(server, blobs, at_once, copy=True)
                server.program.wait_until_idle(every=0.5)  # docker-registry is not done yet
            row, table = server.name, self.table
            table.add(row, SECONDS, found.seconds)
            table.add(row, "GB/s", found.speed)
            if at_once == 1:
                table.add(row, "first byte, ms", found.first[0] * 1000)
            table.add(row, CPU, cost.cpu / found.bytes * 1e9)
            table.add(row, "peak memory, MB", cost.memory / 1e6)

        return sample

    def _least(self) -> None:
        (blob,) = self._fresh(1)
        seconds, used = keep(self._upstream, blob, self._house.folder / "kept")
        self.table.add(LEAST, SECONDS, seconds)
        self.table.add(LEAST, "GB/s", blob.size / seconds / 1e9)
        self.table.add(LEAST, CPU, used / blob.size * 1e9)
