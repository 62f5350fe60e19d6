"""One cached blob in eight parts at once, each asked for without an end and cut by the client."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from ..corpus import Corpus
from ..load.ranging import take
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "a warm blob of 512 MiB as 8 parallel open-ended ranges, each cut by the client"
PARTS = 8
SPEED, CPU = "GB/s", "server's CPU s/GB"
TAKEN, DISK = "taken from the file / blob", "read from the disk / blob, when it is not in memory"


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, scale.blob)
    blob = next(corpus.blobs(scale.blob))
    upstream = house.upstream()
    upstream.offer([blob])
    servers = (
        house.mirror(upstream),
        house.nginx(corpus, [blob], workers=2),
        house.docker_registry(upstream),
    )
    for server in servers:
        server.prove(blob.path, blob.digest)
    table = Table(f"{PARTS} connections")

    def warm(server: Server) -> Callable[[], None]:
        def sample() -> None:
            with server.cost() as cost:
                found = take(server, blob, PARTS, scale.seconds)
            table.add(server.name, SPEED, found.speed)
            table.add(server.name, CPU, cost.cpu / found.bytes * 1e9)
            table.add(server.name, TAKEN, cost.taken / found.bytes)

        return sample

    def from_disk(server: Server) -> None:
        _forget(server, blob.size)
        with server.cost() as cost:
            found = take(server, blob, PARTS, 0)
        table.add(server.name, DISK, cost.disk / found.bytes)

    interleave(scale.rounds, {server.name: warm(server) for server in servers})
    os.sync()  # what was never written cannot be dropped
    interleave(scale.rounds, {server.name: partial(from_disk, server) for server in servers})
    mirror, nginx, _ = servers
    ratio = table.ratio(SPEED, mirror.name, nginx.name)
    return Result(
        [table],
        [
            Target("GB/s / nginx's", ratio, 0.9, at_least=True, of=(table, SPEED)),
            Target(TAKEN, table.median(mirror.name, TAKEN), 1.1, of=(table, TAKEN)),
            Target(DISK, table.median(mirror.name, DISK), 1.1, of=(table, DISK)),
        ],
        [
            "Taken from the file: what the server's processes read or sent from it, in memory or "
            "not (rchar in /proc/PID/io, which counts sendfile). It is more than the blob by what "
            "was in the sockets when the client closed them. Read from the disk (read_bytes): once "
            "the file was dropped from memory; with what the kernel read ahead.",
        ],
    )


def _forget(server: Server, size: int) -> None:
    """Drops the server's files of this size from memory."""
    for path in server.program.folder.rglob("*"):
        if path.is_file() and path.stat().st_size == size:
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
