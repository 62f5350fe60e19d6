"""Several logins at one registry: what one may not read, another may."""

from __future__ import annotations

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, ManifestUnknown, RateLimited
from mirror.oci.reference import Repository
from mirror.secret_text import SecretStr
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import GivenToken, Login

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Hub, status
from .conftest import REDIS, MakeRemote

ME, YOU = Login("me", SecretStr("one")), Login("you", SecretStr("two"))
OTHER = Repository("docker.io", "acme/other")


@pytest.fixture
def remote(hub: Hub, make_remote: MakeRemote) -> Remote:
    hub.login, hub.more_logins = ("me", "one"), [("you", "two")]
    hub.anonymous = False
    return make_remote(hub.url, credentials=(ME, YOU), realm=hub.realm_url)


def logins(hub: Hub) -> list[str]:
    """Whose token was shown by the asks of the registry that brought one; "" is nobody's."""
    shown = [one.headers.get("Authorization", "") for one in hub.seen("registry")]
    return [hub.accounts.get(each.removeprefix("Bearer "), "") for each in shown if each]


@pytest.mark.parametrize("code", [401, 403])
async def test_what_one_login_may_not_read_is_asked_for_with_the_other(
    hub: Hub, remote: Remote, code: int
) -> None:
    hub.closed, hub.closed_by = {("me", REDIS.name)}, code
    digest = Digest.parse(hub.add_image(REDIS.name, "7", b"layer"))
    layer = Digest.parse(hub.add_blob(b"layer"))
    assert (await remote.resolve(CONTEXT, REDIS, "7")).digest == digest
    assert (await remote.manifest(CONTEXT, REDIS, digest)).descriptor.digest == digest
    assert (await remote.stat(CONTEXT, REDIS, layer)).size == 5
    stream = await remote.blob(CONTEXT, REDIS, layer)
    assert await stream.read() == b"layer"
    await stream.close()


async def test_which_login_it_was_is_remembered_for_the_repository(
    hub: Hub, remote: Remote, time: HandClock
) -> None:
    hub.closed = {("me", REDIS.name)}
    layer = Digest.parse(hub.add_blob(b"layer"))
    await remote.stat(CONTEXT, REDIS, layer)
    await remote.stat(CONTEXT, OTHER, layer)
    hub.requests.clear()
    for _ in range(3):
        await remote.stat(CONTEXT, REDIS, layer)
    assert set(logins(hub)) == {"you"}
    hub.requests.clear()
    await remote.stat(CONTEXT, OTHER, layer)
    assert set(logins(hub)) == {"me"}  # of which nothing is known there but good
    # Not for ever: rights are given and taken.
    hub.closed = {("you", REDIS.name)}
    await remote.stat(CONTEXT, REDIS, layer)
    hub.requests.clear()
    time.now += 3600
    await remote.stat(CONTEXT, REDIS, layer)
    assert set(logins(hub)) == {"me"}


async def test_a_login_that_may_not_list_a_repository_still_reads_it(
    hub: Hub, remote: Remote
) -> None:
    async def not_for_me(request: web.Request) -> web.StreamResponse | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        lists = request.path.endswith("/tags/list") and hub.accounts.get(token) == "me"
        return web.Response(status=403) if lists else None

    hub.fail("registry", not_for_me, times=100)
    hub.add_image(REDIS.name, "7", b"layer")
    layer = Digest.parse(hub.add_blob(b"layer"))
    assert (await remote.tags(CONTEXT, REDIS)).tags == ("7",)
    hub.requests.clear()
    await remote.stat(CONTEXT, REDIS, layer)
    assert set(logins(hub)) == {"me"}


async def test_what_no_login_may_read_is_denied_after_all_were_asked(
    hub: Hub, remote: Remote
) -> None:
    hub.closed = {("me", REDIS.name), ("you", REDIS.name)}
    hub.add_image(REDIS.name, "7", b"layer")
    for _ in range(2):
        hub.requests.clear()
        with pytest.raises(Denied, match="any of the 2 logins read library/redis"):
            await remote.resolve(CONTEXT, REDIS, "7")
        assert set(logins(hub)) == {"me", "you"}
    hub.closed.clear()
    await remote.resolve(CONTEXT, REDIS, "7")


