"""A registry that is far away: each connection is slow, and the link has room for many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from tests.e2e.clients import Dockerd
from tests.e2e.machines import no_hub
from tests.e2e.programs import Programs, missing

from ..corpus import REPOSITORY, Blob, Corpus
from ..far import Distance
from ..layers import image_of, packed
from ..results import Result, Table, Target, interleave
from ..scale import MIB, Scale
from ..servers import House, Server, Upstream

TITLE = "from a registry 80 ms away: 5 MB/s a connection, 60 MB/s in all"
ROUND_TRIP = 0.08
RATE = 5e6
TOTAL = 60e6
DIRECT = "direct"
MIRROR = "mirror"
THREE = "mirror, three endpoints"
CUT = "mirror, two of three cut midway"
SILENT = "mirror, two of three silent from midway"
# Of an image's bytes, what each layer has: one dominates, as in most images.
LAYERS = (0.375, 0.1875, 0.125, 0.125, 0.0625, 0.0625, 0.03125, 0.03125)


def measure(house: House, scale: Scale) -> Result:
    size = scale.herd_blob
    upstream = house.upstream()
    blobs = _blobs(house, upstream, Corpus(house.folder, size).blobs(size), size, scale)
    images = Table(f"a cold image of {size // MIB} MiB in {len(LAYERS)} layers, by dockerd")
    notes = []
    if wanted := missing(*Dockerd.programs):
        notes.append(f"Not measured: an image. To have it here: {wanted}")
    else:
        with Programs() as one, Programs() as other:
            _images(house, (one, other), upstream, images, size, scale)
    return Result(
        [blobs, images],
        [
            Target(
                "blob, seconds: direct / mirror",
                blobs.ratio("seconds", DIRECT, MIRROR),
                5.0,
                at_least=True,
                of=(blobs, "seconds"),
            ),
            Target(
                "image, seconds: direct / mirror",
                images.ratio("seconds", DIRECT, MIRROR),
                2.0,
                at_least=True,
                of=(images, "seconds"),
            ),
            Target(
                "two of three cut: time / undisturbed",
                blobs.ratio("seconds", CUT, THREE),
                1.3,
                of=(blobs, "seconds"),
                row=CUT,
            ),
            Target(
                "two of three silent: time / undisturbed",
                blobs.ratio("seconds", SILENT, THREE),
                1.3,
                of=(blobs, "seconds"),
                row=SILENT,
            ),
        ],
        [
            *notes,
            "Direct and the mirror's upstream are the same link; between the mirror and its client "
            "is none. Every connection is at full speed at once: with TCP's slow start all would "
            "be a little slower.",
            "A client hashes what it gets, and fails the figure when it is not the blob.",
            "The three endpoints are behind one link: what three gave, one can give as well.",
        ],
    )


def _distance(house: House, upstream: Server, endpoints: int) -> Distance:
    return Distance(
        house, upstream, endpoints=endpoints, round_trip=ROUND_TRIP, rate=RATE, total=TOTAL
    )


def _blobs(
    house: House, upstream: Upstream, blobs: Iterator[Blob], size: int, scale: Scale
) -> Table:
    table = Table(f"a cold blob of {size // MIB} MiB")

    def fetch(
        name: str, way: Distance, server: Server, disturb: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        def sample() -> None:
            blob = next(blobs)
            upstream.offer([blob])
            carried = way.carried
            disturb()
            with server.cost() as cost:
                began = time.monotonic()
                server.prove(blob.path, blob.digest)
                table.add(name, "seconds", time.monotonic() - began)
            table.add(name, "bytes over the link / blob", (way.carried - carried) / size)
            if server.program is not way.endpoints[0].program:
                table.add(name, "mirror's CPU s/GB", cost.cpu / size * 1e9)
            way.mend()

        return sample

    one = _distance(house, upstream, 1)
    samples = {
        DIRECT: fetch(DIRECT, one, one.endpoints[0]),
        MIRROR: fetch(MIRROR, one, house.mirror(one.endpoints[0])),
    }
    for name, how in ((THREE, ""), (CUT, "cut"), (SILENT, "silent")):
        # Each has a mirror of its own, which knows nothing of the others' trouble.
        way = _distance(house, upstream, 3)
        mirror = house.mirror(way.endpoints[0], name, others=way.endpoints[1:])
        samples[name] = fetch(name, way, mirror, _trouble(way, how, size))
    interleave(scale.long_rounds, samples)
    return table


def _trouble(way: Distance, how: str, size: int) -> Callable[[], None]:
    def begin() -> None:
        if how:
            way.fail(way.endpoints[:2], how, after=size // 2)

    return begin


def _images(
    house: House,
    clients: Sequence[Programs],
    upstream: Upstream,
    table: Table,
    size: int,
    scale: Scale,
) -> None:
    layers = [
        packed(house.folder / f"layer-{n}", int(size * part)) for n, part in enumerate(LAYERS)
    ]
    way = _distance(house, upstream, 1)
    servers = {DIRECT: way.endpoints[0], MIRROR: house.mirror(way.endpoints[0])}

    def pull(name: str, client: Dockerd) -> Callable[[], None]:
        def sample() -> None:
            manifest, blobs = image_of([next(each) for each in layers])
            upstream.offer(blobs, manifest)
            carried = way.carried
            began = time.monotonic()
            client.pull(f"docker.io/{REPOSITORY}@{manifest.digest}")
            table.add(name, "seconds", time.monotonic() - began)
            of_image = sum(blob.size for blob in blobs)
            table.add(name, "bytes over the link / image", (way.carried - carried) / of_image)
            client.forget()

        return sample

    samples = {}
    for own, (name, server) in zip(clients, servers.items(), strict=True):
        client = Dockerd(own, f"http://127.0.0.1:{server.port}", "", no_hub())
        samples[name] = pull(name, client)
    interleave(scale.long_rounds, samples)
