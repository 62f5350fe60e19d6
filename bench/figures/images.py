"""Many small images that nobody has asked for before."""

from __future__ import annotations

from collections.abc import Callable

from ..corpus import small_images
from ..load.probing import percentile
from ..load.pulling import pull
from ..programs import Unavailable
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "1,000 small images, cold: index, manifest, config and one layer each, 32 clients"
CLIENTS = 32
RATE = "images/s"
CPU = "server's CPU ms an image"


def measure(house: House, scale: Scale) -> Result:
    upstream = house.upstream()
    mirror, registry = house.mirror(upstream), house.docker_registry(upstream)
    auto = house.mirror(upstream, "mirror, workers auto", workers="auto")
    servers, notes = [mirror, auto, registry, upstream], list[str]()
    try:
        servers.append(house.drayage(upstream))
    except Unavailable as error:
        notes.append(f"Not measured: drayage. {error}")
    table = Table(f"{scale.images} images a round, each in a repository of its own")

    def cold(server: Server) -> Callable[[], None]:
        def sample() -> None:
            images = small_images(scale.images)
            upstream.offer(
                [blob for image in images for blob in (image.config, image.layer)],
                *(manifest for image in images for manifest in (image.index, image.manifest)),
            )
            with server.cost() as cost:
                found = pull(server, [image.pull for image in images], CLIENTS)
                server.program.wait_until_idle(every=0.5)
            table.add(server.name, RATE, found.rate)
            table.add(server.name, "an image, ms: p50", percentile(found.took, 50))
            table.add(server.name, "p99", percentile(found.took, 99))
            table.add(server.name, CPU, cost.cpu / found.images * 1000)
            table.add(server.name, "peak memory, MB", cost.memory / 1e6)

        return sample

    interleave(scale.rounds, {server.name: cold(server) for server in servers})
    return Result(
        [table],
        [
            Target(
                "workers auto: images/s / docker-registry's",
                table.ratio(RATE, auto.name, registry.name),
                3.0,
                at_least=True,
                of=(table, RATE),
                row=auto.name,
            ),
            Target(
                "1 worker: images/s / drayage's, on one thread",
                table.ratio(RATE, mirror.name, "drayage"),
                0.5,
                at_least=True,
                of=(table, RATE),
            ),
            Target(
                "1 worker: CPU ms an image", table.median(mirror.name, CPU), 5.0, of=(table, CPU)
            ),
        ],
        [
            "Every body is hashed by the client. The mirror has each blob on the disk (fdatasync) "
            "before it is seen; docker-registry syncs too, drayage does not. docker-registry uses "
            "every core, as the mirror does with `workers: auto`. As it comes the mirror has one "
            'worker: that is the row "mirror". drayage has one thread for its event loop.',
            *notes,
        ],
    )
