"""What several processes have seen, put together."""

from __future__ import annotations

import json

import pytest

from mirror.activity.board import Board
from mirror.activity.endpoints import Configured
from mirror.activity.news import News, from_json, to_json
from mirror.activity.watching import Filling, UnderWay, Watch
from mirror.contracts.events import (
    BreakerSwitched,
    ContentEvicted,
    EndpointAnswered,
    EndpointBanned,
    EndpointRecovered,
    EndpointTroubled,
    FillEnded,
    FillQueued,
    FillStarted,
    HitsAnswered,
    LoginJudged,
    QuotaReported,
    RequestAnswered,
    TagChecked,
    TagMoved,
    UpstreamAsked,
    UpstreamRead,
)
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository

from ..fakes import REDIS, HandClock

LAYER = Digest.parse("sha256:" + "3" * 64)


class Process:
    """A process that watches its bus."""

    def __init__(self, pid: int, clock: HandClock) -> None:
        self.pid = pid
        self.events = Events()
        self.watch = Watch(self.events, clock.clock())

    def answers(self, kind: str, reference: str, outcome: str, **words: object) -> None:
        given = {"client": "10.1.2.7", "sent": 100, "first": 0.01, "last": 0.02, **words}
        self.events.emit(
            RequestAnswered(
                kind,
                "docker.io",
                "library/redis",
                reference,
                outcome,
                200,
                str(given["client"]),
                int(given["sent"]),
                float(given["first"]),
                float(given["last"]),
                "GET",
                str(given.get("request_id", "")),
                error=str(given.get("error", "")),
            )
        )


class Mirror:
    def __init__(self, workers: int = 1) -> None:
        self.clock = HandClock()
        self.processes = [Process(pid, self.clock) for pid in range(1, workers + 1)]
        self.board = Board(self.clock.clock())
        self.board.follow("docker.io")

    def beat(self) -> None:
        """What each has seen goes over the line, as JSON."""
        self.clock.now += 1
        for process in self.processes:
            told = json.loads(json.dumps(to_json(process.watch.news())))
            self.board.hear(process.pid, from_json(told))


async def test_a_pull_whose_requests_several_workers_answered_is_one():
    mirror = Mirror(workers=2)
    one, other = mirror.processes
    one.answers("tag", "7", "revalidated")
    other.answers("blob", str(LAYER), "hit")
    for _ in range(4):
        mirror.beat()
    [pull] = mirror.board.pulls.newest(10)
    assert (pull.summary, pull.bytes) == ("HIT 2/2", 200)
    day = mirror.board.history.day()
    assert (day.pulls, day.without_upstream, day.requests, day.hits) == (1, 0, 2, 2)
    assert day.bytes_served == 200
    assert day.p50 == pytest.approx(0.01, rel=0.1)


async def test_hits_that_are_told_together_are_pulls_of_their_clients():
    mirror = Mirror()
    [process] = mirror.processes
    named = [("library/redis", "7", 4)]
    by = [("GET", ["10.1.2.7", "10.1.2.8", "10.1.2.7", "10.1.2.7"])]
    process.events.emit(HitsAnswered("tag", "docker.io", 200, 4, 0.0004, 400, named, by))
    for _ in range(4):
        mirror.beat()
    found = {pull.client: pull for pull in mirror.board.pulls.newest(10)}
    assert {client: pull.pulls for client, pull in found.items()} == {"10.1.2.7": 3, "10.1.2.8": 1}
    assert found["10.1.2.7"].bytes == 300
    assert mirror.board.history.day().without_upstream == 4


async def test_why_a_tag_was_asked_for_upstream_is_told():
    mirror = Mirror()
    [process] = mirror.processes
    process.events.emit(EndpointAnswered("docker.io", "hub", REDIS, "tag", "7", 0.04))
    process.events.emit(TagChecked(REDIS, "7", 312.0, 300.0, 0.041, "unchanged"))
    process.answers("tag", "7", "revalidated")
    mirror.beat()
    [pull] = mirror.board.pulls.newest(1)
    [request] = pull.requests
    assert request.why == "ttl 5 m over by 12 s, asked upstream: unchanged, 41 ms"
    assert (request.endpoint, request.upstream) == ("hub", 0.04)


