"""Tags through a whole mirror: how old they may be, what they were, and what holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .running import LAYER, Answer, RunningMirror
from .waiting import eventually


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[RunningMirror]:
    async with RunningMirror.built(tmp_path) as mirror:
        yield mirror


def push(mirror: RunningMirror, tag: str, note: str) -> str:
    return mirror.hub.add_image("library/redis", tag, LAYER, note.encode())


async def tag(mirror: RunningMirror, tag: str) -> Answer:
    return await mirror.get(f"/v2/library/redis/manifests/{tag}")


def digest(answer: Answer) -> str:
    return answer.headers["Docker-Content-Digest"]


async def test_each_tag_is_as_fresh_as_the_first_rule_that_means_it_says(
    mirror: RunningMirror,
) -> None:
    await mirror.start(
        freshness="[{match: 'library/*:v[0-9]*', immutable: true}, "
        "{match: ['*:kept', '*:other'], ttl: 0s, on_404: keep}, "
        "{match: '*:slow', ttl: 0s, stale_while_revalidate: 1h}, {ttl: 1h}]"
    )
    old = {name: push(mirror, name, f"old {name}") for name in ("v1", "kept", "slow", "any")}
    for name in old:
        await mirror.pull(name)
    new = {name: push(mirror, name, f"new {name}") for name in old}
    del mirror.hub.tags["library/redis"]["kept"]
    mirror.hub.requests.clear()
    for name in ("v1", "any"):
        answer = await tag(mirror, name)
        assert digest(answer) == old[name]
        assert "Warning" not in answer.headers
        assert "hit" in answer.headers["Cache-Status"]
    assert mirror.hub.requests == []
    gone = await tag(mirror, "kept")
    assert digest(gone) == old["kept"]
    assert gone.headers["Warning"].startswith("299")
    revalidated = await tag(mirror, "slow")
    assert digest(revalidated) == old["slow"]
    assert revalidated.headers["Warning"].startswith("299")

    async def is_new() -> bool:
        return digest(await tag(mirror, "slow")) == new["slow"]

    await eventually(is_new)


async def test_a_registry_has_its_own_freshness(mirror: RunningMirror) -> None:
    await mirror.start(
        f"  ghcr.io: {{endpoints: [{{url: '{mirror.hub.url}'}}], freshness: {{ttl: 0s}}}}\n",
        freshness="{ttl: 1h}",
    )
    for registry in ("docker.io", "ghcr.io"):
        mirror.hub.add_image("acme/app", "1", b"old")
        assert (await mirror.get(f"/v2/{registry}/acme/app/manifests/1")).status == 200
    mirror.hub.requests.clear()
    for registry, asked in (("docker.io", 0), ("ghcr.io", 1)):
        await mirror.get(f"/v2/{registry}/acme/app/manifests/1")
        assert mirror.hub.count("registry", "HEAD", "manifests/1") == asked


async def test_a_tag_is_rechecked_by_head(mirror: RunningMirror) -> None:
    push(mirror, "1", "old")
    await mirror.start(freshness="{ttl: 0s}")
    await mirror.pull()
    mirror.hub.requests.clear()
    await mirror.pull()
    assert [one.method for one in mirror.hub.seen("registry")] == ["HEAD"]


async def test_at_the_limit_cached_tags_are_answered_stale_and_misses_say_what_helps(
    mirror: RunningMirror,
) -> None:
    old = push(mirror, "1", "old")
    mirror.hub.limit = 1
    await mirror.start(freshness="{ttl: 0s}")
    await mirror.pull()
    push(mirror, "1", "new")
    for _ in range(3):
        answer = await tag(mirror, "1")
        assert digest(answer) == old
        assert answer.headers["Warning"].startswith("299")
    push(mirror, "2", "another")
    missed = await tag(mirror, "2")
    assert missed.status == 503
    assert int(missed.headers["Retry-After"]) > 21_000
    for words in (b"its 1 manifests in 6 h", b"pulls none before", b"a login (credentials)"):
        assert words in missed.body
    # The challenge, one that was given, and the 429.
    assert mirror.hub.count("registry", "GET", "manifests/") == 3
    mirror.hub.pulls.clear()  # a new window; a HEAD tells of it
    assert (await tag(mirror, "2")).status == 200


async def test_below_the_threshold_a_tag_is_fresh_for_longer(mirror: RunningMirror) -> None:
    old = push(mirror, "1", "old")
    mirror.hub.limit = 10
    for low, asked in (("90%", 1), ("91%", 0)):  # nine of ten are left
        await mirror.start(freshness="{ttl: 10h}", quota=f"{{low: {low}}}")
        await mirror.pull()
        await mirror.grow_old(0.5)
        mirror.hub.pulls.clear()
        await mirror.start(freshness="{ttl: 10h}", quota=f"{{low: {low}}}")
        push(mirror, "2", low)
        await mirror.pull("2")  # by which it learns how many are left
        mirror.hub.requests.clear()
        assert digest(await tag(mirror, "1")) == old
        assert mirror.hub.count("registry", "HEAD", "manifests/1") == asked


async def test_a_tag_is_frozen_by_the_configuration_or_by_command(mirror: RunningMirror) -> None:
    old = push(mirror, "1", "old")
    await mirror.start(freshness="{ttl: 0s}")
    await mirror.pull()
    new = push(mirror, "1", "new")
    assert digest(await mirror.pull()) == new
    await mirror.start(f"pin: {{'redis:1': '{old}'}}\n", freshness="{ttl: 0s}")
    assert digest(await mirror.pull()) == old
    await mirror.start(freshness="{ttl: 0s}")
    assert digest(await mirror.pull()) == new
    _, history = await mirror.command("tags", "redis:1")
    assert history.index(new) < history.index(old)
    _, said = await mirror.command("pin", "redis:1", old)
    assert f"docker.io/library/redis:1 is frozen to {old}." in " ".join(said.split())

    async def is_frozen() -> bool:
        return digest(await mirror.pull()) == old

    await eventually(is_frozen)
    await mirror.command("unpin", "redis:1")

    async def follows() -> bool:
        return digest(await mirror.pull()) == new

    await eventually(follows)


async def test_a_tag_that_moved_lately_answers_what_it_was_before(mirror: RunningMirror) -> None:
    old = push(mirror, "1", "old")
    rule = "access: [{name: cool-down, allow: 'library/*', min_age: 3d}]\n"
    await mirror.start(freshness="{ttl: 0s}")
    await mirror.pull()
    await mirror.grow_old(4)
    new = push(mirror, "1", "new")
    await mirror.start(rule, freshness="{ttl: 0s}")
    assert digest(await mirror.pull()) == old
    assert digest(await tag(mirror, new)) == new  # whoever asks by digest has chosen
    await mirror.grow_old(4)
    await mirror.start(rule, freshness="{ttl: 0s}")
    assert digest(await mirror.pull()) == new
