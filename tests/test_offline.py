"""A mirror without its upstreams, whole: by its configuration, and because none of them answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .fakes.hub import status
from .running import DAY, LAYER, RunningMirror
from .waiting import eventually


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[RunningMirror]:
    async with RunningMirror.built(tmp_path) as mirror:
        yield mirror


@pytest.mark.parametrize("days", [0.5, 30, 390])
async def test_offline_by_configuration_a_cached_tag_is_served_however_old(
    mirror: RunningMirror, days: float
) -> None:
    mirror.hub.add_image("library/redis", "1", LAYER)
    await mirror.start()
    await mirror.pull()
    await mirror.grow_old(days)
    mirror.hub.requests.clear()
    await mirror.start("offline: true\n")
    answer = await mirror.pull()
    assert mirror.hub.requests == []
    assert answer.headers["Warning"].startswith("299")
    assert int(answer.headers["Age"]) == pytest.approx(days * DAY, abs=60)
    assert "stale" in answer.headers["Cache-Status"]
    assert await mirror.is_ready()


async def test_offline_by_configuration_what_is_not_here_is_refused_at_once(
    mirror: RunningMirror,
) -> None:
    digest = mirror.hub.add_image("library/redis", "1", LAYER)
    layer = mirror.hub.add_blob(LAYER)
    await mirror.start("offline: true\n")
    assert (await mirror.get("/v2/library/redis/manifests/1")).status == 503
    for path in (f"manifests/{digest}", f"blobs/{layer}"):
        assert (await mirror.get(f"/v2/library/redis/{path}")).status == 403
    assert not await mirror.is_ready()
    assert mirror.hub.requests == []


async def test_offline_by_configuration_a_tag_that_was_gone_stays_gone(
    mirror: RunningMirror,
) -> None:
    mirror.hub.add_image("library/redis", "1", LAYER)
    await mirror.start()
    await mirror.pull()
    await mirror.grow_old(1.5)
    del mirror.hub.tags["library/redis"]["1"]
    await mirror.start()
    assert (await mirror.get("/v2/library/redis/manifests/1")).status == 404
    await mirror.grow_old(1)
    await mirror.start("offline: true\n")
    assert (await mirror.get("/v2/library/redis/manifests/1")).status == 503
    assert not await mirror.is_ready()


async def test_without_that_key_the_tags_time_goes_on_to_rule_and_ready_agrees(
    mirror: RunningMirror,
) -> None:
    mirror.hub.add_image("library/redis", "1", LAYER)
    await mirror.start()
    await mirror.pull()
    await mirror.grow_old(0.5)
    await mirror.hub.__aexit__(None, None, None)
    await mirror.start()
    assert await mirror.is_ready()
    assert "Warning" in (await mirror.pull()).headers
    await mirror.grow_old(1)
    await mirror.start()
    assert not await mirror.is_ready()
    assert (await mirror.get("/v2/library/redis/manifests/1")).status == 503


async def test_while_no_endpoint_answers_all_that_is_cached_is_served_and_it_comes_back_by_itself(
    mirror: RunningMirror,
) -> None:
    digest = mirror.hub.add_image("library/redis", "1", LAYER)
    await mirror.start(freshness="{ttl: 0s}")
    await mirror.pull()
    mirror.hub.fail("registry", status(503), 10_000)
    for _ in range(5):
        answer = await mirror.pull()
        assert answer.headers["Warning"].startswith("299")
    assert (await mirror.get(f"/v2/library/redis/manifests/{digest}")).status == 200
    new = mirror.hub.add_image("library/redis", "1", LAYER, b"more")
    mirror.hub.mend()

    async def is_new() -> bool:
        answer = await mirror.pull()
        return answer.headers["Docker-Content-Digest"] == new and "Warning" not in answer.headers

    await eventually(is_new, 30)
