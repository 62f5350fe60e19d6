"""Tags through a whole mirror: how old they may be, what they were, and what holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .running import LAYER, Answer, House
from .waiting import eventually


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House.built(tmp_path) as house:
        yield house


def push(house: House, tag: str, note: str) -> str:
    return house.hub.add_image("library/redis", tag, LAYER, note.encode())


async def tag(house: House, tag: str) -> Answer:
    return await house.get(f"/v2/library/redis/manifests/{tag}")


def digest(answer: Answer) -> str:
    return answer.headers["Docker-Content-Digest"]


async def test_each_tag_is_as_fresh_as_the_first_rule_that_means_it_says(house: House) -> None:
    await house.start(
        freshness="[{match: 'library/*:v[0-9]*', immutable: true}, "
        "{match: ['*:kept', '*:other'], ttl: 0s, on_404: keep}, "
        "{match: '*:slow', ttl: 0s, stale_while_revalidate: 1h}, {ttl: 1h}]"
    )
    old = {name: push(house, name, f"old {name}") for name in ("v1", "kept", "slow", "any")}
    for name in old:
        await house.pull(name)
    new = {name: push(house, name, f"new {name}") for name in old}
    del house.hub.tags["library/redis"]["kept"]
    house.hub.requests.clear()
    for name in ("v1", "any"):
        answer = await tag(house, name)
        assert digest(answer) == old[name]
        assert "Warning" not in answer.headers
        assert "hit" in answer.headers["Cache-Status"]
    assert house.hub.requests == []
    gone = await tag(house, "kept")
    assert digest(gone) == old["kept"]
    assert gone.headers["Warning"].startswith("299")
    revalidated = await tag(house, "slow")
    assert digest(revalidated) == old["slow"]
    assert revalidated.headers["Warning"].startswith("299")

    async def is_new() -> bool:
        return digest(await tag(house, "slow")) == new["slow"]

    await eventually(is_new)


async def test_a_registry_has_its_own_freshness(house: House) -> None:
    await house.start(
        f"  ghcr.io: {{endpoints: [{{url: '{house.hub.url}'}}], freshness: {{ttl: 0s}}}}\n",
        freshness="{ttl: 1h}",
    )
    for registry in ("docker.io", "ghcr.io"):
        house.hub.add_image("acme/app", "1", b"old")
        assert (await house.get(f"/v2/{registry}/acme/app/manifests/1")).status == 200
    house.hub.requests.clear()
    for registry, asked in (("docker.io", 0), ("ghcr.io", 1)):
        await house.get(f"/v2/{registry}/acme/app/manifests/1")
        assert house.hub.count("registry", "HEAD", "manifests/1") == asked


async def test_a_tag_is_rechecked_by_head(house: House) -> None:
    push(house, "1", "old")
    await house.start(freshness="{ttl: 0s}")
    await house.pull()
    house.hub.requests.clear()
    await house.pull()
    assert [one.method for one in house.hub.seen("registry")] == ["HEAD"]


async def test_at_the_limit_cached_tags_are_answered_stale_and_misses_say_what_helps(
    house: House,
) -> None:
    old = push(house, "1", "old")
    house.hub.limit = 1
    await house.start(freshness="{ttl: 0s}")
    await house.pull()
    push(house, "1", "new")
    for _ in range(3):
        answer = await tag(house, "1")
        assert digest(answer) == old
        assert answer.headers["Warning"].startswith("299")
    push(house, "2", "another")
    missed = await tag(house, "2")
    assert missed.status == 503
    assert int(missed.headers["Retry-After"]) > 21_000
    for words in (b"its 1 manifests in 6 h", b"pulls none before", b"a login (credentials)"):
        assert words in missed.body
    assert house.hub.count("registry", "GET", "manifests/") == 2  # one that was given, and the 429
    house.hub.pulls.clear()  # a new window; a HEAD tells of it
    assert (await tag(house, "2")).status == 200


async def test_below_the_threshold_a_tag_is_fresh_for_longer(house: House) -> None:
    old = push(house, "1", "old")
    house.hub.limit = 10
    for low, asked in (("90%", 1), ("91%", 0)):  # nine of ten are left
        await house.start(freshness="{ttl: 10h}", quota=f"{{low: {low}}}")
        await house.pull()
        await house.grow_old(0.5)
        house.hub.pulls.clear()
        await house.start(freshness="{ttl: 10h}", quota=f"{{low: {low}}}")
        push(house, "2", low)
        await house.pull("2")  # by which it learns how many are left
        house.hub.requests.clear()
        assert digest(await tag(house, "1")) == old
        assert house.hub.count("registry", "HEAD", "manifests/1") == asked


async def test_a_tag_is_frozen_by_the_configuration_or_by_command(house: House) -> None:
    old = push(house, "1", "old")
    await house.start(freshness="{ttl: 0s}")
    await house.pull()
    new = push(house, "1", "new")
    assert digest(await house.pull()) == new
    await house.start(f"pin: {{'redis:1': '{old}'}}\n", freshness="{ttl: 0s}")
    assert digest(await house.pull()) == old
    await house.start(freshness="{ttl: 0s}")
    assert digest(await house.pull()) == new
    _, history = await house.command("tags", "redis:1")
    assert history.index(new) < history.index(old)
    _, said = await house.command("pin", "redis:1", old)
    assert f"docker.io/library/redis:1 is frozen to {old}." in " ".join(said.split())

    async def is_frozen() -> bool:
        return digest(await house.pull()) == old

    await eventually(is_frozen)
    await house.command("unpin", "redis:1")

    async def follows() -> bool:
        return digest(await house.pull()) == new

    await eventually(follows)


async def test_a_tag_that_moved_lately_answers_what_it_was_before(house: House) -> None:
    old = push(house, "1", "old")
    rule = "access: [{name: cool-down, allow: 'library/*', min_age: 3d}]\n"
    await house.start(freshness="{ttl: 0s}")
    await house.pull()
    await house.grow_old(4)
    new = push(house, "1", "new")
    await house.start(rule, freshness="{ttl: 0s}")
    assert digest(await house.pull()) == old
    assert digest(await tag(house, new)) == new  # whoever asks by digest has chosen
    await house.grow_old(4)
    await house.start(rule, freshness="{ttl: 0s}")
    assert digest(await house.pull()) == new
