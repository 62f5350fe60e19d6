"""Whole images that nobody has asked for before, by real clients, from an upstream with TLS."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.clients import Client, Containerd, Dockerd
from tests.e2e.machines import Hosts
from tests.e2e.programs import Programs, loopback_address, missing

from ..corpus import REPOSITORY, Blob
from ..layers import Layer, image_of, packed, plain
from ..programs import Unavailable
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server, Upstream
from .cold import DIRECT, SHAPED

TITLE = "a cold image of 6 layers of 64 MB, and one of a layer of 5 GB, by real clients, over TLS"
LAYERS = 6
CLIENTS: dict[str, type[Client]] = {"dockerd": Dockerd, "containerd": Containerd}
_LARGE_ROUNDS = 2
_COPIES = 6
"""Of the large layer on the disk at once: the upstream's, a client's two, each cache's, and some
room."""


def measure(house: House, scale: Scale) -> Result:
    notes = []
    clients = {}
    for name, kind in CLIENTS.items():
        if wanted := missing(*kind.programs):
            notes.append(f"Not measured: {name}. To have it here: {wanted}")
        else:
            clients[name] = kind
    if not clients:
        raise Unavailable("; ".join(notes))
    size = f"{LAYERS} layers of {scale.cold_layer / 1e6:.0f} MB"
    fast = Table(f"{size}, loopback: seconds until the image is there, unpacked")
    shaped = Table(f"{size}, 125 MB/s: seconds until the image is there, unpacked")
    size = f"a layer of {scale.large_layer / 1e9:.3g} GB"
    large = Table(f"{size}, loopback: seconds until the image is there, unpacked")
    layers = [packed(house.folder / f"layer-{n}", scale.cold_layer) for n in range(LAYERS)]
    for table, upstream in (
        (fast, house.upstream(tls=True)),
        (shaped, house.upstream(tls=True, rate=SHAPED)),
    ):
        for name, kind in clients.items():
            Pulling(house, upstream, layers, table).by(name, kind, scale.rounds)
    if "dockerd" in clients:
        if shutil.disk_usage(house.folder).free < _COPIES * scale.large_layer:
            notes.append(f"Not measured: the large layer, of which the disk has no {_COPIES} times")
        else:
            one = [plain(house.folder / "large", scale.large_layer)]
            pulling = Pulling(house, house.upstream(tls=True), one, large)
            pulling.by("dockerd", Dockerd, min(_LARGE_ROUNDS, scale.rounds))
    return Result(
        [fast, shaped, large],
        [
            *(_target(fast, f"{name}, loopback", name, "docker-registry", 0.8) for name in CLIENTS),
            *(_target(shaped, f"{name}, 125 MB/s", name, DIRECT, 1.05) for name in CLIENTS),
            _target(large, "dockerd, one large layer", "dockerd", "docker-registry", 1.0),
        ],
        [
            "The upstream speaks TLS, with the caches or with the client itself (direct); the "
            "caches speak plain HTTP with their clients. Layers are tar in gzip without "
            "compression, the large one is tar alone, as models have it: random bytes, which do "
            "not compress. What was pulled is removed everywhere before the next pull. The large "
            f"layer is pulled in {_LARGE_ROUNDS} rounds.",
            *notes,
        ],
    )


def _target(table: Table, what: str, column: str, other: str, bound: float) -> Target:
    promise = f"{what}: time / {'direct' if other == DIRECT else other + chr(39) + 's'}"
    ratio = table.ratio(column, "mirror", other)
    return Target(promise, ratio, bound, of=(table, column))


class Pulling:
    """Fresh images of one upstream: directly, and through each cache."""

    def __init__(
        self, house: House, upstream: Upstream, layers: Sequence[Iterator[Layer]], table: Table
    ) -> None:
        self._house = house
        self._upstream = upstream
        self._layers = layers
        self._table = table

    def by(self, name: str, kind: type[Client], rounds: int) -> None:
        """One kind of client: a program of its own for each server, told of that one alone. Docker
        Hub's names lead nowhere."""
        upstream = self._upstream
        servers = [upstream, self._house.mirror(upstream), self._house.docker_registry(upstream)]
        authority = Path(upstream.authority) if upstream.authority else None
        hosts = Hosts(loopback_address(), authority)
        with ExitStack() as stack:
            samples = {}
            for server in servers:
                programs = stack.enter_context(Programs())
                client = kind(programs, server.url, "", hosts)
                samples[server.name] = self._pull(client, server, name)
            interleave(rounds, samples)

    def _pull(self, client: Client, server: Server, column: str) -> Callable[[], None]:
        def sample() -> None:
            manifest, blobs = image_of([next(each) for each in self._layers])
            self._upstream.offer(blobs, manifest)
            with server.cost() as cost:
                began = time.monotonic()
                client.pull(f"docker.io/{REPOSITORY}@{manifest.digest}")
                took = time.monotonic() - began
                server.program.wait_until_idle(every=0.5)  # docker-registry is not done yet
            self._table.add(server.name, column, took)
            if server is not self._upstream:
                size = sum(blob.size for blob in blobs)
                self._table.add(server.name, f"{column}: CPU s/GB", cost.cpu / size * 1e9)
            client.forget()
            self._forget(blobs)

        return sample

    def _forget(self, blobs: Sequence[Blob]) -> None:
        for blob in blobs:
            self._house.forget(blob.digest)
