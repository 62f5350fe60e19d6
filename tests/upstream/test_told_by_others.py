"""What one node's upstreams have told it, and another goes by: limits, refused logins, lies. What
only the one may have met, as that a host cannot be reached, is its own."""

from __future__ import annotations

from typing import Any

import pytest

from mirror.oci.errors import (
    Denied,
    ManifestUnknown,
    RateLimited,
    RegistryError,
    Unavailable,
    Untrustworthy,
)
from mirror.oci.reference import Repository
from mirror.secret_text import SecretStr
from mirror.upstream.client.quota import Quota
from mirror.upstream.endpoint import Login, Trust
from mirror.upstream.failures import FailureKind, Faulty, QuotaSpent, Unreached
from mirror.upstream.pool.endpoint_state import EndpointState, Member, Priority
from mirror.upstream.pool.question import Asked, Question

from ..fakes import CONTEXT, HandClock
from ..fakes.bulletins import FakeBoard
from ..fakes.hub import Hub
from .conftest import REDIS, Counts, MakeRemote
from .test_order import Stub

NAMES = [Repository("docker.io", f"acme/{number}") for number in range(4)]


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard()


class TestBans:
    @pytest.fixture
    def nodes(self, board: FakeBoard, time: HandClock, counts: Counts) -> list[EndpointState]:
        nodes = []
        for _ in range(2):
            stub = Stub("hub", time, [], Trust.TAGS)
            node = EndpointState(Member("hub", stub, Trust.TAGS), time.clock(), counts)
            node.share(board.node(), "endpoint hub")
            nodes.append(node)
        return nodes

    def _priority(self, node: EndpointState, asked: Asked = Asked.MANIFEST) -> Priority:
        return node.priority(Question(asked, REDIS, "x"))

    def _fail(self, node: EndpointState, error: RegistryError, asked: Asked) -> None:
        for name in NAMES:
            question = Question(asked, name, "x")
            node.begins(question)
            node.failed(question, error)

    def test_an_endpoint_that_lies_to_one_is_asked_last_by_all(
        self, nodes: list[EndpointState], time: HandClock
    ) -> None:
        self._fail(nodes[0], Untrustworthy("other bytes"), Asked.MANIFEST)
        assert self._priority(nodes[1]) is Priority.LAST
        assert self._priority(nodes[1], Asked.BLOB) is Priority.LAST
        time.now += 601
        assert self._priority(nodes[1]) is Priority.TRIAL

    def test_a_limit_is_kept_by_all_for_the_time_that_the_endpoint_named(
        self, nodes: list[EndpointState], time: HandClock
    ) -> None:
        self._fail(nodes[0], RateLimited("429", retry_after=300), Asked.BLOB)
        assert self._priority(nodes[1], Asked.BLOB) is Priority.NEVER
        question = Question(Asked.BLOB, REDIS, "x")
        assert "another node was told: 429" in nodes[1].refusal(question).message
        assert not nodes[1].may_try_early(question)
        assert self._priority(nodes[1], Asked.MANIFEST) is Priority.USUAL
        time.now += 301
        assert self._priority(nodes[1], Asked.BLOB) is Priority.TRIAL

    @pytest.mark.parametrize(
        "error",
        [
            Unreached("cut", FailureKind.CUT),
            Unreached("no connection", FailureKind.CONNECT),
            Faulty("503", retry_after=600),
            Unavailable("the body ended early"),
            RateLimited("429, and nobody knows for how long"),
            ManifestUnknown("404"),
        ],
        ids=lambda error: error.message,
    )
    @pytest.mark.parametrize("asked", [Asked.MANIFEST, Asked.BLOB])
    async def test_what_only_one_may_meet_is_its_own(
        self, nodes: list[EndpointState], board: FakeBoard, error: RegistryError, asked: Asked
    ) -> None:
        self._fail(nodes[0], error, asked)
        assert self._priority(nodes[1], asked) is Priority.USUAL
        assert nodes[1].is_well(Question(asked, REDIS, "x"))
        assert board.told == {}

    async def test_one_that_has_left_hears_nothing(
        self, nodes: list[EndpointState], board: FakeBoard
    ) -> None:
        await nodes[1].close()
        assert len(board.joined) == 1

    @pytest.mark.parametrize(
        "words",
        [
            {},
            {"bans": None},
            {"bans": {"wrong": 7}},
            {"bans": {"wrong": ["soon", "x"]}},
            {"bans": {"wrong": [float("inf"), "x", "y"]}},
            {"bans": {"fault": [1e12, "x"]}},
            {"bans": {"wrong": [float("nan"), "x"]}},
        ],
    )
    def test_words_of_another_version_do_nothing(
        self, nodes: list[EndpointState], board: FakeBoard, words: dict[str, Any]
    ) -> None:
        board.tell(None, "endpoint hub", words)
        assert self._priority(nodes[1]) is Priority.USUAL

    def test_no_ban_is_longer_than_one_of_its_own(
        self, nodes: list[EndpointState], board: FakeBoard, time: HandClock
    ) -> None:
        board.tell(None, "endpoint hub", {"bans": {"limited blob": [1e300, "x"]}})
        assert self._priority(nodes[1], Asked.BLOB) is Priority.NEVER
        time.now += 3601
        assert self._priority(nodes[1], Asked.BLOB) is Priority.TRIAL


