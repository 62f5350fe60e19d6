"""Big blobs that nobody has asked for before, from an upstream that speaks TLS, as all real ones
do."""

from __future__ import annotations

from ..corpus import Corpus
from ..results import Result, Target
from ..scale import Scale
from ..servers import House
from .cold import CPU, NOTES, SECONDS, Fetching

TITLE = "a cold blob of 512 MiB, and eight of 64 MiB at once, from an upstream with TLS 1.3"
AT_ONCE = 8


def measure(house: House, scale: Scale) -> Result:
    corpus, upstream = Corpus(house.folder, scale.blob), house.upstream(tls=True)
    fetching = Fetching(house, corpus.blobs(scale.blob), upstream)
    servers = fetching.servers()
    one = fetching.compare(scale.rounds, "one connection, upstream with TLS", servers)
    fetching = Fetching(house, corpus.blobs(scale.blob // AT_ONCE), upstream)
    eight = fetching.compare(scale.rounds, f"{AT_ONCE} blobs at once, TLS", servers, AT_ONCE)
    peer = "docker-registry"
    return Result(
        [one, eight],
        [
            Target(
                "one blob: time / docker-registry's",
                one.ratio(SECONDS, "mirror", peer),
                1.0,
                of=(one, SECONDS),
            ),
            Target(
                "one blob: CPU s/GB / docker-registry's",
                one.ratio(CPU, "mirror", peer),
                0.45,
                of=(one, CPU),
            ),
            Target(
                "eight at once: GB/s / docker-registry's",
                eight.ratio("GB/s", "mirror", peer),
                1.3,
                at_least=True,
                of=(eight, "GB/s"),
            ),
        ],
        [
            "The mirror and docker-registry speak TLS with the upstream, and plain HTTP with their "
            "clients. Who asks it directly deciphers. The cipher is TLS_AES_256_GCM_SHA384 for "
            "all. What the upstream uses of the same cores (about as much as one who deciphers) is "
            "in nobody's CPU seconds.",
            *NOTES,
        ],
    )
