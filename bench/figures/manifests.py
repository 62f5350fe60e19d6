"""Small answers, many a second."""

from __future__ import annotations

from collections.abc import Callable

from ..corpus import Corpus
from ..load.asking import Asking, ask, wrk
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
    servers = (mirror, nginx, registry)
    manifest = corpus.manifest
    for server in servers:
        server.prove(manifest.tag_path, manifest.digest)
        server.prove(manifest.path, manifest.digest)
        server.prove(corpus.config.path, corpus.config.digest)
    rate, cpu = Table("requests/s"), Table("server's CPU µs a request")
    slowest, memory = Table("99 % of the answers within, ms"), Table("peak memory, MB")

    def plain(server: Server, path: str, headers: dict[str, str] | None = None) -> Asking:
        return wrk(server, path, CONNECTIONS, scale.seconds, headers)

    def unchanged(server: Server) -> Asking:
        validator = server.ask(manifest.path, "HEAD")[1]["etag"]
        headers = {"If-None-Match": validator}
        return wrk(server, manifest.path, CONNECTIONS, scale.seconds, headers, expect=304)

    kinds: dict[str, Callable[[Server], Asking]] = {
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
            rate.add(server.name, kind, found.rate)
            cpu.add(server.name, kind, cost.cpu / found.requests * 1e6)
            memory.add(server.name, kind, cost.memory / 1e6)
            if found.p99 is not None:
                slowest.add(server.name, kind, found.p99)

        return sample

    for kind in kinds:
        interleave(scale.rounds, {server.name: asking(server, kind) for server in servers})

    def to_nginx(kind: str) -> float | None:
        return rate.ratio(kind, "mirror", nginx.name)

    def to_digest(kind: str) -> float | None:
        own, plain_rate = rate.median("mirror", kind), rate.median("mirror", DIGEST)
        return own / plain_rate if own and plain_rate else None

    return Result(
        [rate, cpu, slowest, memory],
        [
            Target("by digest: requests/s / nginx's", to_nginx(DIGEST), 1.0, at_least=True),
            Target("by tag / by digest", to_digest(BY_TAG), 0.9, at_least=True),
            Target("a config / by digest", to_digest(CONFIG), 0.9, at_least=True),
            Target("If-None-Match / by digest", to_digest(UNCHANGED), 1.0, at_least=True),
            Target("HEAD / by digest", to_digest(HEAD), 1.0, at_least=True),
            Target(
                "a new connection each: requests/s / nginx's", to_nginx(NEW), 0.8, at_least=True
            ),
        ],
        [
            f"The manifest has {len(manifest.data)} bytes. The mirror counts and logs each "
            "request; nginx and docker-registry log none. docker-registry uses every core; by tag "
            "it asks its upstream each time.",
        ],
    )
