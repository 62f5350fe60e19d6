"""Small answers, many a second."""

from __future__ import annotations

from collections.abc import Callable

from ..corpus import Corpus
from ..load.asking import Asking, ask, wrk
from ..programs import Unavailable
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "cached manifests and configs, 32 connections"
CONNECTIONS = 32
DIGEST, BY_TAG, CONFIG = "by digest", "by tag, fresh", "a config by digest"
HEAD, UNCHANGED, NEW = "HEAD by digest", "If-None-Match", "by digest, a new connection each"


def measure(house: House, scale: Scale) -> Result:
    corpus = Corpus(house.folder, 1)
    upstream = house.upstream()
    upstream.offer([corpus.config], corpus.manifest)
    nginx = house.nginx(corpus, workers=1)
    mirror, registry = house.mirror(upstream), house.docker_registry(upstream)
    servers, notes = [mirror, nginx, registry], list[str]()
    try:
        servers.append(house.drayage(upstream))
    except Unavailable as error:
        notes.append(f"Not measured: drayage. {error}")
    manifest = corpus.manifest
    for server in servers:
        server.prove(manifest.tag_path, manifest.digest)
        server.prove(manifest.path, manifest.digest)
        server.prove(corpus.config.path, corpus.config.digest)
    rate, cpu = Table("requests/s"), Table("server's CPU µs a request")
    slowest, memory = Table("99 % of the answers within, ms"), Table("peak memory, MB")
    client = Table("share of a core that the client used: near 1 it is what was measured")

    def plain(server: Server, path: str, headers: dict[str, str] | None = None) -> Asking:
        return wrk(server, path, CONNECTIONS, scale.seconds, headers)

    def unchanged(server: Server) -> Asking | None:
        validator = server.ask(manifest.path, "HEAD")[1].get("etag")
        if validator is None:  # it knows no conditions
            return None
        headers = {"If-None-Match": validator}
        return wrk(server, manifest.path, CONNECTIONS, scale.seconds, headers, expect=304)

    kinds: dict[str, Callable[[Server], Asking | None]] = {
        DIGEST: lambda server: plain(server, manifest.path),
        BY_TAG: lambda server: plain(server, manifest.tag_path),
        CONFIG: lambda server: plain(server, corpus.config.path),
        HEAD: lambda server: ask(server, manifest.path, CONNECTIONS, scale.seconds),
        UNCHANGED: unchanged,
        NEW: lambda server: plain(server, manifest.path, {"Connection": "close"}),
    }

    def asking(server: Server, kind: str) -> Callable[[], None]:
        def sample() -> None:
            with server.cost() as cost:
                found = kinds[kind](server)
            if found is None:
                return
            rate.add(server.name, kind, found.rate)
            cpu.add(server.name, kind, cost.cpu / found.requests * 1e6)
            memory.add(server.name, kind, cost.memory / 1e6)
            client.add(server.name, kind, found.busy)
            if found.p99 is not None:
                slowest.add(server.name, kind, found.p99)

        return sample

    for kind in kinds:
        interleave(scale.rounds, {server.name: asking(server, kind) for server in servers})

    def against(peer: str, kind: str, bound: float) -> Target:
        ratio = rate.ratio(kind, "mirror", peer)
        promise = f"{kind}: requests/s / {peer.partition(',')[0]}'s"
        return Target(promise, ratio, bound, at_least=True, of=(rate, kind))

    def to_digest(kind: str, bound: float) -> Target:
        own, plain_rate = rate.median("mirror", kind), rate.median("mirror", DIGEST)
        ratio = own / plain_rate if own and plain_rate else None
        promise = f"{kind}: requests/s / by digest"
        return Target(promise, ratio, bound, at_least=True, of=(rate, kind))

    return Result(
        [rate, cpu, slowest, memory, client],
        [
            against(nginx.name, DIGEST, 1.1),
            against("drayage", DIGEST, 2.0),
            to_digest(BY_TAG, 0.9),
            to_digest(CONFIG, 0.9),
            to_digest(UNCHANGED, 1.0),
            to_digest(HEAD, 1.0),
            against(nginx.name, NEW, 0.8),
        ],
        [
            f"The manifest has {len(manifest.data)} bytes. The mirror counts and logs each "
            "request; the others log none. nginx and drayage have one thread for their event loop, "
            "docker-registry uses every core; by tag it asks its upstream each time. drayage knows "
            "no If-None-Match.",
            *notes,
        ],
    )
