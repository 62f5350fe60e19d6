"""Pushes: a large blob, and many small images, as containerd sends them."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from ..corpus import small_images
from ..load.pushing import push, push_blob
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "pushes: a blob of 512 MiB; 1,000 small images (config, layer, manifest), 8 clients"
CLIENTS = 8
CPU = "server's CPU s"
CPU_IMAGE = "server's CPU ms an image"
_LOGIN = base64.b64encode(b"bench:bench-bench-bench").decode()


def measure(house: House, scale: Scale) -> Result:
    mirror, registry = house.hosted(), house.docker_registry(None)
    logins = {mirror.name: {"Authorization": f"Basic {_LOGIN}"}, registry.name: {}}
    large = Table(f"one blob of {scale.blob >> 20} MiB, whole in one request")
    small = Table(f"{scale.images} images a round, each in a repository of its own")
    file = house.folder / "blob"

    def pushed(server: Server) -> Callable[[], None]:
        login = logins[server.name]

        def sample() -> None:
            digest = _filled(file, scale.blob)
            with server.cost() as cost:
                seconds = push_blob(server, login, file, digest)
            large.add(server.name, "s", seconds)
            large.add(server.name, CPU, cost.cpu)
            large.add(server.name, "peak memory, MB", cost.memory / 1e6)
            server.prove(f"/v2/bench/large/blobs/{digest}", digest, login)
            house.forget(digest)
            images = small_images(scale.images)
            with server.cost() as cost:
                found = push(server, login, images, CLIENTS)
            small.add(server.name, "s", found.seconds)
            small.add(server.name, "images/s", found.rate)
            small.add(server.name, CPU_IMAGE, cost.cpu / found.images * 1000)

        return sample

    servers = (mirror, registry)
    interleave(scale.long_rounds, {server.name: pushed(server) for server in servers})
    return Result(
        [large, small],
        [
            _target("a blob's time", large, "s"),
            _target("a blob's CPU", large, CPU),
            _target("small images' time", small, "s"),
            _target("small images' CPU", small, CPU_IMAGE),
        ],
        [
            "An image is HEAD, POST and PUT for each of two blobs, HEAD and PUT of the manifest, "
            "over one connection a client. The mirror asks for a login and rights each time; "
            "docker-registry for none."
        ],
    )


def _target(what: str, table: Table, column: str) -> Target:
    ratio = table.ratio(column, "mirror", "docker-registry")
    return Target(f"{what} / docker-registry's", ratio, 1.0, of=(table, column))


def _filled(file: Path, size: int) -> str:
    """New bytes; their digest."""
    hasher, piece = hashlib.sha256(), os.urandom(1 << 20)
    with file.open("wb") as data:
        for number in range(size >> 20):
            piece = number.to_bytes(8, "big") + piece[8:]
            data.write(piece)
            hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"
