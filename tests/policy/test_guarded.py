"""Rules on what may be read, and on how long ago it must have appeared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.tags import TagEvent, TagStoreError
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, ManifestUnknown, Unavailable
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.patterns import Patterns
from mirror.oci.reference import Repository
from mirror.policy.access import AccessGuard, AccessRule
from mirror.policy.tag_age import TagAges

from ..fakes import CONTEXT, FakeRegistry

NOW = 1_800_000_000.0
DAY = 86400.0
MOST = 10
SOME = Digest.of(b"some")
APP = Repository("ghcr.io", "acme/app")

ASKS = {
    "resolve": ("latest",),
    "manifest": (SOME,),
    "stat": (SOME,),
    "blob": (SOME,),
    "referrers": (SOME,),
    "tags": (),
}


class House:
    """A registry whose images say when they were built, and the mirror's memory of its tag."""

    def __init__(self, folder: Path) -> None:
        self.registry = FakeRegistry(folder)
        self.events: list[TagEvent] = []
        self.broken = False
        self.forgot = False

    async def history(self, repository: Repository, tag: str) -> Sequence[TagEvent]:
        if self.broken:
            raise TagStoreError("broken")
        return self.events

    async def has_forgotten(self, repository: Repository) -> bool:
        if self.broken:
            raise TagStoreError("broken")
        return self.forgot

    def guarded(self, *rules: AccessRule) -> AccessGuard:
        clock = Clock(wall=lambda: NOW)
        return AccessGuard(self.registry, rules, TagAges(self.registry, self, MOST, clock))

    def image(self, days: float | None, *tags: str, created: object = None) -> Digest:
        """One that was built so many days ago, or that says something else."""
        if days is not None:
            created = datetime.fromtimestamp(NOW - days * DAY, UTC).isoformat()
        config = json.dumps({"created": created, "salt": len(self.registry.asked)}).encode()
        blob = self.registry.add_blob(config)
        entry = {"mediaType": "x/y", "digest": str(blob), "size": len(config)}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": []}
        return self.registry.add_manifest(json.dumps(document).encode(), *tags)

    def saw(self, digest: Digest | None, days: float) -> None:
        """The tag pointed there since so many days ago; later than whatever was seen before."""
        self.events.insert(0, TagEvent(digest, NOW - days * DAY, NOW - days * DAY + 60))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def rule(name: str, pattern: str, allows: bool, min_age: float = 0.0) -> AccessRule:
    return AccessRule(name, Patterns([pattern]), allows, min_age)


COOL = rule("cool-down", "*", True, 3 * DAY)


@pytest.mark.parametrize("method", ASKS)
async def test_whatever_is_asked_of_a_denied_repository_is_refused_by_the_rules_name(
    house: House, method: str
) -> None:
    guarded = house.guarded(rule("no-acme", "ghcr.io/acme/*", False))
    with pytest.raises(Denied, match=r"'no-acme'.*ghcr\.io/acme/app"):
        await getattr(guarded, method)(CONTEXT, APP, *ASKS[method])
    assert not house.registry.asked


@pytest.mark.parametrize("method", ASKS)
async def test_what_is_allowed_and_what_no_rule_means_is_passed_on(
    house: House, method: str
) -> None:
    house.registry.failures = {method: ManifestUnknown("asked")}
    guarded = house.guarded(rule("ours", "acme/*", True), rule("no-ghcr", "ghcr.io/*", False))
    for repository in (APP, Repository("quay.io", "any/thing")):
        with pytest.raises(ManifestUnknown, match="asked"):
            await getattr(guarded, method)(CONTEXT, repository, *ASKS[method])


async def test_the_first_rule_that_means_a_repository_decides(house: House) -> None:
    guarded = house.guarded(rule("no-acme", "acme/*", False), rule("ours", "acme/app", True))
    with pytest.raises(Denied, match="'no-acme'"):
        await guarded.tags(CONTEXT, APP)


async def test_an_old_image_is_answered(house: House) -> None:
    digest = house.image(4, "latest")
    resolved = await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == digest


