"""Upstreams that refuse, limit, vanish or say nothing: stale answers, or an error that says it."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from ..e2e.programs import loopback_address, unavailable
from ..fakes.hub import OCI_MANIFEST, Hub, status
from ..waiting import eventually
from .bodies import says_nothing
from .client import DOCKERD, SKOPEO, digest_of
from .house import House, Mirror
from .servers import Fickle, asking, babbles, bare, certificate, https, name_server, resets

# Every ask for a tag goes to the upstream, and may be answered from memory when that fails.
RECHECKED = {"freshness": {"ttl": "1ms", "stale": "24h", "negative_ttl": "1ms"}}


MANY = 10_000


def open_hub(hub: Hub) -> str:
    """An image that everybody may read without a token; its digest."""
    hub.challenge = "none"
    return hub.add_image("library/redis", "7", b"layer")


async def is_stale(mirror: Mirror, digest: str) -> bool:
    """Whether the tag is answered as it was, and says that it may have changed."""
    answer = await mirror.manifest("7")
    told = answer.headers.get("Warning", "").startswith("299 ") and "Age" in answer.headers
    return answer.is_whole(digest) and told


def in_seconds(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}


def at_date(seconds: int) -> dict[str, str]:
    return {"Retry-After": email.utils.formatdate(time.time() + seconds, usegmt=True)}


@pytest.mark.parametrize("retry_after", [in_seconds, at_date])
async def test_f20_a_rate_limit(house: House, retry_after: Callable[[int], dict[str, str]]) -> None:
    digest = open_hub(house.hub)
    mirror = await house.mirror(docker_io=RECHECKED)
    assert (await mirror.manifest("7")).is_whole(digest)
    house.hub.fail("registry", status(429, retry_after(300)), MANY)
    assert await is_stale(mirror, digest)
    missing = await mirror.manifest("8")
    assert (missing.status, missing.code) == (503, "TOOMANYREQUESTS")
    assert "limits our requests (429)" in missing.message
    assert 200 < int(missing.headers["Retry-After"]) <= 301
    layer = digest_of(b"layer")
    asked = len(house.hub.requests)
    assert (await mirror.blob(layer, DOCKERD)).status == 503
    assert len(house.hub.requests) - asked <= 1  # it said when to come back
    assert mirror.events("fill_goes_on_after_a_fault") == []  # which is too late for this client
    to_wait = await mirror.blob(layer, SKOPEO)
    assert (to_wait.status, to_wait.code) == (503, "TOOMANYREQUESTS")  # nobody waits for so long
    assert 200 < int(to_wait.headers["Retry-After"]) <= 301
    assert await mirror.metric("upstream_requests_total", status="429") >= 2
    assert await mirror.metric("requests_total", outcome="stale") == 1


async def test_f20_who_limits_is_left_alone_while_another_answers(house: House) -> None:
    limited, well = house.hub, await house.another_hub()
    digest = open_hub(limited)
    open_hub(well)
    limited.fail("registry", status(429, in_seconds(300)), MANY)
    mirror = await house.mirror(limited, well, docker_io=RECHECKED)
    for _ in range(5):
        assert (await mirror.manifest("7")).is_whole(digest)
    layer = digest_of(b"layer")
    assert (await mirror.blob(layer)).is_whole(layer)
    # The HEAD shows that no pull is meant by the limit, but all that is asked.
    assert [one.method for one in limited.requests] == ["GET", "HEAD"]


async def test_f21_trouble_that_passes_is_unseen(house: House) -> None:
    house.hub.challenge = "none"
    layers = [os.urandom(1000) for _ in range(20)]
    digest = house.hub.add_image("library/redis", "7", *layers)
    blobs = [digest_of(layer) for layer in layers]
    draw = random.Random(21)

    async def flap(request: web.Request) -> web.StreamResponse | None:
        if draw.random() < 0.7:
            return None
        return web.Response(status=draw.choice((500, 502, 503, 504)))

    house.hub.fail("registry", flap, MANY)
    house.hub.fail("blobs", flap, MANY)
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).is_whole(digest)
    answers = await asyncio.gather(*map(mirror.blob, blobs))
    assert [answer.status for answer in answers] == [200] * len(blobs)
    assert all(map(lambda answer, blob: answer.is_whole(blob), answers, blobs))
    troubles = [await mirror.metric("upstream_requests_total", status=s) for s in ("500", "503")]
    assert sum(troubles) > 0


async def test_f21_trouble_that_lasts_is_answered_stale_or_with_an_error(house: House) -> None:
    digest = open_hub(house.hub)
    mirror = await house.mirror(quick=True, docker_io=RECHECKED)
    assert (await mirror.manifest("7")).is_whole(digest)
    house.hub.requests.clear()
    house.hub.fail("registry", status(502), MANY)
    assert await is_stale(mirror, digest)
    missing = await mirror.manifest("8")
    assert (missing.status, "Retry-After" in missing.headers) == (503, True)
    assert "has trouble (502)" in missing.message
    assert (await mirror.blob(digest_of(b"layer"))).status == 503
    # A budget bounds what a thousand who wait may ask of an upstream that is down.
    asked = len(house.hub.requests)
    answers = await asyncio.gather(*(mirror.manifest(f"t{n}") for n in range(100)))
    assert {answer.status for answer in answers} == {503}
    assert len(house.hub.requests) - asked < 150


@contextlib.asynccontextmanager
async def nobody(_: Path) -> AsyncIterator[str]:
    """A port on which nobody listens."""
    yield f"http://{loopback_address()}:5000"


@contextlib.asynccontextmanager
async def resetting(_: Path) -> AsyncIterator[str]:
    async with bare(resets) as url:
        yield url


@contextlib.asynccontextmanager
async def babbling(_: Path) -> AsyncIterator[str]:
    async with bare(babbles) as url:
        yield url


async def never(request: web.Request) -> web.StreamResponse:
    raise AssertionError("was asked in spite of its certificate")


@pytest.mark.parametrize(
    ("upstream", "kind", "words"),
    [
        (nobody, "connect", "cannot be connected"),
        (resetting, "cut", "the connection broke"),
        (babbling, "cut", "does not answer in HTTP"),
    ],
)
async def test_f22_no_connection(
    house: House,
    upstream: Callable[[Path], contextlib.AbstractAsyncContextManager[str]],
    kind: str,
    words: str,
) -> None:
    async with upstream(house.folder) as url:
        mirror = await house.mirror(url)
        answer = await mirror.manifest("7")
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        assert url in answer.message
        assert words in answer.message
        assert await mirror.metric("upstream_requests_total", status=kind) >= 1


@pytest.mark.parametrize(
    ("name", "ended", "words"),
    [
        ("localhost", True, "certificate has expired"),
        ("registry.example.org", False, "certificate is not valid for 'localhost'"),
    ],
    ids=["expired", "another-host"],
)
async def test_f22_a_certificate_that_is_not_good(
    house: House, name: str, ended: bool, words: str
) -> None:
    bad = certificate(house.folder, name, ended)
    async with https(bad, never) as url:
        mirror = await house.mirror(url, env=bad.environment())
        answer = await mirror.manifest("7")
        assert answer.status == 503
        assert url in answer.message
        assert words in answer.message
        assert await mirror.metric("upstream_requests_total", status="tls") == 1


@pytest.mark.parametrize("mute", [False, True], ids=["no-such-name", "no-answer"])
async def test_f22_names_that_are_not_resolved(house: House, mute: bool) -> None:
    if os.geteuid() != 0:
        unavailable("to run this test: be root, for a name server of its own")
    address = loopback_address()
    async with name_server(address) as names:
        names.mute = mute
        wrap = asking(address, house.folder)
        mirror = await house.mirror("http://registry.example.org", quick=True, wrap=wrap)
        asking_for = asyncio.create_task(mirror.manifest("7"))
        await eventually(lambda: names.asked > 0)
        assert (await mirror.ask("/v2/")).status == 200  # the loop does not wait for names
        answer = await asking_for
        assert answer.status == 503
        assert "registry.example.org: its name cannot be resolved" in answer.message
        assert await mirror.metric("upstream_requests_total", status="dns") >= 1


async def test_f22_a_registry_that_is_gone_is_answered_for(house: House) -> None:
    digest = open_hub(house.hub)
    mirror = await house.mirror(docker_io=RECHECKED)
    layer = digest_of(b"layer")
    assert (await mirror.manifest("7")).is_whole(digest)
    assert (await mirror.blob(layer)).is_whole(layer)
    await house.hub.__aexit__(None, None, None)
    assert await is_stale(mirror, digest)
    assert (await mirror.blob(layer)).is_whole(layer)
    assert (await mirror.manifest("8")).status == 503
    # It starts without its upstream, too, and answers what it has.
    assert await mirror.stop() == 0
    await mirror.start()
    assert await is_stale(mirror, digest)
    assert (await mirror.blob(layer)).is_whole(layer)


async def test_f23_headers_that_never_come(house: House) -> None:
    other = await house.another_hub()
    digest = open_hub(house.hub)
    open_hub(other)
    house.hub.fail("registry", says_nothing(), MANY)
    mirror = await house.mirror(house.hub, other, quick=True)
    layer = digest_of(b"layer")
    assert (await mirror.manifest("7")).is_whole(digest)
    assert (await mirror.blob(layer)).is_whole(layer)
    assert await mirror.metric("upstream_requests_total", status="timeout") >= 1

    alone = await house.mirror(quick=True)
    answer = await alone.manifest("7")
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)


async def test_f23_a_tag_that_is_known_does_not_wait_for_them(house: House) -> None:
    digest = open_hub(house.hub)
    mirror = await house.mirror(docker_io=RECHECKED)
    assert (await mirror.manifest("7")).is_whole(digest)
    house.hub.fail("registry", says_nothing(), MANY)
    async with asyncio.timeout(8):  # a second is meant; the header timeout is 15
        assert await is_stale(mirror, digest)


async def test_f24_a_tag_that_the_registry_does_not_know_any_more(house: House) -> None:
    digest = open_hub(house.hub)
    layer = digest_of(b"layer")
    mirror = await house.mirror(docker_io=RECHECKED)
    assert (await mirror.manifest("7")).is_whole(digest)
    assert (await mirror.blob(layer)).is_whole(layer)
    house.hub.fail("registry", status(404))
    assert (await mirror.manifest("7")).is_whole(digest)  # one word is not enough
    del house.hub.tags["library/redis"]["7"]
    gone = await mirror.manifest("7")
    assert (gone.status, gone.code) == (404, "MANIFEST_UNKNOWN")
    asked = len(house.hub.requests)
    assert (await mirror.manifest(digest)).is_whole(digest)
    assert (await mirror.blob(layer)).is_whole(layer)
    assert len(house.hub.requests) == asked
    house.hub.tags["library/redis"]["7"] = digest
    assert (await mirror.manifest("7")).is_whole(digest)


async def test_f28_connections_that_are_closed_at_random_are_unseen(house: House) -> None:
    body = b'{"schemaVersion": 2, "config": {"digest": "%s", "size": 2}, "layers": []}'
    body %= digest_of(b"{}").encode()
    manifest = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(body)}
    blobs = [os.urandom(1000) for _ in range(30)]
    fickle = Fickle(
        {
            "/v2/library/redis/manifests/7": (manifest, body),
            f"/v2/library/redis/manifests/{digest_of(body)}": (manifest, body),
            **{f"/v2/library/redis/blobs/{digest_of(blob)}": ({}, blob) for blob in blobs},
        },
        seed=28,
    )
    async with bare(fickle) as url:
        mirror = await house.mirror(url)
        assert (await mirror.manifest("7")).is_whole(digest_of(body))
        for blob in blobs:
            answer = await mirror.blob(digest_of(blob))
            assert answer.is_whole(digest_of(blob))
        assert fickle.closed > 0
        assert await mirror.metric("requests_total", outcome="failed") == 0
