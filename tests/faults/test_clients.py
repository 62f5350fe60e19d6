"""Clients that leave, crawl, flood, or count on what they were told; and the others beside them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import socket

import pytest
from aiohttp import web

from ..fakes.hub import OCI_INDEX, OCI_MANIFEST, cut, status
from ..waiting import eventually
from .bodies import MIB, waits
from .client import DOCKERD, SKOPEO, Answer, digest_of
from .house import House, Mirror

CONTAINERD = {"User-Agent": "containerd/2.1.0"}


IDLE = {"idle": "2s"}


LIMIT = 60  # seconds within which an idle time of two must have done its work


async def test_f50_a_fill_goes_on_when_its_client_leaves(house: House) -> None:
    data = os.urandom(4 * MIB)
    digest = house.hub.add_blob(data)
    go_on = asyncio.Event()
    house.hub.fail("blobs", waits(data, 2 * MIB, go_on))
    house.hub.challenge = "none"
    mirror = await house.mirror()
    before = mirror.descriptors()
    async with mirror.connection() as client:
        await client.get(f"/v2/library/redis/blobs/{digest}")
        assert (await client.head())[0] == 200
        await client.reader.readexactly(MIB)
    # What the fill needs, and nothing of the client's: its file twice, two hosts' connections, and
    # one of these once more, for the thread that receives from it.
    await eventually(lambda: mirror.events("request")[-1].get("left"))
    rest = before + mirror.of_threads()
    await eventually(lambda: sum((mirror.descriptors() - rest).values()) <= 5)
    assert await mirror.metric("fills_running") == 1
    go_on.set()
    await eventually(mirror.blobs)
    answer = await mirror.blob(digest)
    assert answer.is_whole(digest)
    assert answer.headers["Cache-Status"].endswith("hit")
    assert house.hub.count("blobs") == 1
    assert await mirror.metric("requests_total", outcome="failed") == 0


async def test_f50_hundreds_who_leave_at_random_cost_nothing(house: House) -> None:
    data = os.urandom(8 * MIB)
    digest = house.hub.add_blob(data)
    mirror = await house.mirror()
    draw = random.Random(50)

    async def leave() -> None:
        async with mirror.connection() as client:
            await client.get(f"/v2/library/redis/blobs/{digest}")
            await client.reader.readexactly(draw.randrange(MIB))

    for _ in range(3):
        await asyncio.gather(*(leave() for _ in range(40)))
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await mirror.metric("upstream_bytes_total") < len(data) + 1000


async def drain(client: socket.socket) -> None:
    """Reads what there is, until the connection ends."""
    while await asyncio.get_running_loop().sock_recv(client, MIB):
        pass


async def test_f51_a_client_that_reads_a_byte_now_and_then_is_cut(house: House) -> None:
    data, other = bytes(64 * MIB), os.urandom(MIB)
    digest, other_digest = house.hub.add_blob(data), house.hub.add_blob(other)
    mirror = await house.mirror(limits=IDLE)
    assert (await mirror.blob(digest)).is_whole(digest)
    loop = asyncio.get_running_loop()

    def told() -> list[str]:
        left = (line for line in mirror.events("request") if line.get("left"))
        return [line["error"] for line in left if "error" in line]  # who closes early has none

    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(client, (mirror.address, 5000))
        head = f"GET /v2/library/redis/blobs/{digest} HTTP/1.1\r\nHost: m\r\n\r\n"
        await loop.sock_sendall(client, head.encode())
        async with asyncio.timeout(LIMIT):
            while not told():
                assert len(await loop.sock_recv(client, 1)) == 1
                assert (await mirror.blob(other_digest)).is_whole(other_digest)
            # It is told: who only paused asks again from there, and does not wait for ever.
            with pytest.raises(ConnectionResetError):
                await drain(client)
    assert told() == ["the client took nothing for too long"]


async def test_f51_headers_a_byte_at_a_time(house: House) -> None:
    mirror = await house.mirror(limits=IDLE)
    async with mirror.connection() as client, asyncio.timeout(LIMIT):
        ended = asyncio.create_task(client.rest())
        await client.send(b"GET /v2/ HTTP/1.1\r\nHost: m\r\nX: ")
        while not ended.done():
            client.writer.write(b"x")
            await asyncio.sleep(0.05)  # as above
            assert (await mirror.ask("/v2/")).status == 200
        assert b" 200 " not in await ended


async def test_f51_a_body_that_is_announced_and_never_comes(house: House) -> None:
    mirror = await house.mirror(limits=IDLE)
    async with mirror.connection() as client, asyncio.timeout(LIMIT):
        await client.get("/v2/", "Content-Length: 1000000")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_f51_thousands_who_say_nothing(house: House) -> None:
    count = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 500, max(hard, count + 500)))
    digest = house.hub.add_blob(os.urandom(MIB))
    wrap = ["prlimit", f"--nofile={count + 1000}"]
    mirror = await house.mirror(limits=IDLE, wrap=wrap)
    before = mirror.memory()
    room = asyncio.Semaphore(200)

    async def idle() -> asyncio.StreamReader:
        async with room:
            reader, _ = await asyncio.open_connection(mirror.address, 5000)
            return reader

    async with asyncio.timeout(LIMIT):
        readers = await asyncio.gather(*(idle() for _ in range(count)))
        assert (await mirror.blob(digest)).is_whole(digest)
        assert mirror.memory() - before < 150 * MIB
        assert set(await asyncio.gather(*(reader.read() for reader in readers))) == {b""}


def refused(answer: Answer, *statuses: int) -> bool:
    return answer.status in statuses and bool(answer.code)


async def test_f55_a_flood_of_missing_names(house: House) -> None:
    hub = house.hub
    hub.challenge = "none"
    now = most = 0

    async def count(request: web.Request) -> web.StreamResponse | None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0.02)  # else none would meet another
            return web.json_response({"errors": []}, status=404)
        finally:
            now -= 1

    hub.fail("registry", count, 100_000)
    mirror = await house.mirror()

    async def flood(begin: int, end: int) -> None:
        digests = (f"sha256:{number:064x}" for number in range(begin, end))
        paths = [f"/v2/n{n}/manifests/t{n}" for n in range(begin, end)]
        paths += [f"/v2/library/redis/blobs/{digest}" for digest in digests]
        for first in range(0, len(paths), 300):
            answers = await asyncio.gather(*map(mirror.ask, paths[first : first + 300]))
            assert {answer.status for answer in answers} == {404}

    await flood(0, 200)
    memory = mirror.memory()
    await flood(200, 800)
    assert mirror.memory() - memory < 16 * MIB
    assert most <= 128
    # It remembers that there is nothing.
    asked = len(hub.requests)
    await flood(700, 800)
    assert len(hub.requests) == asked
    assert await mirror.metric("requests_total", kind="tag", outcome="failed") >= 800


async def take(mirror: Mirror, digest: str, start: int, count: int) -> bytes:
    """As containerd 2.1: asks for all from an offset on, and leaves when it has its part."""
    async with mirror.connection() as client:
        fields = ["User-Agent: containerd/2.1.0", f"Range: bytes={start}-"]
        await client.get(f"/v2/library/redis/blobs/{digest}?ns=docker.io", *fields)
        code, headers = await client.head()
        size = 4 * MIB
        assert (code, headers["content-range"]) == (206, f"bytes {start}-{size - 1}/{size}")
        assert headers["content-length"] == str(size - start)
        return await client.reader.readexactly(count)


async def test_f56_parts_that_are_cut_by_their_client(house: House) -> None:
    data = os.urandom(4 * MIB)
    digest = house.hub.add_blob(data)
    go_on = asyncio.Event()
    house.hub.fail("blobs", waits(data, 2 * MIB, go_on))
    mirror = await house.mirror()
    parts = [
        asyncio.create_task(take(mirror, digest, start, MIB)) for start in range(0, len(data), MIB)
    ]
    assert await parts[0] == data[:MIB]  # the fill stands still in its middle
    go_on.set()
    for _ in range(2):
        assert digest_of(b"".join(await asyncio.gather(*parts))) == digest
        await eventually(mirror.blobs)
        parts = [
            asyncio.create_task(take(mirror, digest, start, MIB))
            for start in range(0, len(data), MIB)
        ]
    await asyncio.gather(*parts)
    await eventually(lambda: len(mirror.events("request")) >= 12)
    assert await mirror.metric("requests_total", outcome="failed") == 0
    assert await mirror.metric("fills_total", result="committed") == 1
    assert not [line for line in mirror.events("request") if line.get("error")]


async def test_f56_a_blob_that_is_cut_and_asked_again_from_there(house: House) -> None:
    data = os.urandom(4 * MIB)
    digest = house.hub.add_blob(data)
    mirror = await house.mirror()
    async with mirror.connection() as client:
        await client.get(f"/v2/library/redis/blobs/{digest}", "User-Agent: docker/28.5.0")
        await client.head()
        begun = await client.reader.readexactly(MIB + 17)
    rest = await mirror.blob(digest, {**DOCKERD, "Range": f"bytes={len(begun)}-"})
    assert rest.status == 206
    assert digest_of(begun + rest.body) == digest
    assert await mirror.metric("requests_total", outcome="failed") == 0


@pytest.mark.parametrize("code", [403, 405, 501])
async def test_f56_a_head_that_the_upstream_refuses(house: House, code: int) -> None:
    data = os.urandom(1000)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", status(code))
    mirror = await house.mirror()
    answer = await mirror.ask(f"/v2/library/redis/blobs/{digest}", "HEAD", CONTAINERD)
    assert (answer.status, answer.headers["Content-Length"]) == (200, "1000")
    assert answer.headers["Docker-Content-Digest"] == digest
    assert (await mirror.blob(digest, CONTAINERD)).is_whole(digest)
    assert await mirror.metric("requests_total", outcome="failed") == 0


def add_index(house: House) -> tuple[str, str, str]:
    """An image of two platforms: the index, one manifest, its layer."""
    hub = house.hub
    child = hub.add_image("library/redis", "child", b"layer")
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": child,
                "size": len(hub.manifests[child][0]),
                "platform": {"os": "linux", "architecture": "amd64"},
            }
        ],
    }
    top = hub.add_manifest("library/redis", "7", json.dumps(index).encode(), OCI_INDEX)
    return top, child, digest_of(b"layer")


async def test_f57_after_the_tag_short_trouble_is_waited_out(house: House) -> None:
    hub = house.hub
    hub.challenge = "none"
    top, child, layer = add_index(house)
    mirror = await house.mirror()
    assert (await mirror.manifest("7", headers=SKOPEO)).is_whole(top)
    hub.fail("registry", status(503), 5)
    assert (await mirror.manifest(child, headers=SKOPEO)).is_whole(child)
    hub.fail("registry", cut(), 2)
    hub.fail("registry", status(500), 3)
    assert (await mirror.blob(layer, SKOPEO)).is_whole(layer)
    assert await mirror.metric("requests_total", outcome="failed") == 0


async def test_f57_after_the_tag_another_endpoint_delivers(house: House) -> None:
    other = await house.another_hub()
    top, child, layer = add_index(house)
    other.manifests, other.blobs, other.tags = (
        house.hub.manifests, house.hub.blobs, house.hub.tags,
    )  # fmt: skip
    mirror = await house.mirror(house.hub, other)
    assert (await mirror.manifest("7")).is_whole(top)
    await house.hub.__aexit__(None, None, None)
    assert (await mirror.manifest(child, headers=SKOPEO)).is_whole(child)
    assert (await mirror.blob(layer, SKOPEO)).is_whole(layer)
    assert other.count("registry", "HEAD") == 0


async def test_f57_after_the_tag_what_cannot_be_had_suits_the_client(house: House) -> None:
    top, child, layer = add_index(house)
    mirror = await house.mirror(quick=True)
    assert (await mirror.manifest("7", "HEAD", DOCKERD)).status == 200
    await house.hub.__aexit__(None, None, None)
    # A tag is answered only with its manifest in hand.
    assert (await mirror.manifest(top)).is_whole(top)
    asks = [
        lambda agent: mirror.manifest(child, headers=agent),
        lambda agent: mirror.blob(layer, agent),
    ]
    agents = (DOCKERD, CONTAINERD, SKOPEO)
    answers = await asyncio.gather(*(ask(agent) for ask in asks for agent in agents))
    for answer, expected in zip(answers, (503, 503, 429) * 2, strict=True):
        assert refused(answer, expected)
        assert int(answer.headers["Retry-After"]) >= 1
        assert "WWW-Authenticate" not in answer.headers
    assert await mirror.metric("upstream_requests_total", status="connect") > 0
