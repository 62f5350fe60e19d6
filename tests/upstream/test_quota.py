"""Pull limits: what registries say of them, and what is asked no more."""

from __future__ import annotations

import json

import pytest

from mirror.clock import Clock
from mirror.contracts.events import QuotaReported
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestUnknown, RateLimited, Unavailable
from mirror.secret_text import SecretStr
from mirror.upstream.client.quota import Quota
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import Login
from mirror.upstream.failures import QuotaSpent

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Hub, status
from .conftest import REDIS, Counts, MakeRemote

ME, YOU = Login("me", SecretStr("one")), Login("you", SecretStr("two"))
SPENT = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}


def told_of(limit: str, remaining: str, source: str = "192.0.2.7") -> dict[str, str]:
    return {
        "ratelimit-limit": limit,
        "ratelimit-remaining": remaining,
        "docker-ratelimit-source": source,
    }


@pytest.fixture
def quota(time: HandClock, counts: Counts) -> Quota:
    return Quota("hub", "", time.clock(), counts, low=0.2)


def add(hub: Hub, count: int) -> list[Digest]:
    """So many different manifests."""
    return [
        Digest.parse(hub.add_image("library/redis", f"{number}", b"%d" % number))
        for number in range(count)
    ]


# What is read


@pytest.mark.parametrize(
    ("limit", "remaining", "left"),
    [
        ("100;w=21600", "25;w=21600", 0.25),
        ("100", "25", 0.25),
        (" 100 ; w=21600 ", "100", 1.0),
        ("100, 100;w=60", "50", 0.5),
        ("100;w=21600", "500", 1.0),
        ("0;w=21600", "0;w=21600", 1.0),  # no limit that could be spent
        ("many", "25", 1.0),
        ("-100", "25", 1.0),
        ("100", "", 1.0),
        ("100;w=21600" + "0" * 100, "25", 0.25),
    ],
)
def test_what_is_left_is_read_from_the_headers(
    quota: Quota, limit: str, remaining: str, left: float
) -> None:
    quota.answered("redis", False, told_of(limit, remaining))
    assert quota.left == left


def test_what_was_read_is_void_once_its_window_has_passed(quota: Quota, time: HandClock) -> None:
    quota.answered("redis", True, told_of("100;w=21600", "3;w=21600"))
    assert (quota.left, quota.low()) == (0.03, True)
    time.now += 21600
    assert (quota.left, quota.low()) == (1.0, False)


@pytest.mark.parametrize(("low", "enough"), [(0.2, 20), (0.5, 50), (1.0, 100)])
def test_it_is_low_below_the_share_that_is_configured(
    time: HandClock, counts: Counts, low: float, enough: int
) -> None:
    quota = Quota("hub", "", time.clock(), counts, low)
    quota.answered("redis", True, told_of("100", str(enough)))
    assert not quota.low()
    quota.answered("redis", True, told_of("100", str(enough - 1)))
    assert quota.low()


def test_without_a_share_only_a_429_makes_it_low(time: HandClock, counts: Counts) -> None:
    quota = Quota("hub", "", time.clock(), counts, 0.0)
    quota.answered("redis", True, told_of("100", "0"))
    assert not quota.low()
    quota.refused("redis", True, SPENT)
    assert quota.low()


# After a 429


def test_a_pull_refused_because_the_count_is_used_up_leaves_heads_free(
    quota: Quota, time: HandClock
) -> None:
    quota.refused("redis", True, {**SPENT, "docker-ratelimit-source": "192.0.2.7"})
    assert quota.refusal("redis", False) is None
    error = quota.refusal("redis", True)
    assert isinstance(error, QuotaSpent)
    assert error.retry_after == 21600
    assert error.message == (
        "hub limits our requests (429): its 100 manifests in 6 h (counted as '192.0.2.7') are used "
        "up, and this mirror, without a login, pulls none before 2023-11-15 04:13:20 UTC; a login "
        "(credentials) has a limit of its own, and a higher one"
    )
    time.now += 21600
    assert quota.refusal("redis", True) is None


def test_retry_after_goes_before_the_window(quota: Quota, time: HandClock) -> None:
    quota.refused("redis", True, {**SPENT, "Retry-After": "90"})
    error = quota.refusal("redis", True)
    assert error is not None
    assert error.retry_after == 90
    time.now += 90
    assert quota.refusal("redis", True) is None


