"""What is in an object store and not on the disk: a large blob, and many small ones."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence

from tests.seaweed import Seaweed, seaweed_running

from ..load.pushing import push_blob
from ..results import Result, Table, Target, interleave
from ..scale import Scale
from ..servers import House, Server

TITLE = "a near miss: a blob of 512 MiB, and small ones, from an S3 store (SeaweedFS)"
SMALL = 64 << 10  # bytes
CPU = "server's CPU s"
_GIVEN_WITHIN = 300.0  # seconds

Blobs = Sequence[tuple[Table, Sequence[tuple[str, str]]]]
"""What is asked for, as paths and digests, and where it is told."""


def measure(house: House, scale: Scale) -> Result:
    large = Table(f"one blob of {scale.blob >> 20} MiB")
    small = Table(f"{scale.images} blobs of {SMALL >> 10} KiB, one after the other")
    with seaweed_running() as store:
        registry = house.docker_registry(None, _as_docker_registry_has_it(store))
        bucket = store.storage(store.bucket())["s3"]
        behind = {"storage": {"s3": bucket}}
        blobs: Blobs = [
            (large, [_pushed(house, registry, scale.blob)]),
            (small, [_pushed(house, registry, SMALL) for _ in range(scale.images)]),
        ]
        _fill(house.mirror(registry, more=behind), store, bucket["bucket"], blobs)

        def sample(server: Callable[[], Server]) -> Callable[[], None]:
            def run() -> None:
                for table, each in blobs:
                    asked = server()  # the mirror: a new one, with nothing on its disk
                    with asked.cost() as cost:
                        began = time.perf_counter()
                        for path, digest in each:
                            asked.prove(path, digest)
                        seconds = time.perf_counter() - began
                    table.add(asked.name, "s", seconds)
                    table.add(asked.name, CPU, cost.cpu)
                    table.add(asked.name, "peak memory, MB", cost.memory / 1e6)

            return run

        samples = {
            "mirror": sample(lambda: house.mirror(registry, more=behind)),
            registry.name: sample(lambda: registry),
        }
        interleave(scale.long_rounds, samples)
    return Result(
        [large, small],
        [
            _target("a blob's time", large, "s"),
            _target("a blob's CPU", large, CPU),
            _target("small blobs' time", small, "s"),
            _target("small blobs' CPU", small, CPU),
        ],
        [
            "docker-registry passes the bytes on. The mirror proves them before the end is given "
            "out, syncs them behind that, and asks the registry with a HEAD whether the repository "
            "shows them: the next time it asks nobody."
        ],
    )


def _as_docker_registry_has_it(store: Seaweed) -> dict[str, object]:
    given = store.storage(store.bucket())["s3"]
    return {
        "accesskey": given["access_key_id"],
        "secretkey": store.secret_file.read_text(),
        "region": "us-east-1",
        "regionendpoint": given["endpoint"],
        "bucket": given["bucket"],
        "secure": False,
        "chunksize": 32 << 20,
    }


def _pushed(house: House, registry: Server, size: int) -> tuple[str, str]:
    """Its path, and its digest."""
    file, data = house.folder / "object", os.urandom(size)
    file.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    push_blob(registry, {}, file, digest)
    return f"/v2/bench/large/blobs/{digest}", digest


def _fill(mirror: Server, store: Seaweed, bucket: str, blobs: Blobs) -> None:
    """The mirror fetches all, and gives them to its bucket."""
    wanted = [each for _, some in blobs for each in some]
    for path, digest in wanted:
        mirror.prove(path, digest)
    deadline = time.monotonic() + _GIVEN_WITHIN
    while len(store.objects(bucket)) < len(wanted):
        if time.monotonic() > deadline:
            raise TimeoutError("the mirror has not given its bucket what it has")
        time.sleep(0.2)


def _target(what: str, table: Table, column: str) -> Target:
    ratio = table.ratio(column, "mirror", "docker-registry")
    return Target(f"{what} / docker-registry's", ratio, 1.0, of=(table, column))
