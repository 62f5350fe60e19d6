"""Large bodies on their way from upstreams, over TLS and without: what breaks on the wire is made
good unseen, what is wrong is told, and a connection serves again after a body."""

from __future__ import annotations

import asyncio
import os
import random
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ..fakes.hub import Hub
from ..waiting import eventually
from .bodies import MIB, sends, waits, wrong
from .broken_wire import Break, Wire, wire
from .disk.clients import reading
from .house import House, Mirror, digest_of
from .servers import certificate

LARGE = 6 * MIB


@dataclass(frozen=True)
class Scene:
    house: House
    hub: Hub
    wire: Wire  # before the host of its blobs
    keys: dict[str, Any]

    async def mirror(self, **keys: Any) -> Mirror:
        return await self.house.mirror(self.hub, docker_io=self.keys, **keys)

    def parts(self) -> list[int]:
        """From where each ask for bytes of a blob was."""
        asked = [seen.headers.get("Range", "") for seen in self.hub.seen("blobs", "GET")]
        return [int(found[1]) if (found := re.match(r"bytes=(\d+)-", one)) else 0 for one in asked]


both = pytest.mark.parametrize("scene", ["plain", "tls"], indirect=True)
by_tls = pytest.mark.parametrize("scene", ["tls"], indirect=True)
"""Where other tests have it without."""


@pytest.fixture
async def scene(
    house: House, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Scene]:
    tls, keys = None, {}
    if request.param == "tls":
        shown = certificate(tmp_path)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(shown.server)
        keys = {"ca_file": str(shown.trusted)}
    hub = await house.another_hub(tls)
    async with wire(hub.blobs_url) as between:
        hub.blobs_url = between.url
        yield Scene(house, hub, between, keys)


@both
@pytest.mark.parametrize("how", [Break.CUT, Break.ENDS, Break.HANGS])
async def test_f02_a_wire_that_breaks_is_not_noticed(scene: Scene, how: Break) -> None:
    data = os.urandom(LARGE)
    digest = scene.hub.add_blob(data)
    scene.wire.breaks(how, 2 * MIB + 777)  # within a record of TLS
    scene.wire.breaks(how, 3 * MIB)
    mirror = await scene.mirror(quick=True)
    assert (await mirror.blob(digest)).is_whole(digest)
    first, second, third = scene.parts()
    assert first == 0 < MIB < second <= 2 * MIB + 777 < third < LARGE
    assert await mirror.metric("fills_total", result="committed") == 1
    assert await mirror.metric("upstream_rejected_total") == 0


@both
async def test_f01_a_bit_that_turns_on_the_wire_reaches_no_client(scene: Scene) -> None:
    data = os.urandom(LARGE)
    digest = scene.hub.add_blob(data)
    scene.wire.breaks(Break.TURNS, 2 * MIB)
    mirror = await scene.mirror()
    answer = await mirror.blob(digest)
    if scene.hub.tls is None:  # only the digest tells
        assert answer.cut
        assert digest_of(answer.body) != digest
        assert (await mirror.blob(digest)).is_whole(digest)
    else:  # it is told at once, and is not the registry's fault
        assert answer.is_whole(digest)
        assert await mirror.metric("upstream_rejected_total") == 0


@by_tls
async def test_f01_wrong_bytes_are_cut_before_their_end(scene: Scene) -> None:
    data = os.urandom(LARGE)
    digest = scene.hub.add_blob(data)
    scene.hub.fail("blobs", sends(wrong(data)))
    mirror = await scene.mirror()
    answer = await mirror.blob(digest)
    assert answer.cut
    assert digest_of(answer.body) != digest
    assert await mirror.metric("upstream_rejected_total") == 1
    assert (await mirror.blob(digest)).is_whole(digest)


@both
async def test_what_comes_behind_a_body_is_no_answer(scene: Scene) -> None:
    """Whoever asks next over the connection would be given it."""
    data, other = os.urandom(LARGE), os.urandom(LARGE)
    digest, next_digest = scene.hub.add_blob(data), scene.hub.add_blob(other)

    async def says_more(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = LARGE
        await response.prepare(request)
        await response.write(data)
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        return response

    scene.hub.fail("blobs", says_more)
    mirror = await scene.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert (await mirror.blob(next_digest)).is_whole(next_digest)
    assert scene.hub.count("blobs", "GET") == 2


@both
async def test_a_connection_serves_again_after_a_body(scene: Scene) -> None:
    digests = [scene.hub.add_blob(os.urandom(LARGE)) for _ in range(4)]
    mirror = await scene.mirror()
    for digest in digests:
        assert (await mirror.blob(digest)).is_whole(digest)
    assert scene.wire.connections == 1


@by_tls
async def test_clients_that_leave_take_nothing_from_others_and_leave_nothing(scene: Scene) -> None:
    data, until = os.urandom(LARGE), asyncio.Event()
    digest = scene.hub.add_blob(data)
    scene.hub.fail("blobs", waits(data, 2 * MIB, until))
    mirror = await scene.mirror()
    async with reading(mirror, digest, clients=1) as [stays]:
        async with reading(mirror, digest, clients=4):
            await eventually(lambda: _size(mirror) == 2 * MIB)
        until.set()
        assert digest_of(await stays()) == digest
    assert scene.parts() == [0]
    # And of one that nobody waits for any more, all comes that its registry sends.
    left, later = os.urandom(LARGE), asyncio.Event()
    digest = scene.hub.add_blob(left)
    scene.hub.fail("blobs", waits(left, 2 * MIB, later))
    async with reading(mirror, digest, clients=3):
        await eventually(lambda: _size(mirror) == 2 * MIB)
    later.set()
    await eventually(lambda: mirror.partials() == [])
    assert (await mirror.blob(digest)).is_whole(digest)
    assert scene.parts() == [0, 0]


@by_tls
async def test_f30_what_had_come_before_a_kill_is_not_fetched_again(scene: Scene) -> None:
    data, never = os.urandom(LARGE), asyncio.Event()
    digest = scene.hub.add_blob(data)
    scene.hub.fail("blobs", waits(data, 4 * MIB, never))
    mirror = await scene.mirror()
    async with reading(mirror, digest, clients=2):
        await eventually(lambda: _size(mirror) == 4 * MIB)
        mirror.kill()
    never.set()
    await mirror.start()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert len(scene.parts()) == 2
    assert 0 < scene.parts()[1] <= 4 * MIB
    assert mirror.rotten() == []


@both
async def test_many_at_once_over_a_wire_that_breaks_again_and_again(scene: Scene) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    digests = [
        scene.hub.add_blob(chance.randbytes(chance.randrange(MIB, LARGE))) for _ in "8 blobs"
    ]
    for _ in range(12):
        how = chance.choice((Break.CUT, Break.ENDS, Break.HANGS))
        scene.wire.breaks(how, chance.randrange(1, 4 * MIB))
    mirror = await scene.mirror(quick=True)
    answers = await asyncio.gather(*(mirror.blob(digest) for digest in digests * 2))
    for digest, answer in zip(digests * 2, answers, strict=True):
        assert answer.is_whole(digest)
    assert await mirror.metric("fills_total", result="committed") == len(digests)
    assert mirror.rotten() == []


def _size(mirror: Mirror) -> int:
    return sum(path.stat().st_size for path in mirror.partials())
