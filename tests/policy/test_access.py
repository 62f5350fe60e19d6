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


class DatedImages:
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
        return self.registry.add_image(created, *tags, note=len(self.registry.asked))

    def saw(self, digest: Digest | None, days: float) -> None:
        """The tag pointed there since so many days ago; later than whatever was seen before."""
        self.events.insert(0, TagEvent(digest, NOW - days * DAY, NOW - days * DAY + 60))


@pytest.fixture
def dated(tmp_path: Path) -> DatedImages:
    return DatedImages(tmp_path)


def rule(name: str, pattern: str, allows: bool, min_age: float = 0.0) -> AccessRule:
    return AccessRule(name, Patterns([pattern]), allows, min_age)


COOL = rule("cool-down", "*", True, 3 * DAY)


@pytest.mark.parametrize("method", ASKS)
async def test_whatever_is_asked_of_a_denied_repository_is_refused_by_the_rules_name(
    dated: DatedImages, method: str
) -> None:
    guarded = dated.guarded(rule("no-acme", "ghcr.io/acme/*", False))
    with pytest.raises(Denied, match=r"'no-acme'.*ghcr\.io/acme/app"):
        await getattr(guarded, method)(CONTEXT, APP, *ASKS[method])
    assert not dated.registry.asked


@pytest.mark.parametrize("method", ASKS)
async def test_what_is_allowed_and_what_no_rule_means_is_passed_on(
    dated: DatedImages, method: str
) -> None:
    dated.registry.failures = {method: ManifestUnknown("asked")}
    guarded = dated.guarded(rule("ours", "acme/*", True), rule("no-ghcr", "ghcr.io/*", False))
    for repository in (APP, Repository("quay.io", "any/thing")):
        with pytest.raises(ManifestUnknown, match="asked"):
            await getattr(guarded, method)(CONTEXT, repository, *ASKS[method])


async def test_the_first_rule_that_means_a_repository_decides(dated: DatedImages) -> None:
    guarded = dated.guarded(rule("no-acme", "acme/*", False), rule("ours", "acme/app", True))
    with pytest.raises(Denied, match="'no-acme'"):
        await guarded.tags(CONTEXT, APP)


async def test_an_old_image_is_answered(dated: DatedImages) -> None:
    digest = dated.image(4, "latest")
    resolved = await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == digest


@pytest.mark.parametrize(
    ("days", "created"),
    [(2, None), (-1, None), (None, None), (None, "yesterday"), (None, 5), (None, "9" * 500)],
)
async def test_a_young_image_that_was_nothing_before_is_held_back(
    dated: DatedImages, days: float | None, created: object
) -> None:
    dated.image(days, "latest", created=created)
    with pytest.raises(Denied, match=r"'cool-down'.*less than 3 days ago"):
        await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_a_young_image_can_be_had_by_its_digest(dated: DatedImages) -> None:
    digest = dated.image(1, "latest")
    assert (await dated.guarded(COOL).manifest(CONTEXT, APP, digest)).descriptor.digest == digest


async def test_a_tag_that_moved_lately_answers_what_it_was_before(dated: DatedImages) -> None:
    old, new = dated.image(400), dated.image(1, "latest")
    dated.saw(old, 200)
    dated.saw(new, 1)
    resolved = await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == old
    assert resolved.age == pytest.approx(200 * DAY - 60)


async def test_a_forged_time_of_building_does_not_move_a_tag(dated: DatedImages) -> None:
    old, forged = dated.image(400), dated.image(300, "latest")
    dated.saw(old, 1.5)  # its own time of building is all there is, and enough: it came first
    dated.saw(forged, 1)
    resolved = await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == old


async def test_nor_do_so_many_moves_that_the_first_is_forgotten(dated: DatedImages) -> None:
    for n in range(MOST):
        dated.saw(dated.image(300 + n, "latest"), 1)
    with pytest.raises(Denied, match="cool-down"):
        await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_nor_does_making_the_mirror_forget_that_it_was_there(dated: DatedImages) -> None:
    forged = dated.image(300, "latest")
    dated.forgot = True
    for seen in (None, 1):
        if seen is not None:
            dated.saw(forged, seen)
        with pytest.raises(Denied, match="cool-down"):
            await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    dated.events.clear()
    dated.saw(forged, 4)
    assert await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_a_move_is_believed_once_it_is_old_enough(dated: DatedImages) -> None:
    old, new = dated.image(400), dated.image(None, "latest")
    dated.saw(old, 200)
    dated.saw(new, 4)
    resolved = await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == new


async def test_of_several_before_the_newest_that_is_old_enough_is_answered(
    dated: DatedImages,
) -> None:
    images = [dated.image(400), dated.image(50), dated.image(2), dated.image(1, "latest")]
    dated.saw(images[0], 200)
    dated.saw(images[1], 40)
    dated.saw(None, 30)  # it was gone for a while
    dated.saw(images[2], 2)
    dated.saw(images[3], 1)
    resolved = await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert resolved.descriptor.digest == images[1]


async def test_what_it_was_before_has_to_be_there_still(dated: DatedImages) -> None:
    dated.saw(Digest.of(b"gone"), 200)
    dated.saw(dated.image(1, "latest"), 1)
    with pytest.raises(Denied, match="cool-down"):
        await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")


async def test_something_without_a_time_of_building_is_as_old_as_it_was_seen(
    dated: DatedImages,
) -> None:
    chart = dated.image(None, "latest")
    dated.saw(chart, 4)
    assert (await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")).descriptor.digest == chart


async def test_an_image_speaks_for_its_index(dated: DatedImages) -> None:
    image = dated.image(10)
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
    digest = dated.registry.add_manifest(json.dumps(index).encode(), "latest", media_type=OCI_INDEX)
    assert (await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")).descriptor.digest == digest


async def test_without_the_memory_of_tags_the_time_of_building_decides(dated: DatedImages) -> None:
    dated.broken = True
    old = dated.image(10, "old")
    dated.image(1, "young")
    assert (await dated.guarded(COOL).resolve(CONTEXT, APP, "old")).descriptor.digest == old
    with pytest.raises(Denied):
        await dated.guarded(COOL).resolve(CONTEXT, APP, "young")


async def test_an_upstream_that_is_down_is_no_reason_to_deny_for_long(dated: DatedImages) -> None:
    dated.image(10, "latest")
    dated.registry.failures["blob"] = Unavailable("down")
    with pytest.raises(Unavailable):
        await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    dated.registry.failures.clear()
    assert await dated.guarded(COOL).resolve(CONTEXT, APP, "latest")
    assert dated.registry.open == 0
