"""A whole image of 20 layers, warm, by real clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.clients import Client, Containerd, Dockerd
from tests.e2e.images import HERE, OCI, build
from tests.e2e.machines import no_hub
from tests.e2e.programs import Programs, missing

from ..corpus import INDEX_TYPE, REPOSITORY, TAG, Blob, Manifest
from ..results import Result, Table, Target, interleave
from ..scale import MIB, Scale
from ..servers import House, Server

TITLE = "a whole warm pull of an image of 20 layers by real clients"
IMAGE = f"docker.io/{REPOSITORY}:{TAG}"
LAYERS = 20
CLIENTS: dict[str, type[Client]] = {"dockerd": Dockerd, "containerd": Containerd}


@dataclass(frozen=True)
class Image:
    """For one architecture, in files: its layers do not compress."""

    manifests: Sequence[Manifest]
    config: Blob
    layers: Sequence[Blob]


def measure(house: House, scale: Scale) -> Result:
    image = _image(house.folder, scale.layer)
    upstream = house.upstream()
    upstream.offer([image.config, *image.layers], *image.manifests)
    mirror, nginx = house.mirror(upstream), house.nginx(image, image.layers, workers=2)
    for server in (mirror, nginx):
        for manifest in image.manifests:
            server.prove(manifest.path, manifest.digest)
        for blob in (image.config, *image.layers):
            server.prove(blob.path, blob.digest)
    table, notes = Table("seconds until the image is there, unpacked"), list[str]()
    cpu = Table("server's CPU seconds a pull")

    def pulling(client: Client, server: Server, column: str) -> Callable[[], None]:
        def sample() -> None:
            with server.cost() as cost:
                began = time.monotonic()
                client.pull(IMAGE)
                took = time.monotonic() - began
            table.add(server.name, column, took)
            cpu.add(server.name, column, cost.cpu)
            client.forget()

        return sample

    for column, kind in CLIENTS.items():
        if wanted := missing(*kind.programs):
            notes.append(f"Not measured: {column}. To have it here: {wanted}")
            continue
        # One client a server: each is told of its own. Docker Hub's names lead nowhere.
        with Programs() as one, Programs() as other:
            samples = {}
            for each, server in ((one, mirror), (other, nginx)):
                client = kind(each, f"http://127.0.0.1:{server.port}", "", no_hub())
                client.pull(IMAGE)  # with it goes what a client does once in its life
                client.forget()
                samples[server.name] = pulling(client, server, column)
            interleave(scale.rounds, samples)
    return Result(
        [table, cpu],
        [
            Target(
                f"{column}: seconds / nginx's",
                table.ratio(column, mirror.name, nginx.name),
                1.05,
                of=(table, column),
            )
            for column in CLIENTS
        ],
        [
            f"The image has {sum(layer.size for layer in image.layers) / MIB:.0f} MiB. nginx has "
            "its manifests and blobs as files, with the right types and digests in its answers. "
            "What a client has pulled is removed before the next pull; it proves the digests, and "
            "has nowhere else to go.",
            *notes,
        ],
    )


def _image(folder: Path, layer: int) -> Image:
    made = build("bench", OCI, [layer] * (LAYERS - 1))
    found = made.manifests[made.manifest_of[HERE]]
    index = Manifest(made.manifests[made.digest], INDEX_TYPE)
    wanted = made.blobs_of(HERE)
    blobs = {}
    for digest, data in made.blobs.items():
        if digest in wanted:
            path = folder / digest
            path.write_bytes(data)
            blobs[digest] = Blob(digest, path, len(data))
    config = blobs.pop(made.config_of(HERE))
    return Image([index, Manifest(found, tag=None)], config, list(blobs.values()))
