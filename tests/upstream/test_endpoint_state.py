"""What one client can cause, by what it asks for, is held against that alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirror.oci.errors import (
    Denied,
    ManifestUnknown,
    RateLimited,
    Refused,
    RegistryError,
    Unavailable,
    Untrustworthy,
)
from mirror.oci.reference import Repository
from mirror.upstream.endpoint import Trust
from mirror.upstream.failures import FailureKind, Faulty, NoToken, Unfit, Unreachable, Unreached
from mirror.upstream.pool.endpoint_state import EndpointState, Member, Priority
from mirror.upstream.pool.question import Asked, Question

from ..fakes import HandClock
from ..waiting import eventually
from .conftest import REDIS, Counts
from .test_order import Stub

NGINX = Repository("docker.io", "library/nginx")
APP, OTHER = Repository("docker.io", "acme/app"), Repository("docker.io", "acme/other")
TROUBLES = [
    Faulty("500"),
    Faulty("503", retry_after=600),
    Unreached("cut", FailureKind.CUT),
    Unreached("no answer within 15 s", FailureKind.TIMEOUT),
    Unreached("the blob's host cannot be connected", FailureKind.CONNECT),
    Unavailable("the body ended early"),
    Untrustworthy("other bytes"),
    RateLimited("429", retry_after=3600),
    Denied("403"),
    ManifestUnknown("404"),
    Unfit("schema 1"),
    Refused("400"),
    NoToken("the realm sent a page"),
]


@pytest.fixture
def stub(time: HandClock) -> Stub:
    return Stub("hub", time, [], Trust.TAGS)


@pytest.fixture
def endpoint(stub: Stub, time: HandClock, counts: Counts) -> EndpointState:
    return EndpointState(Member("hub", stub, Trust.TAGS, ping=stub.ping), time.clock(), counts)


def asks(repository: Repository, what: str = "x") -> list[Question]:
    """Of each kind one."""
    return [Question(asked, repository, what) for asked in Asked]


def is_unmoved(endpoint: EndpointState, question: Question) -> bool:
    return endpoint.priority(question) is Priority.USUAL and endpoint.is_well(question)


def fail(endpoint: EndpointState, question: Question, error: RegistryError, times: int = 5) -> None:
    """So many of those that are under way at the same time."""
    endpoint.begins(question)
    for _ in range(times):
        endpoint.failed(question, error)


@pytest.mark.parametrize("error", TROUBLES, ids=lambda error: error.message)
@pytest.mark.parametrize("asked", Asked)
async def test_what_fails_for_one_repository_moves_nothing_for_another(
    endpoint: EndpointState, stub: Stub, counts: Counts, asked: Asked, error: RegistryError
) -> None:
    fail(endpoint, Question(asked, REDIS, "x"), error)
    await endpoint.probe()  # the mirror's own question was answered
    for question in asks(NGINX):
        assert is_unmoved(endpoint, question)
        assert not endpoint.is_down(question)
    assert counts.breakers == []
    await endpoint.close()


@pytest.mark.parametrize("error", TROUBLES[:6], ids=lambda error: error.message)
@pytest.mark.parametrize("asked", Asked)
async def test_what_fails_within_a_repository_refuses_nothing_else_of_it(
    endpoint: EndpointState, asked: Asked, error: RegistryError
) -> None:
    fail(endpoint, Question(asked, REDIS, "x"), error)
    assert endpoint.priority(Question(asked, REDIS, "x")) is Priority.NEVER
    for question in asks(REDIS, "another"):
        assert endpoint.priority(question) is Priority.USUAL
    await endpoint.close()


@pytest.mark.parametrize("asked", [Asked.LIST, Asked.STAT])
async def test_a_list_that_is_none_is_no_lie_about_content(
    endpoint: EndpointState, asked: Asked
) -> None:
    fail(endpoint, Question(asked, REDIS, "tags"), Untrustworthy("a web page"))
    assert all(is_unmoved(endpoint, question) for question in asks(REDIS))


@pytest.mark.parametrize("asked", Asked)
async def test_a_limit_on_one_kind_of_request_is_none_on_another(
    endpoint: EndpointState, asked: Asked
) -> None:
    for repository in (REDIS, NGINX):
        fail(endpoint, Question(asked, repository, "x"), RateLimited("429", retry_after=9))
    for question in asks(APP):
        is_limited = question.asked is asked
        assert (endpoint.priority(question) is Priority.NEVER) == is_limited


async def test_two_repositories_that_are_limited_make_it_a_limit_on_us(
    endpoint: EndpointState, time: HandClock, counts: Counts
) -> None:
    limit = RateLimited("429", retry_after=100)
    redis, nginx, app = (Question(Asked.TAG, of, "1") for of in (REDIS, NGINX, APP))
    fail(endpoint, redis, limit)
    endpoint.answered(app, 0.1)
    fail(endpoint, nginx, limit)
    assert endpoint.priority(app) is Priority.USUAL  # one was answered in between
    fail(endpoint, replace(redis, repository=OTHER), limit)
    assert endpoint.priority(app) is Priority.NEVER
    assert endpoint.refusal(app).retry_after == 100
    assert ("hub", "limited", True) in counts.breakers
    time.now += 100
    fail(endpoint, redis, limit)  # a repository that is limited alone keeps none from trying
    assert endpoint.priority(app) is Priority.TRIAL
    endpoint.answered(app, 0.1)
    assert ("hub", "limited", False) in counts.breakers


async def test_lies_about_several_repositories_ban_the_endpoint(
    endpoint: EndpointState, time: HandClock, counts: Counts
) -> None:
    for repository in (REDIS, NGINX):
        fail(endpoint, Question(Asked.BLOB, repository, "x"), Untrustworthy("wrong"))
    fourth = Question(Asked.MANIFEST, OTHER, "x")
    assert is_unmoved(endpoint, fourth)
    fail(endpoint, Question(Asked.MANIFEST, APP, "x"), Untrustworthy("wrong"))
    assert endpoint.priority(fourth) is Priority.LAST  # never refused: its bytes are proven
    assert ("hub", "wrong", True) in counts.breakers
    time.now += 600
    endpoint.begins(fourth)
    endpoint.answered(fourth, 0.1)
    assert endpoint.priority(fourth) is Priority.USUAL
    assert ("hub", "wrong", False) in counts.breakers


async def test_an_endpoint_that_cannot_be_reached_is_away_for_all(endpoint: EndpointState) -> None:
    fail(endpoint, Question(Asked.LIST, REDIS, "x"), Unreachable("no", FailureKind.CONNECT), 2)
    for question in asks(NGINX):
        assert endpoint.priority(question) is Priority.NEVER
        assert endpoint.is_down(question)


async def test_failures_make_the_mirror_ask_for_itself_and_only_that_counts(
    endpoint: EndpointState, stub: Stub, time: HandClock, counts: Counts
) -> None:
    broken, other = Question(Asked.BLOB, REDIS, "x"), Question(Asked.TAG, NGINX, "1")
    fail(endpoint, broken, Faulty("500"))
    await eventually(lambda: stub.pings == 1)
    fail(endpoint, broken, Faulty("500"), times=20)
    await endpoint.probe()
    assert stub.pings == 1  # it was well a moment ago
    assert is_unmoved(endpoint, other)
    time.now += 5
    stub.silent = Faulty("500 to this, too")
    fail(endpoint, broken, Faulty("500"))
    await eventually(lambda: counts.breakers == [("hub", "fault", True)])
    assert endpoint.priority(other) is Priority.NEVER
    assert "500 to this, too" in endpoint.refusal(other).message
    time.now += 1
    stub.silent = None
    assert endpoint.priority(other) is Priority.TRIAL
    await endpoint.probe()
    assert counts.breakers[-1] == ("hub", "fault", False)
    assert endpoint.priority(other) is Priority.USUAL
    await endpoint.close()


async def test_silence_while_others_answer_makes_the_mirror_ask_for_itself(
    endpoint: EndpointState, stub: Stub, counts: Counts
) -> None:
    stub.silent = Faulty("it says nothing to a ping either")
    for number, seconds in enumerate((2.0, 0.1, 6.0)):  # the second was not late
        endpoint.not_waited_for(Question(Asked.TAG, NGINX, f"{number}"), seconds)
    await eventually(lambda: counts.breakers == [("hub", "fault", True)])
    assert endpoint.priority(Question(Asked.TAG, REDIS, "1")) is Priority.NEVER
    assert stub.pings == 1
    await endpoint.close()


async def test_an_endpoint_on_trial_is_late_as_soon_as_an_unknown_one(
    endpoint: EndpointState, time: HandClock
) -> None:
    question = Question(Asked.TAG, REDIS, "1")
    endpoint.answered(question, 3.0)
    assert endpoint.late(Asked.TAG) == 9
    fail(endpoint, question, Unreachable("no", FailureKind.CONNECT), times=2)
    time.now += 1
    assert endpoint.priority(question) is Priority.TRIAL
    assert endpoint.late(Asked.TAG) == 2
    endpoint.begins(question)
    assert endpoint.late(Asked.TAG) == 2


async def test_its_state_is_one_line_for_a_log(endpoint: EndpointState) -> None:
    assert repr(endpoint) == (
        "<EndpointState hub: well; unknown speed; 0 blobs over 32 connections>"
    )
    endpoint.speed.took(10 << 20, 2.0)
    fail(endpoint, Question(Asked.TAG, REDIS, "1"), Unreachable("no", FailureKind.CONNECT), 2)
    assert "hub: fault open, 1 s left; 5242880 bytes/s; 0 blobs" in repr(endpoint)


async def test_only_one_asks_whether_an_endpoint_is_back(
    endpoint: EndpointState, stub: Stub, time: HandClock
) -> None:
    stub.silent = Unreachable("still away", FailureKind.CONNECT)
    question = Question(Asked.TAG, REDIS, "1")
    fail(endpoint, question, stub.silent, times=2)
    time.now += 1
    for pings in (1, 2, 3):
        assert endpoint.priority(question) is Priority.TRIAL
        with pytest.raises(Unreachable, match="still away"):
            await endpoint.probe()
        assert stub.pings == pings
        assert endpoint.priority(question) is Priority.NEVER
        time.now += 30


async def test_an_endpoint_that_has_nothing_to_say_to_the_question_is_not_lost(
    endpoint: EndpointState, stub: Stub, time: HandClock, counts: Counts
) -> None:
    stub.silent = Faulty("/v2/ is broken there")
    broken, other = Question(Asked.BLOB, REDIS, "x"), Question(Asked.BLOB, NGINX, "y")
    fail(endpoint, broken, Faulty("500"))
    await eventually(lambda: counts.breakers == [("hub", "fault", True)])
    time.now += 1
    await endpoint.probe()
    endpoint.begins(other)
    endpoint.answered(other, 0.1)
    endpoint.delivers(other)
    assert counts.breakers[-1] == ("hub", "fault", False)
    pings = stub.pings
    fail(endpoint, broken, Faulty("500"), times=20)
    await endpoint.probe()
    assert (stub.pings, endpoint.priority(other)) == (pings, Priority.USUAL)
    await endpoint.close()


async def test_who_hangs_up_decides_nothing_and_keeps_no_trial(
    endpoint: EndpointState, time: HandClock
) -> None:
    question = Question(Asked.TAG, REDIS, "1")
    fail(endpoint, question, Faulty("500"), times=2)
    time.now += 1
    endpoint.begins(question)
    assert endpoint.priority(question) is Priority.NEVER
    endpoint.gives_up(question)
    assert endpoint.priority(question) is Priority.TRIAL
    assert endpoint.latency[Asked.TAG].mean is None
    await endpoint.close()


async def test_what_is_remembered_of_questions_is_bounded(endpoint: EndpointState) -> None:
    for number in range(1_500):
        question = Question(Asked.BLOB, Repository("docker.io", f"a/{number}"), "x")
        endpoint.failed(question, Faulty("500", retry_after=900))
        endpoint.failed(question, Untrustworthy("wrong"))
        endpoint.failed(question, RateLimited("429"))
    sizes = [len(endpoint._faults._parts), len(endpoint._wrong._parts), len(endpoint._back)]
    assert max(sizes) <= 1024
    await endpoint.close()
