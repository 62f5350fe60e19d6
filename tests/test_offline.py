"""A mirror without its upstreams, whole: by its configuration, and because none of them answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .fakes.hub import status
from .running import DAY, LAYER, House
from .waiting import eventually


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House.built(tmp_path) as house:
        yield house


@pytest.mark.parametrize("days", [0.5, 30, 390])
async def test_offline_by_configuration_a_cached_tag_is_served_however_old(
    house: House, days: float
) -> None:
    house.hub.add_image("library/redis", "1", LAYER)
    await house.start()
    await house.pull()
    await house.grow_old(days)
    house.hub.requests.clear()
    await house.start("offline: true\n")
    answer = await house.pull()
    assert house.hub.requests == []
    assert answer.headers["Warning"].startswith("299")
    assert int(answer.headers["Age"]) == pytest.approx(days * DAY, abs=60)
    assert "stale" in answer.headers["Cache-Status"]
    assert await house.is_ready()


async def test_offline_by_configuration_what_is_not_here_is_refused_at_once(house: House) -> None:
    digest = house.hub.add_image("library/redis", "1", LAYER)
    layer = house.hub.add_blob(LAYER)
    await house.start("offline: true\n")
    assert (await house.get("/v2/library/redis/manifests/1")).status == 503
    for path in (f"manifests/{digest}", f"blobs/{layer}"):
        assert (await house.get(f"/v2/library/redis/{path}")).status == 403
    assert not await house.is_ready()
    assert house.hub.requests == []


async def test_offline_by_configuration_a_tag_that_was_gone_stays_gone(house: House) -> None:
    house.hub.add_image("library/redis", "1", LAYER)
    await house.start()
    await house.pull()
    await house.grow_old(1.5)
    del house.hub.tags["library/redis"]["1"]
    await house.start()
    assert (await house.get("/v2/library/redis/manifests/1")).status == 404
    await house.grow_old(1)
    await house.start("offline: true\n")
    assert (await house.get("/v2/library/redis/manifests/1")).status == 503
    assert not await house.is_ready()


async def test_without_that_key_the_tags_time_goes_on_to_rule_and_ready_agrees(
    house: House,
) -> None:
    house.hub.add_image("library/redis", "1", LAYER)
    await house.start()
    await house.pull()
    await house.grow_old(0.5)
    await house.hub.__aexit__(None, None, None)
    await house.start()
    assert await house.is_ready()
    assert "Warning" in (await house.pull()).headers
    await house.grow_old(1)
    await house.start()
    assert not await house.is_ready()
    assert (await house.get("/v2/library/redis/manifests/1")).status == 503


async def test_while_no_endpoint_answers_all_that_is_cached_is_served_and_it_comes_back_by_itself(
    house: House,
) -> None:
    digest = house.hub.add_image("library/redis", "1", LAYER)
    await house.start(freshness="{ttl: 0s}")
    await house.pull()
    house.hub.fail("registry", status(503), 10_000)
    for _ in range(5):
        answer = await house.pull()
        assert answer.headers["Warning"].startswith("299")
    assert (await house.get(f"/v2/library/redis/manifests/{digest}")).status == 200
    new = house.hub.add_image("library/redis", "1", LAYER, b"more")
    house.hub.mend()

    async def is_new() -> bool:
        answer = await house.pull()
        return answer.headers["Docker-Content-Digest"] == new and "Warning" not in answer.headers

    await eventually(is_new, 30)
