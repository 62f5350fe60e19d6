"""Several mirrors that host the same repositories: their records in one PostgreSQL, their content
in one bucket, and Redis, by which they know one another."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.app import ask

from ..faults.house import House, Mirror
from ..postgres import Postgres
from ..redis_server import RedisServer
from ..seaweed import Seaweed

PORT, PEERS = 5002, 5003
PASSWORD = "correct horse battery staple"
LOGIN = {"Authorization": f"Basic {base64.b64encode(f'ann:{PASSWORD}'.encode()).decode()}"}


@dataclass(frozen=True)
class Engines:
    postgres: Postgres
    seaweed: Seaweed
    redis: RedisServer


@dataclass
class HostedNodes:
    """`bucket`: its objects of hosted content are below `hosted/`."""

    engines: Engines
    mirrors: list[Mirror]
    bucket: str

    def at(self, number: int) -> str:
        return f"{self.mirrors[number].address}:{PORT}"

    def url(self, number: int) -> str:
        return f"http://{self.at(number)}"

    def objects(self) -> dict[str, int]:
        """Digests of what the object store has of hosted content, with their sizes."""
        found = self.engines.seaweed.objects(self.bucket)
        return {
            ":".join((name.split("/")[1], name.rpartition("/")[2])): size
            for name, size in found.items()
            if name.startswith(("hosted/sha256/", "hosted/sha512/"))
        }


@contextlib.asynccontextmanager
async def hosted_nodes(
    house: House,
    engines: Engines,
    collections: Mapping[str, object],
    count: int = 2,
    workers: int = 1,
    module: str = "mirror",
    endpoint: str | None = None,
) -> AsyncIterator[HostedNodes]:
    """Started, with an administrator and the namespaces. `module`: what is run. `endpoint`: of the
    object store, where it is reached by another one than its own."""
    bucket, database = engines.seaweed.bucket(), engines.postgres.make()
    house.folder.mkdir(exist_ok=True)
    secret = house.folder / "fleet"
    secret.write_text(secrets.token_hex(32))
    elsewhere = {} if endpoint is None else {"endpoint": endpoint}
    storage = engines.seaweed.storage(bucket, **elsewhere)
    mirrors = [
        house.prepare(
            module=module,
            workers=workers,
            log={"level": "info"},
            storage=storage,
            tags={"store": engines.redis.url},
        )
        for _ in range(count)
    ]
    for mirror in mirrors:
        config: dict[str, Any] = json.loads(mirror.config.read_text())
        config["hosted"] = {
            "listen": f"{mirror.address}:{PORT}",
            "records": engines.postgres.url(database),
            "gc": dict(collections),
        }
        config["fleet"] = {
            "listen": f"{mirror.address}:{PEERS}",
            "url": f"http://{mirror.address}:{PEERS}",
            "secret_file": str(secret),
            "nodes": [f"http://{each.address}:{PEERS}" for each in mirrors],
        }
        mirror.config.write_text(json.dumps(config))
    await asyncio.gather(*(mirror.start() for mirror in mirrors))
    await accounts(mirrors[0])
    try:
        yield HostedNodes(engines, mirrors, bucket)
    except BaseException:
        house.failed = True
        raise


async def hosting(
    house: House, collections: Mapping[str, object], workers: int = 1, records: str = "embedded"
) -> Mirror:
    """A mirror with repositories of one's own at PORT, started; `collections`: its key `gc`."""
    mirror = house.prepare(workers=workers, log={"level": "info"})
    config = json.loads(mirror.config.read_text())
    address = f"{mirror.address}:{PORT}"
    config["hosted"] = {"listen": address, "records": records, "gc": collections}
    mirror.config.write_text(json.dumps(config))
    await mirror.start()
    await accounts(mirror)
    return mirror


async def accounts(mirror: Mirror) -> None:
    """An administrator, and the namespaces."""
    await ask(mirror.storage, "user-add", name="ann", password=PASSWORD, administrator=True)
    for name in ("team", "other"):
        await ask(mirror.storage, "org-add", name=name)
    # What anybody may have is remembered by the workers.
    await ask(mirror.storage, "repo-add", name="other/app", visibility="public")


def image_layout(folder: Path, layers: list[bytes]) -> Path:
    """An image of one platform, as an OCI image layout."""
    import hashlib

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (folder / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    diffs = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "config": {},
    }
    oci = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": {"mediaType": f"{oci}.config.v1+json", **put(json.dumps(config).encode())},
        "layers": [{"mediaType": f"{oci}.layer.v1.tar+gzip", **put(layer)} for layer in layers],
    }
    described = put(json.dumps(manifest).encode())
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": f"{oci}.manifest.v1+json",
                "annotations": {"org.opencontainers.image.ref.name": "1"},
                **described,
            }
        ],
    }
    (folder / "index.json").write_text(json.dumps(index))
    return folder