async def test_why_a_layer_was_missing_and_what_it_waited_for_is_told():
    mirror = Mirror()
    [process] = mirror.processes
    process.events.emit(ContentEvicted(LAYER, 1000))
    mirror.beat()
    mirror.clock.now += 2 * 86400
    process.events.emit(FillQueued(1, REDIS, LAYER))
    mirror.clock.now += 0.5
    process.events.emit(FillStarted(1, REDIS, LAYER, 0.5))
    process.events.emit(EndpointAnswered("docker.io", "hub", REDIS, "blob", str(LAYER), 0.31))
    mirror.clock.now += 2
    process.events.emit(FillEnded(1, REDIS, LAYER, "committed", 22_000_000))
    process.answers("blob", str(LAYER), "filled", last=2.5)
    mirror.beat()
    [request] = mirror.board.pulls.newest(1)[0].requests
    assert request.why == "evicted 2 d ago (room)"
    assert request.queued == pytest.approx(0.5)
    assert (request.endpoint, request.upstream) == ("hub", 0.31)
    assert request.speed == pytest.approx(11e6)


async def test_a_stale_answer_says_what_the_upstream_said():
    mirror = Mirror()
    [process] = mirror.processes
    process.events.emit(TagChecked(REDIS, "7", 400.0, 300.0, 0.2, "failed", "hub: (503)"))
    process.answers("tag", "7", "stale")
    mirror.beat()
    pull = mirror.board.pulls.newest(1)[0]
    assert pull.summary == "STALE 1/1"
    assert "hub: (503)" in pull.requests[0].why


async def test_endpoints_are_as_the_worst_that_a_process_sees():
    mirror = Mirror(workers=2)
    one, other = mirror.processes
    configured = [Configured("docker.io", "hub", "https://hub"), Configured("x", "y", "https://y")]

    def states() -> list[str]:
        mirror.beat()
        return [state.state for state in mirror.board.endpoints(configured)]

    assert states() == ["unknown", "unknown"]
    one.events.emit(UpstreamAsked("docker.io", "hub", "GET", "503", 0.04))
    one.events.emit(UpstreamAsked("docker.io", "hub", "GET", "timeout", 9.0))
    assert states() == ["unknown", "unknown"]
    one.events.emit(UpstreamAsked("docker.io", "hub", "GET", "404", 0.04))
    assert states() == ["ok", "unknown"]
    other.events.emit(EndpointTroubled("docker.io", "hub", "", "hub: (503)"))
    assert states() == ["stepped_back", "unknown"]
    other.events.emit(BreakerSwitched("docker.io", "hub", "fault", True))
    assert states() == ["down", "unknown"]
    one.events.emit(EndpointBanned("docker.io", "hub", "docker.io/a/b", "it lied", 60.0))
    assert states() == ["banned", "unknown"]
    other.events.emit(LoginJudged("docker.io", "hub", "me", True, "hub (401) refuses it"))
    assert states() == ["login_refused", "unknown"]
    [state, _] = mirror.board.endpoints(configured)
    assert (state.logins_refused, state.reason) == (["me"], "hub (401) refuses it")
    other.events.emit(LoginJudged("docker.io", "hub", "me", False))
    other.events.emit(BreakerSwitched("docker.io", "hub", "fault", False))
    other.events.emit(EndpointRecovered("docker.io", "hub", ""))
    one.events.emit(EndpointRecovered("docker.io", "hub", "docker.io/a/b"))
    assert states() == ["ok", "unknown"]
    kinds = [one.kind for one in mirror.board.happenings(50)]
    assert {"login_refused", "login_accepted", "endpoint_banned", "endpoint_back"} <= set(kinds)