async def test_a_login_that_the_realm_refuses_is_followed_by_the_other(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.login, hub.anonymous = ("you", "two"), False
    wrong = Login("me", SecretStr("changed since"))
    remote = make_remote(hub.url, credentials=(wrong, YOU), realm=hub.realm_url)
    hub.add_image(REDIS.name, "7", b"layer")
    await remote.resolve(CONTEXT, REDIS, "7")
    hub.requests.clear()
    await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 0


async def test_a_token_that_is_no_good_any_more_is_followed_by_a_login(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.login, hub.anonymous = ("you", "two"), False
    ended = GivenToken(SecretStr("ended"))
    remote = make_remote(hub.url, credentials=(ended, YOU), realm=hub.realm_url)
    digest = hub.add_image(REDIS.name, "7", b"layer")
    assert str((await remote.resolve(CONTEXT, REDIS, "7")).digest) == digest
    assert logins(hub)[-1] == "you"


async def test_where_the_login_that_may_read_is_at_its_limit_that_is_what_is_told(
    hub: Hub, remote: Remote
) -> None:
    hub.closed = {("me", REDIS.name)}
    digest = Digest.parse(hub.add_image(REDIS.name, "7", b"layer"))
    hub.limit = 0
    for _ in range(2):
        with pytest.raises(RateLimited, match="the login 'you' pulls none before"):
            await remote.manifest(CONTEXT, REDIS, digest)
    asked = logins(hub)
    assert asked.count("you") == 1


async def test_one_login_alone_is_asked_once_by_head_and_once_by_get(
    hub: Hub, make_remote: MakeRemote
) -> None:
    remote = make_remote(hub.url)
    hub.challenge = "none"
    hub.fail("registry", status(403), times=10)
    with pytest.raises(Denied, match="does not let us read library/redis"):
        await remote.resolve(CONTEXT, REDIS, "7")
    asked = hub.seen("registry", path="/library/")
    assert [one.method for one in asked] == ["HEAD", "GET"]


async def test_f55_what_is_remembered_of_logins_is_bounded(hub: Hub, remote: Remote) -> None:
    hub.challenge = "none"
    accounts = remote._accounts
    (me, _) = accounts._all
    for number in range(20_000):
        accounts.denied(me, f"acme/app{number}")
    assert len(accounts._denied) <= 4096


@pytest.fixture
def hides(hub: Hub) -> Hub:
    """A login is told that there is no such thing, where it may not read it."""
    hub.closed_by = 404
    return hub


async def test_what_is_hidden_from_one_login_is_asked_for_with_the_other(
    hides: Hub, remote: Remote
) -> None:
    hides.closed = {("me", REDIS.name)}
    digest = Digest.parse(hides.add_image(REDIS.name, "7", b"layer"))
    assert (await remote.resolve(CONTEXT, REDIS, "7")).digest == digest
    hides.requests.clear()
    assert (await remote.stat(CONTEXT, REDIS, Digest.of(b"layer"))).size == 5
    assert (await remote.tags(CONTEXT, REDIS)).tags == ("7",)
    assert set(logins(hides)) == {"you"}


async def test_what_no_login_finds_is_missing_and_seldom_asked_for_twice(
    hides: Hub, remote: Remote
) -> None:
    hides.add_image(REDIS.name, "7", b"layer")
    for _ in range(3):
        hides.requests.clear()
        with pytest.raises(ManifestUnknown):
            await remote.resolve(CONTEXT, REDIS, "none")
        assert sorted(logins(hides)) == ["me", "me", "you", "you"]  # by HEAD, and by GET
    # Of one that has read there, it is believed.
    await remote.resolve(CONTEXT, REDIS, "7")
    hides.requests.clear()
    with pytest.raises(ManifestUnknown):
        await remote.resolve(CONTEXT, REDIS, "none")
    assert len(set(logins(hides))) == 1


@pytest.mark.parametrize("code", [401, 403])
async def test_what_one_login_does_not_find_is_missing_though_the_other_is_refused(
    hub: Hub, remote: Remote, code: int
) -> None:
    hub.closed, hub.closed_by = {("you", REDIS.name)}, code
    hub.add_image(REDIS.name, "7", b"layer")
    with pytest.raises(ManifestUnknown):
        await remote.resolve(CONTEXT, REDIS, "none")


async def test_what_one_login_does_not_find_is_missing_while_the_other_is_at_its_limit(
    hub: Hub, remote: Remote
) -> None:
    hub.add_image(REDIS.name, "7", b"layer")
    hub.limit = 3
    for account in remote._accounts._all:
        login = account.authorizer.own
        assert login is not None
        if login.name == "you":
            account.quota.refused(REDIS.name, True, {"Retry-After": "900"})
    with pytest.raises(ManifestUnknown):
        await remote.manifest(CONTEXT, REDIS, Digest.of(b"none"))
