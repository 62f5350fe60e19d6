"""Repositories of one's own on several nodes: real mirrors, PostgreSQL, SeaweedFS and Redis."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from mirror.app import ask as run
from mirror.app.hosting_alone import hosted_alone
from mirror.config import Config, parse
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_INDEX

from ..e2e.programs import needs
from ..faults.fleet.lines import Line
from ..faults.house import House
from ..postgres import running as postgresql
from ..redis_server import RedisServer
from ..seaweed import seaweed_running
from ..waiting import eventually
from .nodes import LOGIN, PASSWORD, Engines, HostedNodes, hosted_nodes, image_layout
from .test_backups import APP, BY, LAYER, cut, push

MIB = 1 << 20
BY_NOBODY = {"Authorization": ""}


pytestmark = [
    pytest.mark.xdist_group("many-nodes"),  # engines and nodes are started once for all
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with (
        postgresql() as postgres,
        seaweed_running() as seaweed,
        RedisServer(tmp_path_factory.mktemp("redis")) as redis,
    ):
        redis.start()
        yield Engines(postgres, seaweed, redis)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory, engines: Engines) -> Iterator[Line]:
    """By which the nodes reach the object store."""
    with Line(tmp_path_factory.mktemp("line"), engines.seaweed.place) as line:
        yield line


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(
    tmp_path_factory: pytest.TempPathFactory, engines: Engines, far: Line
) -> AsyncIterator[HostedNodes]:
    """Two, which collect when they are told to."""
    folder = tmp_path_factory.mktemp("nodes")
    collections = {"every": "1d", "grace": "1s"}
    endpoint = f"http://{far.host}:{far.port}"
    async with (
        House(folder) as house,
        hosted_nodes(house, engines, collections, endpoint=endpoint) as nodes,
    ):
        yield nodes
        found = engines.seaweed.objects(nodes.bucket)
        assert [name for name in found if not name.startswith("hosted/")] == []  # nor twice
        for mirror in nodes.mirrors:
            mirror.wrote_well()
            assert mirror.rotten() == []
            mirror.kill()  # no rest: connections to the object store stay for a while


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
    nodes: HostedNodes, tmp_path: Path
) -> None:
    needs("skopeo")
    # Else skopeo compresses them.
    layers = [gzip.compress(os.urandom(size), 0) for size in (70_000, 20 * MIB)]
    layout = image_layout(tmp_path / "image", layers)
    skopeo(f"oci:{layout}:1", f"docker://{nodes.at(0)}/team/app:1")
    for layer in layers:  # before the push was answered
        assert nodes.objects()[str(Digest.of(layer))] == len(layer)
    skopeo(f"docker://{nodes.at(1)}/team/app:1", f"dir:{tmp_path}/pulled")
    pulled = {file.read_bytes() for file in (tmp_path / "pulled").iterdir()}
    assert set(layers) <= pulled
    # A copy on the disk may be evicted: nothing there is marked as what has to stay.
    digests = {Digest.of(layer).hex for layer in layers}
    files = [file for mirror in nodes.mirrors for file in mirror.blobs() if file.name in digests]
    assert len(files) == 4
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


async def test_an_upload_goes_on_through_any_node(nodes: HostedNodes) -> None:
    data = os.urandom(5 * MIB + 16)
    digest = str(Digest.of(data))
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
    nodes: HostedNodes,
) -> None:
    data = os.urandom(MIB)
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
    await nodes.mirrors[0].start()


async def test_a_push_while_the_object_store_is_down_is_refused_and_succeeds_later(
    nodes: HostedNodes, far: Line
) -> None:
    data, path = os.urandom(MIB), "/v2/team/app/blobs/uploads/"
    digest = Digest.of(data)
    _, headers, _ = await ask(nodes.url(0), "POST", path)
    place = headers["Location"]
    assert (await ask(nodes.url(0), "PATCH", place, data))[0] == 202
    far.cut()
    try:
        status, headers, words = await ask(nodes.url(1), "PUT", f"{place}?digest={digest}")
        assert (status, b"object store" in words) == (503, True)
        assert int(headers["Retry-After"]) > 0
        # Nothing of it was recorded, and the session is still there.
        assert (await ask(nodes.url(1), "HEAD", f"/v2/team/app/blobs/{digest}"))[0] == 404
        assert (await ask(nodes.url(1), "GET", place))[0] == 204
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        manifest, kind = json.dumps(index).encode(), {"Content-Type": OCI_INDEX}
        tag = "/v2/team/app/manifests/later"
        assert (await ask(nodes.url(0), "PUT", tag, manifest, kind))[0] == 503
        assert (await ask(nodes.url(1), "GET", tag))[0] == 404
    finally:
        far.join()

    async def is_taken(node: int, place: str, *body: Any) -> bool:
        return (await ask(nodes.url(node), "PUT", place, *body))[0] == 201

    # A store that was away is left alone for a moment, by each node.
    await eventually(lambda: is_taken(1, f"{place}?digest={digest}"), 60)
    await eventually(lambda: is_taken(0, tag, manifest, kind), 60)
    assert (await ask(nodes.url(1), "GET", tag))[2] == manifest
    assert {str(digest), str(Digest.of(manifest))} <= set(nodes.objects())


async def test_one_node_collects_for_all(nodes: HostedNodes) -> None:
    data, stray = os.urandom(MIB), Digest.of(b"stray")
    digest = Digest.of(data)
    post = f"/v2/team/left/blobs/uploads/?digest={digest}"
    blob = f"/v2/team/left/blobs/{digest}"

    async def is_collected(by: int) -> bool:
        """No record needs it, and none that is as old as its grace."""
        await run(nodes.mirrors[by].storage, "gc", is_now=True)
        there = nodes.objects()
        return str(digest) not in there and str(stray) not in there

    # As an object of a push that was cut.
    nodes.engines.seaweed.write(
        nodes.bucket, f"hosted/sha256/{stray.hex[:2]}/{stray.hex}", b"stray"
    )
    assert (await ask(nodes.url(0), "POST", post, data))[0] == 201
    assert str(digest) in nodes.objects()
    await eventually(lambda: is_collected(by=1), 40)
    assert (await ask(nodes.url(0), "HEAD", blob))[0] == 404
    # The same again, through the node whose disk has a copy.
    assert (await ask(nodes.url(0), "POST", post, data))[0] == 201
    assert str(digest) in nodes.objects()
    assert (await ask(nodes.url(1), "GET", blob))[2] == data


async def test_what_is_wrong_in_the_object_store_is_set_aside_and_told(
    nodes: HostedNodes,
) -> None:
    data = os.urandom(2 * MIB)
    digest = Digest.of(data)
    post = f"/v2/team/app/blobs/uploads/?digest={digest}"
    assert (await ask(nodes.url(0), "POST", post, data))[0] == 201
    wrong = bytes([data[0] ^ 1]) + data[1:]
    name = f"hosted/sha256/{digest.hex[:2]}/{digest.hex}"
    nodes.engines.seaweed.write(nodes.bucket, name, wrong)
    path = f"/v2/team/app/blobs/{digest}"
    with contextlib.suppress(aiohttp.ClientError):  # cut before its end
        status, _, got = await ask(nodes.url(1), "GET", path)
        assert status != 200, len(got)
    await eventually(lambda: str(digest) not in nodes.objects(), 20)
    [told] = nodes.mirrors[1].events("hosted_content_wrong")
    assert told["digest"] == str(digest)
    # The node that has a copy still gives it; pushed there, all have it again.
    assert (await ask(nodes.url(0), "GET", path))[2] == data
    assert (await ask(nodes.url(0), "POST", post, data))[0] == 201
    assert (await ask(nodes.url(1), "GET", path))[2] == data


@pytest.mark.parametrize("left", [0, 1000], ids=["nothing", "a part"])
@pytest.mark.parametrize("size", [5000, 2 * MIB], ids=["small", "large"])
async def test_what_is_cut_off_in_the_object_store_makes_way_for_a_push(
    nodes: HostedNodes, size: int, left: int
) -> None:
    data = os.urandom(size)
    digest = Digest.of(data)
    name = f"hosted/sha256/{digest.hex[:2]}/{digest.hex}"
    nodes.engines.seaweed.write(nodes.bucket, name, data[:left])
    post = f"/v2/team/app/blobs/uploads/?digest={digest}"
    status, _, words = await ask(nodes.url(0), "POST", post, data)
    assert status == 201, words
    assert nodes.objects()[str(digest)] == size
    assert (await ask(nodes.url(1), "GET", f"/v2/team/app/blobs/{digest}"))[2] == data


async def test_a_token_that_one_node_gives_is_good_at_all(nodes: HostedNodes) -> None:
    data = os.urandom(1000)
    digest = Digest.of(data)
    post = f"/v2/team/token/blobs/uploads/?digest={digest}"
    assert (await ask(nodes.url(0), "POST", post, data))[0] == 201
    path = f"/v2/team/token/blobs/{digest}"
    for given, used in ((0, 1), (1, 0)):
        _, headers, _ = await ask(nodes.url(given), "GET", "/v2/", headers=BY_NOBODY)
        found = re.search('realm="[^"]*(/[^"/]+)",service="([^"]*)"', headers["WWW-Authenticate"])
        assert found is not None
        realm, service = found.groups()
        scope = f"repository:team/token:pull&service={service}"
        _, _, answered = await ask(nodes.url(given), "GET", f"{realm}?scope={scope}")
        bearer = {"Authorization": f"Bearer {json.loads(answered)['token']}"}
        assert (await ask(nodes.url(used), "GET", path, headers=bearer))[2] == data
    assert (await ask(nodes.url(1), "GET", path, headers=BY_NOBODY))[0] == 401


def alone(folder: Path, storage: Mapping[str, object]) -> Config:
    place = {"path": str(folder), "min_free": 0, **storage}
    return parse(json.dumps({"storage": place, "hosted": {"listen": "127.0.0.1:5002"}}), "m.yaml")


async def test_what_was_pushed_before_there_was_an_object_store_is_brought_there(
    engines: Engines, tmp_path: Path
) -> None:
    seaweed, here = engines.seaweed, tmp_path / "here"
    bucket, other = seaweed.bucket(), seaweed.bucket()
    async with hosted_alone(alone(here, {})) as hosted:
        await hosted.administration.organisations.add(BY, "acme")
        await push(hosted)
    held = [file for file in (here / "blobs").rglob("*") if file.stat().st_mode & 0o1000]
    assert len(held) == 3
    async with hosted_alone(alone(here, seaweed.storage(bucket))) as hosted:
        assert hosted.held_here is not None
        await hosted.held_here.look()
        assert len(seaweed.objects(bucket)) == 3
        assert not [file for file in held if file.stat().st_mode & 0o1000]
        for file in held:  # as evicted: each is a copy
            file.unlink()
        content = await hosted.registry.blob(BY, APP, Digest.of(LAYER))
        await content.proven()
        assert content.pread(len(LAYER), 0) == LAYER
        content.close()
        # A backup has what is there alone, and is restored into another one.
        backup = [piece async for piece in hosted.backups.backup({})]
    async with hosted_alone(alone(tmp_path / "there", seaweed.storage(other))) as hosted:
        told = [line async for line in hosted.backups.restore(cut(b"".join(backup)))]
        assert told[-1]["content"] == 3
        assert set(seaweed.objects(other)) == set(seaweed.objects(bucket))
        assert (await hosted.registry.resolve(BY, APP, "v1")).descriptor.digest
        assert not [
            file
            for file in (tmp_path / "there/blobs").rglob("*")
            if file.is_file() and file.stat().st_mode & 0o1000
        ]