async def test_what_is_left_of_a_quota_is_the_least_that_was_heard():
    mirror = Mirror(workers=2)
    one, other = mirror.processes
    one.events.emit(QuotaReported("docker.io", "hub", "me", 200, 80, 5e6))
    other.events.emit(QuotaReported("docker.io", "hub", "me", 200, 78, 5e6))
    mirror.beat()
    [state] = mirror.board.endpoints([Configured("docker.io", "hub", "https://hub")])
    [limit] = state.limits
    assert (limit.login, limit.limit, limit.remaining, limit.resets_at) == ("me", 200, 78, 5e6)


async def test_a_process_that_died_has_nothing_under_way():
    mirror = Mirror()
    [process] = mirror.processes
    fill = Filling(1, "docker.io", "library/redis", str(LAYER), False, 10, 100, 2)
    process.watch.follow(UnderWay(downloads=lambda: [fill]))
    process.events.emit(FillQueued(1, REDIS, LAYER))
    mirror.beat()
    [download] = mirror.board.downloads()
    assert (download.here, download.size, download.readers) == (10, 100, 2)
    assert mirror.board.rates().downloads_running == 1
    mirror.board.forget(process.pid)
    assert not mirror.board.downloads()
    assert mirror.board.rates().downloads_running == 0


async def test_a_flood_of_one_client_leaves_what_is_told_of_others():
    mirror = Mirror()
    [process] = mirror.processes
    process.answers("tag", "7", "filled", client="10.1.2.8")
    for number in range(20_000):
        process.answers("manifest", f"sha256:{number:064x}", "failed", client="10.6.6.6")
    news = process.watch.news()
    assert len(news.requests) <= 1000
    assert {one.request.client for one in news.requests} == {"10.1.2.8", "10.6.6.6"}
    assert news.counts.requests == 20_001
    assert news.untold + len(news.requests) == 20_001


async def test_bytes_from_upstream_and_room_made_are_counted():
    mirror = Mirror(workers=2)
    for process in mirror.processes:
        process.events.emit(UpstreamRead("docker.io", "hub", 500))
        process.events.emit(ContentEvicted(LAYER, 70))
    mirror.beat()
    day = mirror.board.history.day()
    assert (day.bytes_fetched, day.evicted, day.evicted_bytes) == (1000, 2, 140)
    assert mirror.board.history.minutes()[-1].bytes_fetched == 1000
    assert [(one.kind, one.count) for one in mirror.board.happenings(9)] == [("evicted", 2)]


async def test_counts_of_more_than_a_day_ago_are_forgotten():
    mirror = Mirror()
    [process] = mirror.processes
    process.answers("tag", "7", "filled")
    mirror.beat()
    assert mirror.board.history.day().requests == 1
    mirror.clock.now += 86400
    process.answers("tag", "7", "hit")
    mirror.beat()
    assert mirror.board.history.day().requests == 1
    assert mirror.clock.wall - mirror.board.history.day().since <= 86400


async def test_words_of_strangers_are_printable():
    mirror = Mirror()
    [process] = mirror.processes
    process.answers("tag", "7", "failed", error="said \x1b[2J\u202e" + "x" * 10_000)
    before, after = LAYER, Digest.parse("sha256:" + "4" * 64)
    process.events.emit(TagMoved(Repository("docker.io", "a/b"), "\x1b[31m", before, after))
    mirror.beat()
    texts = [mirror.board.pulls.newest(1)[0].failure, mirror.board.happenings(1)[0].words]
    assert all(text.isprintable() and len(text) <= 600 for text in texts)


async def test_whoever_waits_for_a_change_is_told_of_the_next():
    mirror = Mirror()
    number = await mirror.board.changed(-1, 5.0)
    assert await mirror.board.changed(number, 0.001) == number
    mirror.beat()
    assert await mirror.board.changed(number, 5.0) > number


def test_what_is_told_passes_through_json_unchanged():
    assert from_json(json.loads(json.dumps(to_json(News())))) == News(
        requests=[], running=[], downloads=[], happenings=[], endpoints=[], evicted=[]
    )
