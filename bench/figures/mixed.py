"""Small answers while big ones are under way."""

from __future__ import annotations

from collections.abc import Callable

from ..corpus import Corpus
from ..load.probing import percentile, probe
from ..load.reading import Readers
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "a manifest hit while blobs of 512 MiB are read"
STREAMS = (8, 64)


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, scale.blob)
    blob = next(corpus.blobs(scale.blob))
    upstream = house.upstream()
    upstream.offer([blob], corpus.manifest)
    mirror, nginx = house.mirror(upstream), house.nginx(corpus, [blob], workers=2)
    manifest = corpus.manifest
    for server in (mirror, nginx):
        server.prove(blob.path, blob.digest)
        server.prove(manifest.path, manifest.digest)
    table = Table("milliseconds of a manifest hit; GB/s of the streams beside it")

    def alone(server: Server) -> Callable[[], None]:
        def sample() -> None:
            took = probe(server, manifest.path, scale.seconds)
            table.add(server.name, "alone: p50", percentile(took, 50))
            table.add(server.name, "p99", percentile(took, 99))

        return sample

    def beside(server: Server, streams: int) -> Callable[[], None]:
        def sample() -> None:
            readers = Readers(server, blob, streams, processes=2, seconds=scale.seconds + 0.5)
            readers.go()
            took = probe(server, manifest.path, scale.seconds)
            reading = readers.reading()
            table.add(server.name, f"{streams} streams: p50", percentile(took, 50))
            table.add(server.name, f"{streams} streams: p99", percentile(took, 99))
            table.add(server.name, f"{streams} streams: GB/s", reading.speed)

        return sample

    interleave(scale.rounds, {server.name: alone(server) for server in (mirror, nginx)})
    targets = []
    for streams in STREAMS:
        samples = {server.name: beside(server, streams) for server in (mirror, nginx)}
        interleave(scale.rounds, samples)
        for point, bound in (("p50", 0.2), ("p99", 0.5)):
            column = f"{streams} streams: {point}"
            targets.append(
                Target(
                    f"{column} / nginx's",
                    table.ratio(column, "mirror", nginx.name),
                    bound,
                    of=(table, column),
                )
            )
    worst = f"{STREAMS[-1]} streams: p99"
    targets.append(Target(f"{worst}, ms", table.median("mirror", worst), 5.0, of=(table, worst)))
    return Result([table], targets)
