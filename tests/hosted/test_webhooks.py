"""What receivers get, in what order and how often, in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from mirror.clock import Clock
from mirror.contracts.events import ContentCommitted, WebhookAttempted, WebhooksCounted
from mirror.contracts.webhooks import (
    MOST_WAITING,
    Answer,
    DeliveryState,
    Happening,
    NotReceived,
    Subject,
    Webhook,
)
from mirror.hosted.webhooks.envelope import Source
from mirror.hosted.webhooks.fills import FillTeller
from mirror.hosted.webhooks.schedule import GIVE_UP
from mirror.hosted.webhooks.sender import Webhooks
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.tasks import beside
from tests.fakes import MemoryWebhooks, Recorder
from tests.jumping import jump

DIGEST = Digest.of(b"manifest")
SOURCE = Source("https://registry.corp.lan", "host-1", "one")
GOOD = Answer(200, "")


def hook(id: str, namespace: str = "team", pattern: str = "*", *more: Subject) -> Webhook:
    subjects = (Subject.PUSH, Subject.DELETE, *more)
    return Webhook(id, namespace, f"https://{id}.example/in", subjects, pattern)


def push(repository: str = "team/app", at: float | None = None, tag: str = "v1") -> Happening:
    now = asyncio.get_running_loop().time() if at is None else at
    media_type = "application/vnd.oci.image.manifest.v1+json"
    return Happening(Subject.PUSH, repository, now, "ann", DIGEST, tag, media_type, 123)


@dataclass
class House:
    """A sender over records in memory. `answers`: what each receiver says, by its host; `posts`:
    when which of them was asked, and with what."""

    records: MemoryWebhooks = field(default_factory=MemoryWebhooks)
    answers: dict[str, Callable[[], Awaitable[Answer]]] = field(default_factory=dict)
    posts: list[tuple[float, str, Mapping[str, str], bytes]] = field(default_factory=list)
    events: Recorder = field(default_factory=Recorder)
    under_way: int = 0
    most: int = 0

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        name = url.removeprefix("https://").partition(".")[0]
        self.posts.append((asyncio.get_running_loop().time(), name, headers, body))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            answer = self.answers.get(name)
            return GOOD if answer is None else await answer()
        finally:
            self.under_way -= 1

    def sender(self) -> Webhooks:
        time = asyncio.get_running_loop().time
        return Webhooks(self.records, self, SOURCE, self.events, Clock(time, time))

    def times(self, name: str) -> list[float]:
        return [round(at) for at, who, _, _ in self.posts if who == name]


def says(*answers: Answer | NotReceived) -> Callable[[], Awaitable[Answer]]:
    """One after the other, and the last for ever."""
    left = list(answers)

    async def answer() -> Answer:
        said = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(said, NotReceived):
            raise said
        return said

    return answer


async def hangs() -> Answer:
    await asyncio.sleep(10)
    raise NotReceived("no answer within 10 s")


async def state_of(house: House, webhook: str) -> list[tuple[DeliveryState, int]]:
    found = await house.records.deliveries(webhook, 5000)
    return [(one.state, one.attempts) for one in found]


def test_a_push_is_told_in_distributions_envelope_and_signed() -> None:
    async def scenario() -> None:
        house = House()
        await house.records.add_webhook(hook("one"), "s3cret")
        await house.records.tell(push(at=1000.25))
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(2)
        ((_, _, headers, body),) = house.posts
        (event,) = json.loads(body)["events"]
        assert headers["Content-Type"] == "application/vnd.docker.distribution.events.v2+json"
        assert event["id"] == headers["X-Registry-Delivery"]
        assert event["timestamp"] == "1970-01-01T00:16:40.250Z"
        assert event["action"] == "push"
        assert event["target"] == {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": str(DIGEST),
            "size": 123,
            "length": 123,
            "repository": "team/app",
            "url": f"https://registry.corp.lan/v2/team/app/manifests/{DIGEST}",
            "tag": "v1",
        }
        assert event["request"]["host"] == "registry.corp.lan"
        assert event["request"]["method"] == "PUT"
        assert event["actor"] == {"name": "ann"}
        assert event["source"] == {"addr": "host-1", "instanceID": "one"}
        signed = headers["X-Registry-Timestamp"].encode() + b"." + body
        meant = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
        assert headers["X-Registry-Signature"] == f"sha256={meant}"
        assert await state_of(house, "one") == [(DeliveryState.DELIVERED, 1)]
        assert [one.result for one in house.events.of(WebhookAttempted)] == ["delivered"]

    jump(scenario())


def test_what_is_down_is_tried_for_a_day_and_a_webhook_rests_as_a_whole() -> None:
    async def scenario() -> None:
        house = House(answers={"down": says(NotReceived("nobody listens there"))})
        await house.records.add_webhook(hook("down"), "s")
        for _ in range(50):
            await house.records.tell(push())
        start = asyncio.get_running_loop().time()
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(3600)
            in_an_hour = len(house.posts)
            (webhook,) = await house.records.webhooks()
            assert webhook.failures == in_an_hour
            assert {
                one.words for one in await house.records.deliveries("down") if one.attempts
            } == {"nobody listens there"}
            house.answers.clear()
            await asyncio.sleep(1000)
            assert {state for state, _ in await state_of(house, "down")} == {
                DeliveryState.DELIVERED
            }
            house.answers["down"] = says(Answer(503, ""))
            await house.records.tell(push(at=start + 5000 - GIVE_UP + 1800))
            await asyncio.sleep(3600)
        # Four at once at first, then one each five minutes: not each of the fifty.
        assert 12 <= in_an_hour <= 20
        (last, *_) = await house.records.deliveries("down")
        assert last.state is DeliveryState.FAILED
        assert last.ended_at is not None
        assert last.ended_at - last.created_at == pytest.approx(GIVE_UP, abs=60)
        assert sum(one.given_up for one in house.events.of(WebhooksCounted)) == 1

    jump(scenario())


@pytest.mark.parametrize(
    ("answer", "attempts", "state"),
    [
        (Answer(404, "no such hook"), 3, DeliveryState.FAILED),
        (Answer(401, ""), 3, DeliveryState.FAILED),
        (Answer(302, ""), 3, DeliveryState.FAILED),
        (Answer(410, ""), 1, DeliveryState.FAILED),
        (Answer(429, ""), 4, DeliveryState.WAITING),
        (Answer(500, ""), 4, DeliveryState.WAITING),
        (NotReceived("refused"), 4, DeliveryState.WAITING),
        (Answer(204, ""), 1, DeliveryState.DELIVERED),
    ],
)
def test_how_often_an_answer_is_asked_again(
    answer: Answer | NotReceived, attempts: int, state: DeliveryState
) -> None:
    async def scenario() -> None:
        house = House(answers={"one": says(answer)})
        await house.records.add_webhook(hook("one"), "s")
        await house.records.tell(push())
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(300)
        assert await state_of(house, "one") == [(state, attempts)]
        ids = {headers["X-Registry-Delivery"] for _, _, headers, _ in house.posts}
        assert len(ids) == 1  # a receiver knows it again

    jump(scenario())


def test_one_that_refuses_all_holds_up_none_of_its_others() -> None:
    async def scenario() -> None:
        house = House(answers={"one": says(Answer(400, "no"), GOOD)})
        await house.records.add_webhook(hook("one"), "s")
        for _ in range(10):
            await house.records.tell(push())
        start = asyncio.get_running_loop().time()
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(3)
            assert len(house.times("one")) == 10
            await asyncio.sleep(20)
        assert max(house.times("one")) - start >= 9  # the one that was refused, again
        assert {state for state, _ in await state_of(house, "one")} == {DeliveryState.DELIVERED}

    jump(scenario())


def test_dead_receivers_of_one_hold_up_nobody_elses() -> None:
    """An organisation with twenty addresses that swallow everything, and a thousand pushes."""

    async def scenario() -> None:
        house = House()
        for index in range(20):
            house.answers[f"dead{index}"] = hangs
            await house.records.add_webhook(hook(f"dead{index}", "evil"), "s")
        await house.records.add_webhook(hook("good", "team"), "s")
        for _ in range(50):
            await house.records.tell(push("evil/app"))
        for _ in range(20):
            await house.records.tell(push("team/app"))
        start = asyncio.get_running_loop().time()
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(30)
        assert len(house.times("good")) == 20
        assert max(house.times("good")) - start <= 2
        assert house.most <= 12  # eight of one namespace, four of one webhook

    jump(scenario())


def test_what_finds_no_room_is_dropped_and_counted_for_its_webhook_alone() -> None:
    async def scenario() -> None:
        house = House(answers={"slow": hangs})
        await house.records.add_webhook(hook("slow", "evil"), "s")
        await house.records.add_webhook(hook("all", ""), "s")
        for _ in range(MOST_WAITING + 7):
            await house.records.tell(push("evil/app", tag=""))
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(60)
            await house.records.tell(push("evil/app", tag="last"))
            await asyncio.sleep(60)
        (slow,) = await house.records.webhooks("evil")
        assert slow.dropped == 8
        assert "last" in {
            json.loads(body)["events"][0]["target"].get("tag")
            for _, name, _, body in house.posts
            if name == "all"
        }
        assert house.events.of(WebhooksCounted)[-1].dropped >= 8

    jump(scenario())


def test_who_is_told_of_what() -> None:
    fill = Happening(Subject.FILL, "docker.io/library/redis", 0, digest=DIGEST)
    delete = Happening(Subject.DELETE, "team/app", 0, tag="v1")
    pushed = Happening(Subject.PUSH, "team/web/front", 0)
    ping = Happening(Subject.PING, "", 0)
    for webhook, wanted in [
        (hook("a"), [delete, pushed]),
        (hook("b", "team", "web/*"), [pushed]),
        (hook("c", "team", "app"), [delete]),
        (hook("d", "tea"), []),
        (hook("e", "docker.io", "*", Subject.FILL), []),
        (hook("f", "", "*", Subject.FILL), [fill, delete, pushed]),
        (hook("g", "", "docker.io/*", Subject.FILL, Subject.PING), [fill]),
        (hook("h", "", "team/app"), [delete]),
    ]:
        found = [one for one in (fill, delete, pushed, ping) if webhook.wants(one)]
        assert found == wanted, webhook.id


def test_a_ping_and_a_redelivery_are_sent_at_once_also_where_it_rests() -> None:
    async def scenario() -> None:
        house = House(answers={"one": says(Answer(503, ""), Answer(503, ""), GOOD)})
        await house.records.add_webhook(hook("one"), "s")
        await house.records.tell(push())
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(20)
            now = asyncio.get_running_loop().time()
            (delivery,) = await house.records.deliveries("one")
            assert delivery.attempts == 2
            await house.records.redeliver(delivery.id, "one", now)
            await asyncio.sleep(2)
            assert await state_of(house, "one") == [(DeliveryState.DELIVERED, 3)]
            ping = Happening(Subject.PING, "", now, "ann")
            sent = await house.records.ping("one", ping)
            assert sent is not None
            await asyncio.sleep(2)
        event = json.loads(house.posts[-1][3])["events"][0]
        assert (event["action"], event["id"], event["target"]) == ("ping", sent.id, {})

    jump(scenario())


def test_what_was_under_way_when_the_sender_ended_is_sent_by_the_next() -> None:
    async def scenario() -> None:
        house = House(answers={"one": hangs})
        await house.records.add_webhook(hook("one"), "s")
        await house.records.tell(push())
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(2)
        assert await state_of(house, "one") == [(DeliveryState.WAITING, 0)]
        house.answers.clear()
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(60)
        assert await state_of(house, "one") == [(DeliveryState.DELIVERED, 1)]

    jump(scenario())


def test_records_that_fail_for_a_while_are_asked_again() -> None:
    class Broken(MemoryWebhooks):
        fails = 3

        async def claim(self, *arguments: object, **more: object) -> object:  # type: ignore[override]
            if self.fails:
                self.fails -= 1
                raise OSError("database is away")
            return await super().claim(*arguments, **more)  # type: ignore[arg-type]

    async def scenario() -> None:
        house = House(records=Broken())
        await house.records.add_webhook(hook("one"), "s")
        await house.records.tell(push())
        async with beside(house.sender().run(), "webhooks"):
            await asyncio.sleep(30)
        assert await state_of(house, "one") == [(DeliveryState.DELIVERED, 1)]

    jump(scenario())


def test_fills_of_the_mirror_are_told_to_who_wants_them() -> None:
    async def scenario() -> None:
        house = House()
        time = asyncio.get_running_loop().time
        fill = ContentCommitted(DIGEST, 5, Repository("docker.io", "library/redis"), [], "", [])
        teller = FillTeller(house.records, house.events, Clock(time, time))
        async with beside(teller.run(), "fills"), beside(house.sender().run(), "webhooks"):
            house.events.emit(fill)
            await asyncio.sleep(10)
            await house.records.add_webhook(hook("all", "", "*", Subject.FILL), "s")
            await house.records.add_webhook(hook("team", "team", "*", Subject.FILL), "s")
            await asyncio.sleep(10)
            for _ in range(3):
                house.events.emit(fill)
            await asyncio.sleep(10)
        assert [name for _, name, _, _ in house.posts] == ["all"] * 3
        event = json.loads(house.posts[-1][3])["events"][0]
        assert event["action"] == "fill"
        assert event["target"]["repository"] == "docker.io/library/redis"
        assert event["target"]["size"] == 5

    jump(scenario())
