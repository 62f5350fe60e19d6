"""Upstreams that fall silent, or are long in speaking: what is under way is not given up for that,
and another ask goes on where it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from aiohttp import web

from ..fakes.hub import Hub, status
from .bodies import MIB, comes_late, drips_once, says_nothing, stalls, stalls_once, trickles
from .client import DOCKERD, digest_of
from .house import House, Mirror
from .test_upstream_bodies import ranges

MANY = 10_000
SIZES = (4 * MIB, 20 * MIB, 90 * MIB)  # in order, parted as it comes, and parted from the start
SENT = 1_500_000

T = TypeVar("T")


async def within(seconds: float, answer: Awaitable[T]) -> T:
    """The answer, which comes before that. A mirror that waits for the silent ones would take 30 s
    more at least, so a busy machine is no matter."""
    return await asyncio.wait_for(answer, seconds)


def variants(count: int, size: int) -> list[bytes]:
    """So many blobs of this size, each of which costs its own bytes once."""
    base = os.urandom(size)
    return [number.to_bytes(4, "big") + base[4:] for number in range(count)]


async def test_f03_a_body_that_falls_silent_goes_on_from_the_very_byte(house: House) -> None:
    """One endpoint or two, each of which falls silent once; one worker or two; of each size."""
    hubs = [house.hub, await house.another_hub()]
    mirrors = [
        house.prepare(*hubs[:count], workers=workers) for count in (1, 2) for workers in (1, 2)
    ]
    blobs = {
        (mirror.url, size): data
        for size in SIZES
        for mirror, data in zip(mirrors, variants(len(mirrors), size), strict=True)
    }
    digests = {key: digest_of(data) for key, data in blobs.items()}
    for hub in hubs:
        hub.blobs.update({digests[key]: data for key, data in blobs.items()})
        hub.fail("blobs", stalls_once(hub.blobs, SENT), MANY)
    await asyncio.gather(*(mirror.start() for mirror in mirrors))
    for size in SIZES:
        pulls = [(mirror, digests[mirror.url, size]) for mirror in mirrors]
        answers = await within(20, asyncio.gather(*(mirror.blob(one) for mirror, one in pulls)))
        assert all(answer.is_whole(one) for answer, (_, one) in zip(answers, pulls, strict=True))
    for mirror in mirrors:
        assert len(mirror.events("silent_blob_goes_on_elsewhere")) >= len(SIZES)
        # Nothing was begun anew, and what the silent ones had brought was not fetched twice.
        assert mirror.events("fill_goes_on_after_a_fault") == []


async def test_f03_a_range_on_its_own_that_falls_silent_goes_on(house: House) -> None:
    data = os.urandom(30 * MIB)
    digest, far = house.hub.add_blob(data), 20 * MIB
    house.hub.fail("blobs", trickles(data, 0.2))
    house.hub.fail("blobs", stalls(data, far + MIB))
    mirror = await house.mirror(limits={"parts": 1}, quick=True)
    async with mirror.connection() as whole:
        await whole.get(f"/v2/library/redis/blobs/{digest}")
        assert (await whole.head())[0] == 200
        asked = mirror.blob(digest, {**DOCKERD, "Range": f"bytes={far}-"})
        answer = await within(20, asked)
    assert (answer.status, answer.cut, answer.body == data[far:]) == (206, False, True)
    assert ranges(house.hub) == [None, f"bytes={far}-", f"bytes={far + MIB}-"]
    house.partials = True


async def test_f03_silence_everywhere_ends_in_a_cut(house: House) -> None:
    mirror = await house.mirror(quick=True)
    blobs = [os.urandom(size) for size in SIZES[:2]]
    digests = [house.hub.add_blob(data) for data in blobs]

    async def fault(request: web.Request) -> web.StreamResponse:
        return await stalls(house.hub.blobs[request.path.rpartition("/")[2]], SENT)(request)

    house.hub.fail("blobs", fault, MANY)
    answers = await within(30, asyncio.gather(*map(mirror.blob, digests)))
    assert all(answer.cut for answer in answers)
    house.partials = True


async def first_bytes(mirror: Mirror, hub: Hub, name: str, tag: str) -> list[Awaitable[bool]]:
    """Whether a manifest by its digest, and a blob, come."""
    layer = os.urandom(MIB // 8)
    digest, blob = hub.add_image(name, tag, layer), digest_of(layer)

    async def manifest() -> bool:
        return (await mirror.manifest(digest, name=name)).is_whole(digest)

    async def bytes_of() -> bool:
        return (await mirror.blob(blob, name=name)).is_whole(blob)

    return [manifest(), bytes_of()]


async def test_f23_an_answer_that_never_comes_is_had_by_asking_again_beside(house: House) -> None:
    house.hub.challenge, house.hub.redirects = "none", False
    mirror = await house.mirror()
    asks = await first_bytes(mirror, house.hub, "library/redis", "7")
    digest = house.hub.add_image("library/nginx", "1", b"layer")
    house.hub.fail("registry", says_nothing(), 3)
    tag = asyncio.ensure_future(mirror.manifest("1", name="library/nginx"))
    answers = await within(12, asyncio.gather(*asks))
    assert all(answers)
    assert (await within(12, tag)).is_whole(digest)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("login", [None, ("ann", "right")], ids=["anonymous", "login"])
async def test_a_token_whose_ask_is_never_answered_is_had_by_asking_again_beside(
    house: House, login: tuple[str, str] | None, workers: int
) -> None:
    """At once after a start, when the login is not known to be good; later; and for all who wait
    for that token."""
    hub = house.hub
    docker_io: dict[str, object] = {}
    if login is not None:
        hub.login, hub.anonymous = login, False
        password = house.folder / "password"
        password.write_text(login[1])
        credentials = {"username": login[0], "password_file": str(password)}
        docker_io = {"credentials": credentials, "realm": hub.realm_url}
    mirror = await house.mirror(docker_io=docker_io, workers=workers)
    for name in ("library/first", "library/second"):
        digests = [hub.add_image(name, f"{number}", b"layer %d" % number) for number in range(8)]
        hub.fail("realm", says_nothing())
        asks = (mirror.manifest(f"{number}", name=name) for number in range(8))
        answers = await within(11, asyncio.gather(*asks))
        assert all(answer.is_whole(one) for answer, one in zip(answers, digests, strict=True))
    assert hub.count("realm") <= 2 * 2 * workers


async def test_f23_an_answer_that_takes_35_seconds_comes(house: House) -> None:
    """Every client was seen to bear it."""
    house.hub.challenge, house.hub.redirects = "none", False
    mirror = await house.mirror()
    asks = await first_bytes(mirror, house.hub, "library/redis", "7")
    house.hub.fail("registry", comes_late(35), MANY)
    tag = asyncio.ensure_future(mirror.manifest("7"))
    assert all(await asyncio.gather(*asks))
    # Of a tag, clients are told sooner, and go elsewhere; who comes later has the answer.
    assert (await tag).status == 503
    assert (await mirror.manifest("7")).status == 200


async def test_f20_limits_that_are_soon_over_are_waited_out(house: House) -> None:
    """429 without a Retry-After, of the only endpoint: to a tag, to a manifest, and to a layer that
    another worker may have promised."""
    house.hub.challenge = "none"
    layer = os.urandom(MIB)
    digest = house.hub.add_image("library/redis", "7", layer)
    house.hub.fail("registry", status(429))
    mirror = await house.mirror(workers=2)
    assert (await mirror.manifest("7", "HEAD")).status == 200
    assert (await mirror.manifest(digest)).is_whole(digest)
    house.hub.fail("registry", status(429), 3)
    blob = digest_of(layer)
    assert (await within(25, mirror.blob(blob))).is_whole(blob)
    other = house.hub.add_image("library/nginx", "1", b"layer")
    house.hub.fail("registry", status(429), 1)
    assert (await mirror.manifest(other, name="library/nginx")).is_whole(other)


async def test_f10_a_body_that_drips_goes_on_from_the_very_byte(house: House) -> None:
    """One endpoint or two, each of whose first answers drips; of each size, and all at once."""
    hubs = [house.hub, await house.another_hub()]
    mirrors = [house.prepare(*hubs[:count]) for count in (1, 2)]
    blobs = {
        (mirror.url, size): data
        for size in SIZES
        for mirror, data in zip(mirrors, variants(len(mirrors), size), strict=True)
    }
    digests = {key: digest_of(data) for key, data in blobs.items()}
    for hub in hubs:
        hub.blobs.update({digests[key]: data for key, data in blobs.items()})
        hub.fail("blobs", drips_once(hub.blobs, SENT), MANY)
    await asyncio.gather(*(mirror.start() for mirror in mirrors))
    pulls = [(mirror, digests[mirror.url, size]) for mirror in mirrors for size in SIZES]
    answers = await within(25, asyncio.gather(*(mirror.blob(one) for mirror, one in pulls)))
    assert all(answer.is_whole(one) for answer, (_, one) in zip(answers, pulls, strict=True))
    for mirror in mirrors:
        assert mirror.events("slow_blob_goes_on_elsewhere")
    assert mirrors[0].events("fill_goes_on_after_a_fault") == []
