"""Repositories of one's own on several nodes: real mirrors, PostgreSQL, SeaweedFS and Redis."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from mirror.oci.digest import Digest

from ..e2e.programs import needs
from ..faults.house import House
from ..postgres import running as postgresql
from ..redis_server import RedisServer
from ..seaweed import seaweed_running
from .nodes import Engines, HostedNodes, hosted_nodes, image_layout
from .torture import PASSWORD

MIB = 1 << 20


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with (
        postgresql() as postgres,
        seaweed_running() as seaweed,
        RedisServer(tmp_path_factory.mktemp("redis")) as redis,
    ):
        redis.start()
        yield Engines(postgres, seaweed, redis)


@contextlib.asynccontextmanager
async def running(
    folder: Path, engines: Engines, collections: Mapping[str, object] | None = None
) -> AsyncIterator[HostedNodes]:
    async with House(folder) as house, hosted_nodes(house, engines, collections or {}) as nodes:
        yield nodes
        for mirror in nodes.mirrors:
            mirror.wrote_well()
            assert mirror.rotten() == []
            if mirror.running:
                await mirror.stop()


def skopeo(*words: str | Path) -> None:
    login = f"ann:{PASSWORD}"
    done = subprocess.run(
        [
            *("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
            *(f"--{side}-creds={login}" for side in ("src", "dest")),
            *map(str, words),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


async def test_what_is_pushed_to_one_node_is_pulled_from_another(
    tmp_path: Path, engines: Engines
) -> None:
    needs("skopeo")
    # Else skopeo compresses them.
    layers = [gzip.compress(os.urandom(size), 0) for size in (70_000, 20 * MIB)]
    layout = image_layout(tmp_path / "image", layers)
    async with running(tmp_path / "house", engines) as nodes:
        skopeo(f"oci:{layout}:1", f"docker://{nodes.at(0)}/team/app:1")
        for layer in layers:  # before the push was answered
            assert nodes.objects()[str(Digest.of(layer))] == len(layer)
        skopeo(f"docker://{nodes.at(1)}/team/app:1", f"dir:{tmp_path}/pulled")
        pulled = {file.read_bytes() for file in (tmp_path / "pulled").iterdir()}
        assert set(layers) <= pulled
        # A copy on the disk may be evicted: nothing there is marked as what has to stay.
        files = [file for mirror in nodes.mirrors for file in mirror.blobs()]
        assert len(files) == 8
        assert not [file for file in files if file.stat().st_mode & 0o1000]
