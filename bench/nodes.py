"""Mirrors that fetch as one, with their engines: Redis, and SeaweedFS as the object store."""

from __future__ import annotations

import json
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import urlopen

import redis

from tests.redis_server import RedisServer
from tests.seaweed import Seaweed, seaweed_running

from .corpus import MANIFEST_TYPE, Blob, Manifest
from .programs import free_port
from .servers import House, Server

_KNOWN_IN = 60.0  # seconds
_AT_ONCE = 3  # layers that dockerd and containerd take at a time


@dataclass(frozen=True)
class Nodes:
    """`admin`: the port of each for `counts`. `bucket`: what is behind their disks."""

    mirrors: Sequence[Server]
    admin: Sequence[int]
    redis: RedisServer
    seaweed: Seaweed
    bucket: str

    def commands(self) -> dict[str, int]:
        """How often Redis was given each command, from its start."""
        with redis.Redis.from_url(self.redis.url) as client:
            found = client.info("commandstats")
        return {name.partition("_")[2]: int(each["calls"]) for name, each in found.items()}

    def counts(self) -> dict[str, float]:
        """Their metrics, of all of them together: `name{labels}` as they are exported."""
        found: defaultdict[str, float] = defaultdict(float)
        for port in self.admin:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                for line in answer.read().decode().splitlines():
                    if not line.startswith("#"):
                        name, _, value = line.rpartition(" ")
                        found[name] += float(value)
        return found


@contextmanager
def fleet(house: House, upstream: Server, count: int) -> Iterator[Nodes]:
    """So many mirrors of this upstream, which know one another."""
    redis_server = RedisServer(house.folder / "redis")
    with seaweed_running() as seaweed, redis_server:
        redis_server.start()
        bucket, secret = seaweed.bucket(), house.folder / f"secret-{secrets.token_hex(4)}"
        secret.write_text(secrets.token_hex(32))
        mirrors, admin = [], []
        for number in range(count):
            peers = free_port()
            admin.append(free_port())
            own = {
                "admin": {"listen": f"127.0.0.1:{admin[-1]}"},
                "storage": {"s3": seaweed.storage(bucket)["s3"]},
                "tags": {"store": redis_server.url},
                "fleet": {
                    "listen": f"127.0.0.1:{peers}",
                    "url": f"http://127.0.0.1:{peers}",
                    "secret_file": str(secret),
                },
            }
            mirrors.append(house.mirror(upstream, f"mirror, node {number + 1}", more=own))
        nodes = Nodes(mirrors, admin, redis_server, seaweed, bucket)
        deadline = time.monotonic() + _KNOWN_IN
        while nodes.counts()["registry_mirror_fleet_nodes"] != count**2:
            if time.monotonic() > deadline:
                raise TimeoutError("the nodes do not know one another")
            time.sleep(0.2)
        yield nodes


@dataclass(frozen=True)
class Image:
    """`manifests`: an index's, if there is one, then the image's own."""

    manifests: Sequence[Manifest]
    blobs: Sequence[Blob]

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)


def image_of(layers: Sequence[Blob]) -> Image:
    config = Blob.of(json.dumps({"rootfs": secrets.token_hex(1024)}).encode())
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", b) for b in layers],
    }
    manifest = Manifest(json.dumps(document).encode(), tag=f"v{secrets.token_hex(6)}")
    return Image([manifest], [config, *layers])


def pull(server: Server, image: Image) -> None:
    """As a client does: by its tag, then the layers, three at a time. Raises WrongAnswer."""
    first = image.manifests[0]
    server.prove(first.tag_path, first.digest)
    for manifest in image.manifests[1:]:
        server.prove(manifest.path, manifest.digest)
    with ThreadPoolExecutor(_AT_ONCE) as taking:
        for done in [taking.submit(server.prove, each.path, each.digest) for each in image.blobs]:
            done.result()


def pull_on_all(servers: Sequence[Server], image: Image) -> None:
    """On all of them at once."""
    with ThreadPoolExecutor(len(servers)) as clients:
        for done in [clients.submit(pull, server, image) for server in servers]:
            done.result()


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}