def _left(limit: int, remaining: int, source: str = "") -> dict[str, str]:
    headers = {"ratelimit-limit": f"{limit};w=600", "ratelimit-remaining": f"{remaining};w=600"}
    return {**headers, "docker-ratelimit-source": source} if source else headers


class TestQuotas:
    def _nodes(self, board: FakeBoard, time: HandClock, counts: Counts, login: str) -> list[Quota]:
        nodes = [Quota("hub", login, time.clock(), counts, low=0.2) for _ in range(2)]
        for node in nodes:
            node.share(board.node(), f"quota {login}")
        return nodes

    def test_what_is_left_to_a_login_all_know(
        self, board: FakeBoard, time: HandClock, counts: Counts
    ) -> None:
        one, other = self._nodes(board, time, counts, "me")
        one.answered("a/b", True, _left(100, 10))
        assert other.left == 0.1
        assert other.low()
        time.now += 1
        one.answered("a/b", True, _left(100, 8))
        assert other.left == 0.08

    def test_once_it_is_spent_no_other_asks_for_one_more(
        self, board: FakeBoard, time: HandClock, counts: Counts
    ) -> None:
        one, other = self._nodes(board, time, counts, "me")
        one.refused("a/b", True, _left(100, 0))
        assert isinstance(other.refusal("c/d", True), QuotaSpent)
        assert other.refusal("c/d", False) is None  # HEADs are not counted
        time.now += 300
        one.answered("a/b", False, _left(100, 40))  # sooner than was thought
        assert other.refusal("c/d", True) is None

    def test_a_limit_on_asking_is_kept_by_all(
        self, board: FakeBoard, time: HandClock, counts: Counts
    ) -> None:
        one, other = self._nodes(board, time, counts, "me")
        for name in ("a/b", "c/d"):
            one.refused(name, False, {"Retry-After": "60"})
        assert other.refusal("e/f", False) is not None
        time.now += 61
        assert other.refusal("e/f", False) is None

    def test_without_a_login_those_count_together_who_are_counted_as_one(
        self, board: FakeBoard, time: HandClock, counts: Counts
    ) -> None:
        one, other = self._nodes(board, time, counts, "")
        one.refused("a/b", True, _left(100, 0, "192.0.2.7"))
        assert other.refusal("c/d", True) is None  # as whom it is counted is not known
        other.answered("a/b", True, _left(100, 50, "192.0.2.8"))
        time.now += 2
        one.refused("a/b", True, _left(100, 0, "192.0.2.7"))
        assert other.refusal("c/d", True) is None
        other.answered("a/b", True, _left(100, 50, "192.0.2.7"))
        time.now += 2
        one.refused("a/b", True, _left(100, 0, "192.0.2.7"))
        assert other.refusal("c/d", True) is not None

    @pytest.mark.parametrize(
        "words",
        [
            {},
            {"until": {"pulls": "x"}, "counted": True, "source": ""},
            {"until": {}, "count": [1], "read": 1e12, "began": 0, "source": ""},
            {"until": {}, "count": ["a", "b", "c"], "read": 1e12, "began": 0, "source": ""},
            {"until": {}, "count": [10, -1, 60], "read": 1e12, "began": 0, "source": ""},
            {"until": {"pulls": float("nan")}, "counted": True, "source": ""},
        ],
    )
    def test_words_of_another_version_do_nothing(
        self, board: FakeBoard, time: HandClock, counts: Counts, words: dict[str, Any]
    ) -> None:
        _, other = self._nodes(board, time, counts, "me")
        board.tell(None, "quota me", words)
        assert other.refusal("c/d", True) is None
        assert (other.left, other.is_known) == (1.0, False)


class TestLogins:
    async def test_a_login_that_was_refused_to_one_no_other_shows(
        self, hub: Hub, make_remote: MakeRemote, board: FakeBoard, time: HandClock
    ) -> None:
        hub.login, hub.anonymous = ("me", "right"), False
        hub.add_image(REDIS.name, "7", b"layer")
        wrong, right = Login("me", SecretStr("wrong")), Login("me", SecretStr("right"))
        one, other, newer = (
            make_remote(hub.url, credentials=(login,), realm=hub.realm_url)
            for login in (wrong, wrong, right)
        )
        for remote in (one, other, newer):
            remote.share(board.node())
        with pytest.raises(Denied, match="refuses the login 'me'"):
            await one.resolve(CONTEXT, REDIS, "7")
        shown = _shown(hub)
        assert shown > 0
        with pytest.raises(Denied, match="refuses the login 'me'"):
            await other.resolve(CONTEXT, REDIS, "7")
        assert _shown(hub) == shown
        await newer.resolve(CONTEXT, REDIS, "7")  # another secret, which was refused to nobody
        hub.login = ("me", "wrong")
        time.now += 1000
        await one.resolve(CONTEXT, REDIS, "7")
        await other.resolve(CONTEXT, REDIS, "7")
        assert all("right" not in str(words) for words in board.told.values())


def _shown(hub: Hub) -> int:
    """How often a password was shown."""
    return sum("Authorization" in one.headers for one in hub.seen("realm"))
