"""Retention: what its rules take away, and that nothing goes that what stays needs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mirror.contracts.events import ManifestDeleted, TagDeleted
from mirror.contracts.hosted import HostedManifest, HostedTag, RetentionRule
from mirror.hosted.retention import Retention
from mirror.hosted.retention_rules import expiring
from mirror.oci.digest import Digest
from tests.fakes import HandClock, MemoryRecords, Recorder

DAY = 86400.0
NOW = 100 * DAY


def digest(name: str) -> Digest:
    return Digest.of(name.encode())


def manifest(
    name: str, *parts: str, subject: str | None = None, age: float = 50 * DAY
) -> HostedManifest:
    return HostedManifest(
        digest(name),
        "application/x",
        1,
        manifests=tuple(map(digest, parts)),
        subject=None if subject is None else digest(subject),
        pushed_at=NOW - age,
    )


def tag(name: str, of: str, age: float = 50 * DAY) -> HostedTag:
    return HostedTag(name, digest(of), NOW - age)


def gone(
    rules: Sequence[RetentionRule],
    tags: Sequence[HostedTag],
    manifests: Sequence[HostedManifest],
    immutable: Sequence[str] = (),
) -> tuple[set[str], set[Digest]]:
    found = expiring(rules, immutable, tags, manifests, NOW)
    names = {one.tag.name for one in found.tags if one.tag is not None}
    return names, {one.digest for one in found.manifests}


VERSIONS = [tag(f"v{number}", f"m{number}", age=number * DAY) for number in range(1, 6)]
IMAGES = [manifest(f"m{number}", age=number * DAY) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("rules", "stay"),
    [
        ([], {"v1", "v2", "v3", "v4", "v5"}),
        ([RetentionRule(keep=2)], {"v1", "v2"}),
        ([RetentionRule(younger=3.5 * DAY)], {"v1", "v2", "v3"}),
        ([RetentionRule(keep=1, younger=2.5 * DAY)], {"v1", "v2"}),
        ([RetentionRule(("v5",)), RetentionRule(keep=1)], {"v1", "v5"}),
        ([RetentionRule(("v5",))], {"v5"}),
        ([RetentionRule(untagged=DAY)], {"v1", "v2", "v3", "v4", "v5"}),
        ([RetentionRule(keep=1), RetentionRule(untagged=DAY)], {"v1"}),
    ],
)
def test_which_tags_stay(rules: list[RetentionRule], stay: set[str]) -> None:
    tags, manifests = gone(rules, VERSIONS, IMAGES)
    assert {one.name for one in VERSIONS} - tags == stay
    assert manifests == {one.digest for one in VERSIONS if one.name not in stay}


def test_each_line_names_the_rule() -> None:
    rules = [RetentionRule(("v*",), keep=4), RetentionRule(("release-*",), younger=DAY)]
    found = expiring(rules, (), [*VERSIONS, tag("old", "m1")], IMAGES, NOW)
    assert {one.tag.name: one.why for one in found.tags if one.tag} == {
        "v5": "of v* the last 4 stay: it is number 5, moved 5 d ago",
        "old": "no rule means it: of v* the last 4 stay; of release-* those younger than 1 d stay",
    }
    assert "v5" in found.manifests[0].why


def test_an_immutable_tag_stays() -> None:
    assert gone([RetentionRule(keep=0)], VERSIONS, IMAGES, ["v[12]"])[0] == {"v3", "v4", "v5"}


def test_a_manifest_with_another_tag_stays() -> None:
    tags = [tag("old", "m"), tag("stable", "m")]
    assert gone([RetentionRule(("stable",))], tags, [manifest("m")]) == ({"old"}, set())


def test_manifests_without_a_tag_go_by_their_age_and_not_without_a_rule() -> None:
    manifests = [manifest("old", age=8 * DAY), manifest("young", age=6 * DAY)]
    assert gone([RetentionRule(untagged=7 * DAY)], [], manifests)[1] == {digest("old")}
    assert gone([RetentionRule(keep=1)], [], manifests)[1] == set()


def test_parts_of_an_index_that_stays_stay_and_of_one_that_goes_go() -> None:
    manifests = [
        manifest("new", "amd64", "shared"),
        manifest("old", "arm64", "shared", "nested"),
        manifest("nested", "s390x"),
        *map(manifest, ("amd64", "arm64", "shared", "s390x")),
    ]
    tags = [tag("new", "new", age=1), tag("old", "old")]
    went = gone([RetentionRule(keep=1, untagged=DAY)], tags, manifests)
    assert went == ({"old"}, {digest(name) for name in ("old", "arm64", "nested", "s390x")})
    # Also where nothing is said of manifests without a tag.
    assert gone([RetentionRule(keep=1)], tags, manifests) == went


def test_referrers_stay_with_their_subject_and_go_with_it() -> None:
    manifests = [
        manifest("new"),
        manifest("old"),
        manifest("signature of new", subject="new"),
        manifest("signature of old", subject="old"),
        manifest("of the signature of old", subject="signature of old"),
        manifest("of what is not here", subject="elsewhere"),
    ]
    tags = [tag("new", "new", age=1), tag("old", "old")]
    assert gone([RetentionRule(keep=1)], tags, manifests) == (
        {"old"},
        {digest(name) for name in ("old", "signature of old", "of the signature of old")},
    )
    assert gone([RetentionRule(untagged=DAY)], tags, manifests) == (
        set(),
        {digest("of what is not here")},
    )


def test_tags_that_stand_for_referrers_go_with_their_subject_and_are_counted_by_no_rule() -> None:
    lists = {name: f"sha256-{digest(name).hex}" for name in ("new", "old")}
    manifests = [
        manifest("new"),
        manifest("old"),
        manifest("list of new", "signature of new"),
        manifest("list of old", "signature of old"),
        manifest("signature of new"),
        manifest("signature of old"),
        manifest("cosign's"),
    ]
    tags = [
        tag("new", "new", age=1),
        tag("old", "old", age=2),
        tag(lists["new"], "list of new"),
        tag(lists["old"], "list of old", age=0),
        tag(f"{lists['old']}.sig", "cosign's", age=0),
    ]
    assert gone([RetentionRule(keep=1, untagged=DAY)], tags, manifests) == (
        {"old", lists["old"], f"{lists['old']}.sig"},
        {digest(name) for name in ("old", "list of old", "signature of old", "cosign's")},
    )


class Pushing(MemoryRecords):
    """Somebody pushes the tag anew while its end is planned."""

    async def tags(
        self, repository: str, count: int | None = None, last: str | None = None
    ) -> Sequence[HostedTag]:
        found = await super().tags(repository, count, last)
        if found:
            again = await self.manifest(repository, digest("again"))
            assert again is not None
            await self.put_manifest(repository, again, "v1", NOW + 1, "ann")
        return found


async def repository(records: MemoryRecords) -> tuple[Retention, Recorder]:
    for at, name in ((1, "m"), (2, "again")):
        made = HostedManifest(digest(name), "application/x", 1)
        await records.put_manifest("team/app", made, "v1" if name == "m" else "v2", at, "ann")
    await records.change("team/app", retention=[RetentionRule(younger=DAY)])
    events = Recorder()
    hand = HandClock(NOW)
    return Retention("registry", records, events, hand.clock(), lambda: DAY), events


async def test_rules_are_followed_and_told() -> None:
    records = MemoryRecords()
    retention, events = await repository(records)
    planned = await retention.plan("team/app")
    assert len(planned.tags) == 2
    assert len(await records.tags("team/app")) == 2
    followed = await retention.run()
    assert (followed.tags, followed.manifests, followed.failed) == (2, 2, 0)
    assert not await records.tags("team/app")
    assert [event.tag for event in events.of(TagDeleted)] == ["v1", "v2"]
    assert len(events.of(ManifestDeleted)) == 2
    assert (await records.history("team/app", "v1"))[0].by == "retention"


async def test_a_tag_that_is_pushed_while_its_end_is_planned_stays() -> None:
    records = Pushing()
    retention, _ = await repository(records)
    went = await retention.apply("team/app")
    assert [one.tag.name for one in went.tags if one.tag] == ["v2"]
    tag = await records.resolve("team/app", "v1")
    assert tag is not None
    assert tag.digest == digest("again")
    assert await records.has_manifest("team/app", digest("again"))


async def test_an_old_manifest_without_a_tag_stays_while_a_push_goes_by_it() -> None:
    records = MemoryRecords()
    made = HostedManifest(digest("part"), "application/x", 1)
    await records.put_manifest("team/app", made, None, 1, "ann")
    await records.change("team/app", retention=[RetentionRule(untagged=DAY)])
    await records.has_manifest("team/app", digest("part"), renew=NOW - 5)
    hand = HandClock(NOW)
    retention = Retention("registry", records, Recorder(), hand.clock(), lambda: DAY)
    assert not (await retention.apply("team/app")).manifests
    hand.now += DAY
    assert len((await retention.apply("team/app")).manifests) == 1


class Slow(MemoryRecords):
    """Somebody takes the rules of team/other away while those of team/app are followed."""

    async def tags(
        self, repository: str, count: int | None = None, last: str | None = None
    ) -> Sequence[HostedTag]:
        await self.change("team/other", immutable=["*"], retention=[])
        return await super().tags(repository, count, last)


async def test_rules_are_followed_as_they_are_when_their_turn_comes() -> None:
    records = Slow()
    retention, _ = await repository(records)
    made = HostedManifest(digest("other"), "application/x", 1)
    await records.put_manifest("team/other", made, "v1", 1, "ann")
    await records.change("team/other", retention=[RetentionRule(keep=0)])
    await retention.run()
    assert await records.resolve("team/other", "v1") is not None


class Broken(MemoryRecords):
    async def manifests(
        self, repository: str, count: int | None = None, after: Digest | None = None
    ) -> Sequence[HostedManifest]:
        if repository == "team/app":
            raise OSError("disk I/O error")
        return await super().manifests(repository, count, after)


async def test_a_repository_that_cannot_be_read_holds_up_no_other() -> None:
    records = Broken()
    retention, _ = await repository(records)
    made = HostedManifest(digest("other"), "application/x", 1)
    await records.put_manifest("team/other", made, "v1", 1, "ann")
    await records.change("team/other", retention=[RetentionRule(keep=0)])
    followed = await retention.run()
    assert (followed.tags, followed.failed) == (1, 1)
