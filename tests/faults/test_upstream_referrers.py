"""Lists of referrers, by which signatures are found: they outlive the registry, as images do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ..fakes.hub import OCI_INDEX, OCI_MANIFEST, Fault, Hub, status
from ..redis_server import RedisServer
from ..waiting import eventually
from .bodies import says_nothing
from .client import Answer, digest_of
from .house import House, Mirror

MANY = 10_000
SIGNATURE, SBOM = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/spdx+json"
RECHECKED = {"freshness": {"ttl": "1ms", "negative_ttl": "1ms", "stale": "24h"}}


def entry(kind: str, number: int = 0) -> dict[str, Any]:
    digest = digest_of(f"{kind} {number}".encode())
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "artifactType": kind}


def index(*entries: dict[str, Any]) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


def lists(data: bytes) -> Fault:
    """The referrers API, with this list for any subject; all else is as it was."""

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if "/referrers/" not in request.path:
            return None
        return web.Response(body=data, headers={"Content-Type": OCI_INDEX})

    return answer


def has_api(hub: Hub, data: bytes) -> None:
    hub.mend()
    hub.fail("registry", lists(data), MANY)


def has_tag(hub: Hub, data: bytes) -> None:
    """The same list by the tag of those that have no such API."""
    subject = hub.tags["library/redis"]["7"]
    hub.add_manifest("library/redis", subject.replace(":", "-"), data, OCI_INDEX)


def image(hub: Hub) -> str:
    hub.challenge = "none"
    return hub.add_image("library/redis", "7", b"layer")


def down(hub: Hub) -> None:
    hub.mend()
    hub.fail("registry", status(503), MANY)


async def referrers(mirror: Mirror, subject: str, kind: str = "", method: str = "GET") -> Answer:
    query = f"?artifactType={kind}" if kind else ""
    return await mirror.ask(f"/v2/library/redis/referrers/{subject}{query}", method)


def kinds(answer: Answer) -> list[str]:
    assert (answer.status, answer.headers["Content-Type"]) == (200, OCI_INDEX)
    return [one["artifactType"] for one in json.loads(answer.body)["manifests"]]


def is_stale(answer: Answer) -> bool:
    return answer.headers.get("Warning", "").startswith("299 ") and "Age" in answer.headers


@pytest.mark.parametrize("tells", [has_api, has_tag])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_list_that_was_shown_outlives_the_registry(
    house: House, tells: Any, workers: int
) -> None:
    subject = image(house.hub)
    tells(house.hub, index(entry(SIGNATURE), entry(SBOM)))
    mirror = await house.mirror(docker_io=RECHECKED, workers=workers)
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE, SBOM]
    down(house.hub)
    for _ in range(3):
        answer = await referrers(mirror, subject)
        assert kinds(answer) == [SIGNATURE, SBOM]
        assert is_stale(answer)
    filtered = await referrers(mirror, subject, SBOM)
    assert (kinds(filtered), is_stale(filtered)) == ([SBOM], True)
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert (await referrers(mirror, subject, method="HEAD")).status == 200
    assert (await mirror.stop()) == 0
    await mirror.start()
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE, SBOM]


@pytest.fixture(params=["embedded", "redis"])
def tag_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "embedded":
        yield request.param
        return
    with RedisServer(tmp_path / "redis") as server:
        yield server.start().url


async def test_a_list_is_kept_wherever_the_tags_are_kept(house: House, tag_store: str) -> None:
    subject = image(house.hub)
    has_api(house.hub, index(entry(SIGNATURE)))
    mirror = await house.mirror(docker_io=RECHECKED, tags={"store": tag_store})
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE]
    down(house.hub)
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE]
    await mirror.stop()
    mirror = await mirror.start()
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE]


async def test_a_list_is_answered_offline(house: House) -> None:
    subject = image(house.hub)
    has_api(house.hub, index(entry(SIGNATURE)))
    online = await house.mirror()
    assert kinds(await referrers(online, subject)) == [SIGNATURE]
    await online.stop()
    offline = await house.mirror(offline=True, storage={"path": str(online.storage)})
    assert kinds(await referrers(offline, subject)) == [SIGNATURE]
    assert (await referrers(offline, digest_of(b"another"))).status == 503


async def test_a_list_is_not_asked_for_again_while_it_is_fresh(house: House) -> None:
    subject = image(house.hub)
    has_api(house.hub, index(entry(SIGNATURE)))
    mirror = await house.mirror()
    for kind in ("", SIGNATURE, SBOM):
        answer = await referrers(mirror, subject, kind)
        assert kinds(answer) == ([] if kind == SBOM else [SIGNATURE])
    assert house.hub.count("registry", path="/referrers/") == 1
    assert "hit" in answer.headers["Cache-Status"]
    assert int(answer.headers["Age"]) < 10


async def test_that_there_are_none_is_remembered_and_outlives_the_registry(house: House) -> None:
    subject = image(house.hub)
    mirror = await house.mirror(docker_io={"freshness": {"negative_ttl": "1h"}})
    for _ in range(3):
        assert kinds(await referrers(mirror, subject)) == []
    assert house.hub.count("registry", path="/referrers/") == 1
    again = await house.mirror(docker_io=RECHECKED)
    assert kinds(await referrers(again, subject)) == []
    down(house.hub)
    answer = await referrers(again, subject)
    assert (kinds(answer), is_stale(answer)) == ([], True)


async def test_a_signature_that_is_pushed_is_seen(house: House) -> None:
    subject = image(house.hub)
    mirror = await house.mirror(docker_io={"freshness": {"ttl": "1h", "negative_ttl": "1s"}})
    assert kinds(await referrers(mirror, subject)) == []
    has_api(house.hub, index(entry(SIGNATURE)))

    async def is_seen() -> bool:
        return kinds(await referrers(mirror, subject)) == [SIGNATURE]

    await eventually(is_seen, 10)


async def test_the_fallback_tag_that_is_here_is_the_list_when_the_registry_is_down(
    house: House,
) -> None:
    """Clients without the API have asked for it by tag."""
    subject = image(house.hub)
    has_tag(house.hub, index(entry(SIGNATURE)))
    mirror = await house.mirror()
    assert (await mirror.manifest(subject.replace(":", "-"))).status == 200
    down(house.hub)
    answer = await referrers(mirror, subject)
    assert (kinds(answer), is_stale(answer)) == ([SIGNATURE], True)


async def test_a_registry_that_hangs_keeps_nobody_from_a_list_that_is_here(house: House) -> None:
    subject = image(house.hub)
    has_api(house.hub, index(entry(SIGNATURE)))
    mirror = await house.mirror(docker_io=RECHECKED)
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE]
    house.hub.mend()

    house.hub.fail("registry", says_nothing(), MANY)
    answer = await referrers(mirror, subject)
    assert (kinds(answer), is_stale(answer)) == ([SIGNATURE], True)


async def test_a_list_without_end_is_refused_and_kept_by_nobody(house: House) -> None:
    """And the registry, to which anybody may push so many, is not blamed for it."""
    subject = image(house.hub)
    page = index(*(entry(SIGNATURE, number) for number in range(2000)))

    async def endless(request: web.Request) -> web.StreamResponse | None:
        if "/referrers/" not in request.path:
            return None
        link = f'<{request.path}?last={house.hub.count("registry")}>; rel="next"'
        return web.Response(body=page, headers={"Content-Type": OCI_INDEX, "Link": link})

    house.hub.fail("registry", endless, MANY)
    mirror = await house.mirror()
    answer = await referrers(mirror, subject)
    assert answer.status == 502
    assert "more referrers than are taken" in answer.message
    assert await mirror.metric("upstream_breaker_open") == 0
    assert (await mirror.manifest("7")).is_whole(subject)


async def test_of_two_endpoints_one_without_the_api_hides_no_signature(house: House) -> None:
    subject = image(house.hub)
    other = await house.another_hub()
    image(other)
    has_api(other, index(entry(SIGNATURE)))
    mirror = await house.mirror(house.hub, other)
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE]


async def test_a_list_of_one_repository_is_none_of_anothers(house: House) -> None:
    """Of a repository that may not be read, nothing is told that was kept for another."""
    subject = image(house.hub)
    has_api(house.hub, index(entry(SIGNATURE)))
    mirror = await house.mirror(access=[{"name": "hush", "deny": ["library/hidden"]}])
    assert kinds(await referrers(mirror, subject)) == [SIGNATURE]
    house.hub.mend()
    other = await mirror.ask(f"/v2/library/other/referrers/{subject}")
    assert kinds(other) == []
    assert (await mirror.ask(f"/v2/library/hidden/referrers/{subject}")).status == 403