@pytest.mark.parametrize(
    ("days", "created"),
    [(2, None), (-1, None), (None, None), (None, "yesterday"), (None, 5), (None, "9" * 500)],
)
async def test_a_young_image_that_was_nothing_before_is_held_back(
    house: House, days: float | None, created: object
) -> None:
    house.image(days, "latest", created=created)
    with pytest.raises(Denied, match=r"'cool-down'.*less than 3 days ago"):
        await house.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_a_young_image_can_be_had_by_its_digest(house: House) -> None:
    digest = house.image(1, "latest")
    assert (await house.guarded(COOL).manifest(CONTEXT, APP, digest)).descriptor.digest == digest


async def test_a_tag_that_moved_lately_answers_what_it_was_before(house: House) -> None:
    old, new = house.image(400), house.image(1, "latest")
    house.saw(old, 200)
    house.saw(new, 1)
    resolved = await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == old
    assert resolved.age == pytest.approx(200 * DAY - 60)


async def test_a_forged_time_of_building_does_not_move_a_tag(house: House) -> None:
    old, forged = house.image(400), house.image(300, "latest")
    house.saw(old, 1.5)  # its own time of building is all there is, and enough: it came first
    house.saw(forged, 1)
    resolved = await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == old


async def test_nor_do_so_many_moves_that_the_first_is_forgotten(house: House) -> None:
    for n in range(MOST):
        house.saw(house.image(300 + n, "latest"), 1)
    with pytest.raises(Denied, match="cool-down"):
        await house.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_nor_does_making_the_mirror_forget_that_it_was_there(house: House) -> None:
    forged = house.image(300, "latest")
    house.forgot = True
    for seen in (None, 1):
        if seen is not None:
            house.saw(forged, seen)
        with pytest.raises(Denied, match="cool-down"):
            await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    house.events.clear()
    house.saw(forged, 4)
    assert await house.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_a_move_is_believed_once_it_is_old_enough(house: House) -> None:
    old, new = house.image(400), house.image(None, "latest")
    house.saw(old, 200)
    house.saw(new, 4)
    resolved = await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == new


async def test_of_several_before_the_newest_that_is_old_enough_is_answered(house: House) -> None:
    images = [house.image(400), house.image(50), house.image(2), house.image(1, "latest")]
    house.saw(images[0], 200)
    house.saw(images[1], 40)
    house.saw(None, 30)  # it was gone for a while
    house.saw(images[2], 2)
    house.saw(images[3], 1)
    resolved = await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == images[1]


async def test_what_it_was_before_has_to_be_there_still(house: House) -> None:
    house.saw(Digest.of(b"gone"), 200)
    house.saw(house.image(1, "latest"), 1)
    with pytest.raises(Denied, match="cool-down"):
        await house.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_something_without_a_time_of_building_is_as_old_as_it_was_seen(house: House) -> None:
    chart = house.image(None, "latest")
    house.saw(chart, 4)
    assert (await house.guarded(COOL).resolve(CONTEXT, APP, "latest")).descriptor.digest == chart


async def test_an_image_speaks_for_its_index(house: House) -> None:
    image = house.image(10)
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": str(digest),
            "size": 1,
            "platform": {"os": os, "architecture": architecture},
        }
        for digest, os, architecture in [
            (SOME, "unknown", "unknown"),
            (SOME, "linux", "arm64"),
            (image, "linux", "amd64"),
        ]
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    digest = house.registry.add_manifest(json.dumps(index).encode(), "latest", media_type=OCI_INDEX)
    assert (await house.guarded(COOL).resolve(CONTEXT, APP, "latest")).descriptor.digest == digest


async def test_without_the_memory_of_tags_the_time_of_building_decides(house: House) -> None:
    house.broken = True
    old = house.image(10, "old")
    house.image(1, "young")
    assert (await house.guarded(COOL).resolve(CONTEXT, APP, "old")).descriptor.digest == old
    with pytest.raises(Denied):
        await house.guarded(COOL).resolve(CONTEXT, APP, "young")


async def test_an_upstream_that_is_down_is_no_reason_to_deny_for_long(house: House) -> None:
    house.image(10, "latest")
    house.registry.failures["blob"] = Unavailable("down")
    with pytest.raises(Unavailable):
        await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    house.registry.failures.clear()
    assert await house.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert house.registry.open == 0