def test_a_head_that_tells_of_pulls_left_ends_the_waiting(quota: Quota) -> None:
    quota.refused("redis", True, SPENT)
    quota.answered("redis", False, told_of("100;w=21600", "0;w=21600"))
    assert quota.refusal("redis", True) is not None
    quota.answered("redis", False, told_of("100;w=21600", "1;w=21600"))
    assert quota.refusal("redis", True) is None


def test_a_pull_refused_though_pulls_are_left_is_a_limit_on_asking(quota: Quota) -> None:
    quota.refused("redis", True, {**told_of("100;w=21600", "50;w=21600"), "Retry-After": "30"})
    for pull in (True, False):
        error = quota.refusal("redis", pull)
        assert isinstance(error, RateLimited)
        assert error.retry_after == 30
        assert "not only pulls" in error.message
    quota.answered("redis", False, told_of("100;w=21600", "50;w=21600"))  # one that was under way
    assert quota.refusal("redis", True) is not None


def test_a_head_refused_is_a_limit_on_asking(quota: Quota, time: HandClock) -> None:
    quota.refused("redis", False, {"Retry-After": "300"})
    assert quota.refusal("redis", True) is not None
    assert quota.refusal("redis", False) is not None
    time.now += 300
    assert quota.refusal("redis", False) is None


def test_without_any_word_the_guesses_grow_until_a_pull_goes_well(
    quota: Quota, time: HandClock
) -> None:
    waits = []
    for _ in range(14):
        quota.refused("redis", True, {})
        error = quota.refusal("redis", True)
        assert error is not None
        assert error.retry_after is not None
        waits.append(error.retry_after)
        time.now += error.retry_after
    assert waits == [2.0**n for n in range(12)] + [3600, 3600]
    quota.answered("redis", True, {})
    quota.refused("redis", True, {})
    error = quota.refusal("redis", True)
    assert error is not None
    assert error.retry_after == 1


@pytest.mark.parametrize("pull", [True, False])
def test_a_limit_that_one_repository_meets_is_none_on_the_others(
    quota: Quota, time: HandClock, counts: Counts, pull: bool
) -> None:
    for _ in range(3):
        quota.refused("redis", pull, {"Retry-After": "3600"})
    assert quota.refusal("redis", True) is not None
    assert quota.refusal("nginx", True) is None
    assert not quota.low()
    assert counts.untils == []
    quota.answered("nginx", pull, {})
    quota.refused("app", pull, {"Retry-After": "7200"})
    assert quota.refusal("nginx", True) is None  # which was answered in between
    time.now += 3600
    assert quota.refusal("redis", True) is None
    assert quota.refusal("app", True) is not None


@pytest.mark.parametrize("pull", [True, False])
def test_a_limit_that_two_repositories_in_a_row_meet_is_one_on_all(
    quota: Quota, time: HandClock, counts: Counts, pull: bool
) -> None:
    quota.refused("redis", pull, {})
    quota.refused("app", pull, {"Retry-After": "100"})
    error = quota.refusal("nginx", True)
    assert error is not None
    assert error.retry_after == 100
    assert counts.untils == [("hub", "", time.wall + 100)]
    time.now += 100
    assert quota.refusal("nginx", True) is None


def test_f55_what_is_remembered_of_repositories_is_bounded(quota: Quota) -> None:
    for number in range(20_000):
        quota.refused(f"a/{number}", False, {"Retry-After": "3600"})
    assert len(quota._paused) <= 1024


def test_f69_a_source_that_is_no_address_is_not_repeated(quota: Quota) -> None:
    quota.refused("redis", True, {**SPENT, "docker-ratelimit-source": "x\r\nSet-Cookie: <b>"})
    error = quota.refusal("redis", True)
    assert error is not None
    assert "counted" not in error.message
    assert "Cookie" not in error.message


# With a registry


async def test_no_pull_is_sent_after_a_429_while_heads_and_blobs_go_on(
    hub: Hub, remote: Remote, counts: Counts, time: HandClock
) -> None:
    first, second, third = add(hub, 3)
    hub.limit = 2
    for digest in (first, second):
        await remote.manifest(CONTEXT, REDIS, digest)
    assert counts.quotas[-1] == ("hub", "", 2, 0)
    for _ in range(5):
        with pytest.raises(QuotaSpent, match="its 2 manifests in 6 h"):
            await remote.manifest(CONTEXT, REDIS, third)
    assert hub.count("registry", "GET", f"manifests/{third}") == 1
    assert counts.untils[-1] == ("hub", "", time.wall + 21600)
    assert (await remote.resolve(CONTEXT, REDIS, "2")).digest == third
    blob = Digest.parse(hub.add_blob(b"free"))
    stream = await remote.blob(CONTEXT, REDIS, blob)
    assert await stream.read() == b"free"
    await stream.close()


