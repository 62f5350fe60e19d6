"""Repositories of one's own on several nodes: real mirrors, PostgreSQL, SeaweedFS and Redis."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from mirror.oci.digest import Digest

from ..e2e.programs import needs
from ..faults.house import House
from ..postgres import running as postgresql
from ..redis_server import RedisServer
from ..seaweed import seaweed_running
from .nodes import Engines, HostedNodes, hosted_nodes, image_layout
from .torture import LOGIN, PASSWORD

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


async def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """One request of ann's, on a connection of its own."""
    async with (
        aiohttp.ClientSession(headers=LOGIN) as http,
        http.request(method, url + path, data=body, headers=headers) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


async def test_an_upload_goes_on_through_any_node(tmp_path: Path, engines: Engines) -> None:
    data = os.urandom(5 * MIB + 16)
    digest = str(Digest.of(data))
    async with running(tmp_path, engines) as nodes:
        first, second = nodes.url(0), nodes.url(1)
        status, headers, _ = await ask(first, "POST", "/v2/team/app/blobs/uploads/")
        assert status == 202
        place, at = headers["Location"], 0
        for url, length in ((second, 4 * MIB), (first, 9), (second, MIB)):
            chunk = {"Content-Range": f"{at}-{at + length - 1}"}
            status, headers, words = await ask(url, "PATCH", place, data[at : at + length], chunk)
            assert status == 202, words
            place, at = headers["Location"], at + length
        status, headers, _ = await ask(second, "GET", place)
        assert (status, headers["Range"]) == (204, f"0-{at - 1}")
        # One that does not follow is refused as by the node itself, and says where to go on.
        status, headers, _ = await ask(second, "PATCH", place, b"x", {"Content-Range": "3-3"})
        assert (status, headers["Range"]) == (416, f"0-{at - 1}")
        status, _, words = await ask(second, "PUT", f"{place}?digest={digest}", data[at:])
        assert status == 201, words
        for url in (first, second):
            assert (await ask(url, "GET", f"/v2/team/app/blobs/{digest}"))[2] == data
        _, headers, _ = await ask(first, "POST", "/v2/team/app/blobs/uploads/")
        assert (await ask(second, "DELETE", headers["Location"]))[0] == 204
        assert (await ask(first, "GET", headers["Location"]))[0] == 404
        # What another repository's path names is none of its uploads, through whichever node.
        _, headers, _ = await ask(first, "POST", "/v2/team/app/blobs/uploads/")
        other = headers["Location"].replace("team/app", "team/base")
        assert (await ask(second, "PATCH", other, b"x"))[0] == 404


async def test_a_push_whose_node_was_killed_begins_anew_at_another(
    tmp_path: Path, engines: Engines
) -> None:
    data = os.urandom(MIB)
    async with running(tmp_path, engines) as nodes:
        _, headers, _ = await ask(nodes.url(0), "POST", "/v2/team/app/blobs/uploads/")
        place = headers["Location"]
        assert (await ask(nodes.url(1), "PATCH", place, data))[0] == 202
        nodes.mirrors[0].kill()
        began = time.monotonic()
        status, _, words = await ask(nodes.url(1), "PATCH", place, data)
        assert (status, json.loads(words)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert time.monotonic() - began < 5  # at once: the client waits
        digest = Digest.of(data)
        path = f"/v2/team/app/blobs/uploads/?digest={digest}"
        assert (await ask(nodes.url(1), "POST", path, data))[0] == 201
        assert nodes.objects()[str(digest)] == MIB
