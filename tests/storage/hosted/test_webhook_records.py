"""WebhookRecords, on each engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection

from mirror.contracts.hosted import HostedManifest, TagImmutable
from mirror.contracts.webhooks import (
    KEPT,
    MOST_KEPT,
    MOST_WAITING,
    MOST_WEBHOOKS,
    Backlog,
    DeliveryState,
    Happening,
    Subject,
    Webhook,
)
from mirror.oci.digest import Digest
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.deliveries import add
from mirror.storage.records.hosted.repositories import RepositoryRecords
from mirror.storage.records.hosted.webhooks import HookRecords

NOW = 1_000_000.0
APP = "team/app"
HOOK = Webhook("one", "team", "https://x", (Subject.PUSH, Subject.DELETE), "*", NOW, "ann")
ALL = replace(HOOK, id="all", namespace="")
PUSHED = Happening(Subject.PUSH, APP, NOW)


@pytest.fixture
def hooks(database: Database) -> HookRecords:
    return HookRecords(database)


async def test_webhooks(hooks: HookRecords) -> None:
    assert await hooks.add_webhook(HOOK, "secret")
    assert await hooks.add_webhook(ALL, "secret")
    assert await hooks.webhooks() == [HOOK, ALL]
    assert await hooks.webhooks("") == [ALL]
    changed = replace(HOOK, url="https://y", subjects=(Subject.PUSH,), is_disabled=True)
    assert await hooks.set_webhook(replace(changed, namespace="other"))
    assert await hooks.webhook("one") == changed
    assert not await hooks.set_webhook(replace(HOOK, id="none"))
    assert await hooks.remove_webhook("one")
    assert not await hooks.remove_webhook("one")
    assert await hooks.webhook("one") is None


async def test_a_namespace_has_so_many(hooks: HookRecords) -> None:
    for number in range(MOST_WEBHOOKS):
        assert await hooks.add_webhook(replace(HOOK, id=f"{number}"), "s")
    assert not await hooks.add_webhook(HOOK, "s")
    assert await hooks.add_webhook(ALL, "s")


async def test_what_repositories_record_is_told(hooks: HookRecords, database: Database) -> None:
    repositories = RepositoryRecords(database)
    for hook in (HOOK, ALL, replace(HOOK, id="not", pattern="other*")):
        await hooks.add_webhook(hook, "s")
    await hooks.add_webhook(replace(HOOK, id="theirs", namespace="theirs"), "s")
    digest = Digest.of(b"m")
    manifest = HostedManifest(digest, "a/b", 5)
    await repositories.put_manifest(APP, manifest, "v1", NOW, "ann")
    await repositories.put_manifest(APP, manifest, "v1", NOW + 1, "ann")
    await repositories.delete_tag(APP, "v1", NOW + 2, "ann")
    await repositories.delete_manifest(APP, digest, NOW + 3, "ann")
    await repositories.delete_repository(APP, NOW + 4, "ann")
    told = [each.happening for each in await hooks.deliveries("one")][::-1]
    pushed = Happening(Subject.PUSH, APP, NOW, "ann", digest, "v1", "a/b", 5)
    assert told == [
        pushed,
        replace(pushed, at=NOW + 1),
        Happening(Subject.DELETE, APP, NOW + 2, "ann", digest, "v1"),
        Happening(Subject.DELETE, APP, NOW + 3, "ann", digest, "", "a/b", 5),
        Happening(Subject.DELETE, APP, NOW + 4, "ann"),
    ]
    assert [each.happening for each in await hooks.deliveries("all")][::-1] == told
    assert await hooks.deliveries("not") == []
    assert await hooks.deliveries("theirs") == []


async def test_what_was_not_recorded_is_not_told(hooks: HookRecords, database: Database) -> None:
    repositories = RepositoryRecords(database)
    await repositories.put_manifest(APP, HostedManifest(Digest.of(b"1"), "a/b", 5), "v", NOW, "")
    await repositories.change(APP, immutable=["v"])
    await hooks.add_webhook(HOOK, "s")
    other = HostedManifest(Digest.of(b"2"), "a/b", 5)
    with pytest.raises(TagImmutable):
        await repositories.put_manifest(APP, other, "v", NOW, "")
    assert await hooks.deliveries("one") == []


async def test_deliveries_are_claimed_in_turn(hooks: HookRecords) -> None:
    await hooks.add_webhook(HOOK, "secret")
    await hooks.add_webhook(ALL, "other")
    assert await hooks.claim(NOW, NOW + 60, 9) == ()
    assert await hooks.tell(PUSHED) == 2
    assert await hooks.tell(replace(PUSHED, at=NOW + 1)) == 2
    assert await hooks.claim(NOW, NOW + 60, 9, ["one"], [""]) == ()
    due = await hooks.claim(NOW + 1, NOW + 60, 9)
    assert sorted((each.webhook.id, each.secret) for each in due) == [
        ("all", "other"),
        ("one", "secret"),
    ]
    assert {each.delivery.happening.at for each in due} == {NOW}
    [mine] = [each.delivery for each in due if each.webhook.id == "one"]
    await hooks.attempted(
        mine.id, NOW + 2, DeliveryState.WAITING, 500, "x\0" * 999, NOW + 30, NOW + 20
    )
    hook = await hooks.webhook("one")
    assert hook is not None
    assert (hook.waiting, hook.failures, hook.rests_until) == (2, 1, NOW + 20)
    assert await hooks.claim(NOW + 10, NOW + 70, 9, ["all"]) == ()
    [due_next] = await hooks.claim(NOW + 20, NOW + 70, 9, ["all"])
    assert due_next.delivery.happening.at == NOW + 1
    await hooks.attempted(due_next.delivery.id, NOW + 21, DeliveryState.DELIVERED, 200, "")
    hook = await hooks.webhook("one")
    assert hook is not None
    assert (hook.waiting, hook.failures, hook.rests_until) == (1, 0, 0.0)
    # Who claimed it has died: it is due again, and not before.
    assert [each.webhook.id for each in await hooks.claim(NOW + 59, NOW + 99, 1, [], ["team"])] == [
        "all"
    ]
    assert await hooks.backlog() == Backlog(3, NOW, 0)


async def test_what_waits_is_bounded(hooks: HookRecords, database: Database) -> None:
    await hooks.add_webhook(HOOK, "s")

    def fill(connection: Connection) -> None:
        for _ in range(MOST_WAITING):
            assert add(connection, "one", PUSHED)

    await database.write(fill)
    assert await hooks.tell(PUSHED) == 0
    assert await hooks.ping("one", Happening(Subject.PING, "", NOW)) is None
    assert await hooks.backlog() == Backlog(MOST_WAITING, NOW, 2)
    assert await hooks.trim_deliveries(NOW + 9, NOW + 1) == MOST_WAITING
    assert await hooks.backlog() == Backlog(0, None, 2)
    assert len(await hooks.deliveries("one", MOST_WAITING)) == MOST_KEPT
    assert await hooks.trim_deliveries(NOW + KEPT + 10, NOW) == 0
    assert await hooks.deliveries("one") == []


async def test_redelivery(hooks: HookRecords) -> None:
    await hooks.add_webhook(HOOK, "s")
    made = await hooks.ping("one", Happening(Subject.PING, "", NOW))
    assert made is not None
    await hooks.attempted(made.id, NOW + 1, DeliveryState.FAILED, None, "no", None, NOW + 50)
    [failed] = await hooks.deliveries("one")
    assert (failed.state, failed.attempts, failed.next_at) == (DeliveryState.FAILED, 1, None)
    assert failed.ended_at == NOW + 1
    again = await hooks.redeliver(made.id, "one", NOW + 2)
    assert again == replace(made, next_at=NOW + 2)
    assert await hooks.redeliver(made.id, "other", NOW + 2) is None
    [due] = await hooks.claim(NOW + 2, NOW + 60, 9)
    assert (due.delivery.id, due.webhook.waiting) == (made.id, 1)
    await hooks.remove_webhook("one")
    await hooks.attempted(made.id, NOW + 3, DeliveryState.DELIVERED, 200, "")
    assert await hooks.backlog() == Backlog(0, None, 0)


async def test_one_organisation_leaves_room_to_others_where_all_are_told_of(
    hooks: HookRecords, database: Database
) -> None:
    await hooks.add_webhook(ALL, "s")

    def much(connection: Connection) -> None:
        for _ in range(MOST_WAITING // 2):
            assert add(connection, ALL.id, PUSHED)

    await database.write(much)
    assert (await hooks.backlog()).waiting == MOST_WAITING // 2
    assert await hooks.tell(PUSHED) == 0
    assert await hooks.tell(replace(PUSHED, repository="other/app")) == 1
