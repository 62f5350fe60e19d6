"""How fast the clients of the other figures are, and the upstream that feeds them."""

from __future__ import annotations

from collections.abc import Callable

from ..corpus import Corpus
from ..load.asking import ask, wrk
from ..load.reading import read
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "the clients' and the upstream's own limits"


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, scale.blob)
    blob = next(corpus.blobs(scale.blob))
    upstream = house.upstream()
    upstream.offer([blob])
    nginx = house.nginx(corpus, [blob], workers=2)
    small = house.nginx(corpus, workers=1)
    bodies, asks = Table("big bodies"), Table("small answers, 32 connections, nginx with 1 worker")

    def reading(server: Server, connections: int, processes: int, copy: bool) -> Callable[[], None]:
        row = (
            f"{server.name}; {connections} connections, {processes} reading "
            f"{'process' if processes == 1 else 'processes'}, {'copied' if copy else 'discarded'}"
        )

        def sample() -> None:
            with server.cost() as cost:
                found = read(
                    server,
                    blob,
                    connections,
                    processes=processes,
                    seconds=scale.seconds,
                    copy=copy,
                )
            bodies.add(row, "GB/s", found.speed)
            bodies.add(row, "reader's CPU s/GB", found.cpu / found.bytes * 1e9)
            bodies.add(row, "server's CPU s/GB", cost.cpu / found.bytes * 1e9)

        return sample

    def asking(row: str, path: str, own: bool, headers: dict[str, str]) -> Callable[[], None]:
        def sample() -> None:
            with small.cost() as cost:
                found = (
                    ask(small, path, 32, scale.seconds, "GET")
                    if own
                    else wrk(small, path, 32, scale.seconds, headers)
                )
            asks.add(row, "requests/s", found.rate)
            asks.add(row, "server's CPU µs/request", cost.cpu / found.requests * 1e6)

        return sample

    samples = {}
    for connections, processes in ((1, 1), (8, 1), (8, 2), (64, 2)):
        for copy in (False, True):
            samples[f"{connections} {processes} {copy}"] = reading(
                nginx, connections, processes, copy
            )
    samples["upstream"] = reading(upstream, 1, 1, True)
    manifest = corpus.manifest.path
    samples["wrk"] = asking("wrk, a manifest", manifest, False, {})
    samples["own"] = asking("own loop, a manifest", manifest, True, {})
    samples["nothing"] = asking("wrk, an empty answer from memory", "/v2/", False, {})
    samples["new"] = asking(
        "wrk, a manifest, a new connection each", manifest, False, {"Connection": "close"}
    )
    interleave(scale.rounds, samples)
    return Result(
        [bodies, asks],
        [
            Target(
                "own loop / wrk, requests/s on one server",
                asks.ratio("requests/s", "own loop, a manifest", "wrk, a manifest"),
                0.9,
                at_least=True,
            )
        ],
        [
            "Discarded: the kernel drops what arrived (MSG_TRUNC), as `warm`, `mixed`, `herd` and "
            "`slow` read. Copied: as `cold` reads, since a client of a miss wants its bytes.",
        ],
    )
