"""Realms that give no token, tokens that end, redirects that lead nowhere: all with an end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from aiohttp import web

from ..e2e.programs import loopback_address
from ..fakes.hub import Fault, Hub, cut, page, status
from ..waiting import eventually
from .bodies import MIB, breaks, mend, says_nothing
from .client import digest_of
from .house import House
from .servers import certificate, https

MANY = 10_000


def open_hub(hub: Hub) -> str:
    """An image that everybody may read without a token; its digest."""
    hub.challenge = "none"
    return hub.add_image("library/redis", "7", b"layer")


def in_seconds(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}


async def test_f25_a_challenge_for_ever(house: House) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    house.hub.token_answer = lambda token: {"token": f"not-{token}"}
    mirror = await house.mirror()
    for path in ("manifests/7", f"blobs/{digest_of(b'layer')}"):
        answer = await mirror.ask(f"/v2/library/redis/{path}")
        assert (answer.status, answer.code) == (403, "DENIED")
        assert "WWW-Authenticate" not in answer.headers
    assert len(house.hub.requests) < 20


def faulty(fault: Fault, words: str) -> Callable[[Hub], str]:
    def order(hub: Hub) -> str:
        hub.fail("realm", fault, MANY)
        return words

    return order


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (faulty(cut(), "the connection broke"), 503),
        (faulty(status(503), "has trouble (503)"), 503),
        (faulty(status(429, in_seconds(1)), "limits our requests"), 503),
        (faulty(status(403), "refuses anonymous askers"), 403),
        (faulty(page(), "sent no token"), 502),
        (faulty(status(200, body="{}"), "sent no token"), 502),
        (faulty(status(200, body='{"token": "a\\r\\nX: b"}'), "no header can carry"), 502),
        (faulty(status(200, body='{"token": "' + "t" * 100_000 + '"}'), "more than"), 502),
    ],
    ids=["cut", "503", "429", "403", "html", "no-token", "broken-token", "long-token"],
)
async def test_f25_a_realm_that_gives_no_token(
    house: House, order: Callable[[Hub], str], expected: int
) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    words = order(house.hub)
    mirror = await house.mirror()
    answer = await mirror.manifest("7")
    assert answer.status == expected
    assert house.hub.realm_url in answer.message
    assert words in answer.message
    assert "WWW-Authenticate" not in answer.headers
    assert len(house.hub.requests) < 20
    mend(house.hub)

    async def recovered() -> bool:
        return (await mirror.manifest("7")).status == 200

    await eventually(recovered, 30)


async def test_f25_a_realm_that_is_not_there_or_says_nothing(house: House) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    good = house.hub.realm_url
    house.hub.realm_url = f"http://{loopback_address()}:5000/token"
    mirror = await house.mirror(quick=True)
    answer = await mirror.manifest("7")
    assert answer.status == 503
    assert house.hub.realm_url in answer.message
    assert "cannot be connected" in answer.message
    house.hub.realm_url = good
    house.hub.fail("realm", says_nothing(), MANY)
    answer = await mirror.manifest("7")
    assert answer.status == 503
    assert good in answer.message
    assert "no answer within" in answer.message


async def test_f25_a_token_that_has_ended_when_it_is_issued(house: House) -> None:
    digest = house.hub.add_image("library/redis", "7", b"layer")
    house.hub.token_answer = lambda token: {
        "token": token,
        "expires_in": 0,
        "issued_at": "2001-01-01T00:00:00Z",
    }
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).is_whole(digest)
    layer = digest_of(b"layer")
    assert (await mirror.blob(layer)).is_whole(layer)
    assert house.hub.count("realm") < 10


async def test_f26_a_token_that_ends_in_between_is_renewed_once_for_all(house: House) -> None:
    layers = [os.urandom(1000) for _ in range(12)]
    digest = house.hub.add_image("library/redis", "7", *layers)
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).is_whole(digest)
    assert house.hub.count("realm") == 1
    house.hub.revoke_tokens()
    answers = await asyncio.gather(*(mirror.blob(digest_of(layer)) for layer in layers))
    assert all(map(lambda answer, layer: answer.is_whole(digest_of(layer)), answers, layers))
    assert house.hub.count("realm") == 2
    assert await mirror.metric("requests_total", outcome="failed") == 0


async def test_f26_a_token_that_ends_in_the_middle_of_a_blob(house: House) -> None:
    data = os.urandom(3 * MIB)
    digest = house.hub.add_blob(data)

    async def revoke_and_cut(request: web.Request) -> web.StreamResponse | None:
        house.hub.revoke_tokens()
        return await breaks(data, MIB)(request)

    house.hub.fail("blobs", revoke_and_cut)
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert house.hub.count("realm") == 2
    assert house.hub.seen("blobs")[-1].headers["Range"] == f"bytes={MIB}-"


def leads(code: int, location: str | None) -> Fault:
    return status(code, {"Location": location} if location else {})


async def test_f27_a_loop_of_redirects_ends(house: House) -> None:
    digest = open_hub(house.hub)
    house.hub.fail("registry", leads(307, "?again"), MANY)
    mirror = await house.mirror()
    answer = await mirror.manifest("7")
    assert answer.status == 502
    assert "more than 10 redirects" in answer.message
    assert len(house.hub.requests) <= 22  # the HEAD, and no more than once again
    assert (await mirror.manifest(digest)).status == 502


@pytest.mark.parametrize(
    "location", [None, "", "//", "http://", "ftp://127.0.0.1/x", "http://[::1"]
)
async def test_f27_a_redirect_to_nowhere(house: House, location: str | None) -> None:
    digest = open_hub(house.hub)
    house.hub.fail("registry", leads(307, location), MANY)
    mirror = await house.mirror()
    answer = await mirror.manifest(digest)
    assert answer.status == 502
    assert "redirect" in answer.message


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_f27_a_relative_redirect_is_followed(house: House, code: int) -> None:
    open_hub(house.hub)
    house.hub.redirects = False
    layer = digest_of(b"layer")
    house.hub.fail("registry", leads(code, f"../../else/where/blobs/{layer}"))
    mirror = await house.mirror()
    assert (await mirror.blob(layer)).is_whole(layer)
    assert [seen.path for seen in house.hub.requests] == [
        f"/v2/library/redis/blobs/{layer}",
        f"/v2/library/else/where/blobs/{layer}",
    ]


async def test_f27_from_https_nothing_leads_to_http(house: House) -> None:
    layer = house.hub.add_blob(b"layer")

    async def downgrade(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{house.hub.url}{request.path}"})

    good = certificate(house.folder)
    async with https(good, downgrade) as url:
        mirror = await house.mirror(url, env=good.environment())
        answer = await mirror.blob(layer)
        assert answer.status == 502
        assert "redirects from https to" in answer.message
        assert house.hub.requests == []