async def test_pulls_go_on_as_soon_as_a_head_tells_of_some_left(hub: Hub, remote: Remote) -> None:
    first, second = add(hub, 2)
    hub.limit = 1
    await remote.manifest(CONTEXT, REDIS, first)
    with pytest.raises(QuotaSpent):
        await remote.manifest(CONTEXT, REDIS, second)
    hub.pulls.clear()
    await remote.resolve(CONTEXT, REDIS, "1")
    assert (await remote.manifest(CONTEXT, REDIS, second)).descriptor.digest == second


async def test_a_tag_whose_head_is_refused_is_not_asked_for_again(
    hub: Hub, remote: Remote, time: HandClock
) -> None:
    hub.challenge = "none"
    add(hub, 1)
    hub.fail("registry", status(429, {"Retry-After": "300"}))
    for _ in range(3):
        with pytest.raises(RateLimited, match="2023-11-14 22:18:20 UTC"):
            await remote.resolve(CONTEXT, REDIS, "0")
    assert len(hub.requests) == 1
    time.now += 300
    await remote.resolve(CONTEXT, REDIS, "0")


async def test_several_logins_are_used_by_what_each_has_left(
    hub: Hub, make_remote: MakeRemote, counts: Counts
) -> None:
    hub.login, hub.more_logins = ("me", "one"), [("you", "two")]
    hub.anonymous = False
    remote = make_remote(hub.url, credentials=(ME, YOU), realm=hub.realm_url)
    hub.limit = 10
    digests = add(hub, 20)
    for digest in digests[:10]:
        await remote.manifest(CONTEXT, REDIS, digest)
    assert hub.pulls == {"me": 5, "you": 5}
    for digest in digests[10:]:
        await remote.manifest(CONTEXT, REDIS, digest)
    assert hub.pulls == {"me": 10, "you": 10}
    assert remote.is_scarce()
    last = Digest.parse(hub.add_image("library/redis", "last", b"last"))
    with pytest.raises(QuotaSpent, match="another login beside it"):
        await remote.manifest(CONTEXT, REDIS, last)
    assert {login for _, login, *_ in counts.quotas} == {"me", "you"}


async def test_a_login_that_is_refused_is_followed_by_the_other_in_the_same_ask(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.login, hub.more_logins = ("me", "one"), [("you", "two")]
    remote = make_remote(hub.url, credentials=(ME, YOU), realm=hub.realm_url)
    first, *others = add(hub, 5)
    await remote.manifest(CONTEXT, REDIS, first)
    hub.limit = 4
    hub.pulls["me"] = 4  # used up by somebody else meanwhile
    for digest in others:
        await remote.manifest(CONTEXT, REDIS, digest)
    assert hub.pulls == {"me": 4, "you": 4}
    assert remote.is_scarce()


async def test_a_registry_without_such_headers_is_never_scarce(hub: Hub, remote: Remote) -> None:
    for digest in add(hub, 3):
        await remote.manifest(CONTEXT, REDIS, digest)
    assert not remote.is_scarce()


async def test_a_refused_login_does_not_hide_what_is_missing(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.login, hub.more_logins = ("me", "one"), [("you", "two")]
    hub.limit = 0
    remote = make_remote(hub.url, credentials=(ME, YOU), realm=hub.realm_url)
    with pytest.raises(ManifestUnknown):
        await remote.resolve(CONTEXT, REDIS, "none")
    with pytest.raises(Unavailable):
        await remote.manifest(CONTEXT, REDIS, Digest.of(json.dumps({}).encode()))


def test_it_is_told_when_the_window_ends_in_which_pulls_were_taken() -> None:
    now, counts = HandClock(1000.0), Counts()
    quota = Quota("hub", "", Clock(monotonic=now, wall=now), counts, low=0.2, registry="docker.io")

    def resets(remaining: int) -> float:
        headers = {
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": f"{remaining};w=21600",
        }
        quota.answered("library/redis", True, headers)
        return counts.of(QuotaReported)[-1].resets

    assert resets(100) == 0  # none is missing
    now.now += 10
    assert resets(99) == 1010 + 21600
    now.now += 5000
    assert resets(40) == 1010 + 21600  # still that window
    now.now += 17000
    assert resets(98) == now.now + 21600  # another one: more are left than before
