"""Identity tokens, which a token realm changes into tokens by POST (OAuth 2.0)."""

from __future__ import annotations

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from mirror.oci.errors import Denied, RegistryError
from mirror.oci.reference import Repository
from mirror.secret_text import SecretStr
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import IdentityToken, Login

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Fault, Hub, cut, status
from .conftest import REDIS, Counts, MakeRemote
from .test_logins import PRIVATE, PUBLIC, Written, misses, repositories

NOBODY = "00000000-0000-0000-0000-000000000000"
RIGHT, WRONG = "right-eyJhbGciOi.J9/+=", "wrong-eyJhbGciOi.J9"


@pytest.fixture
def hub_of_azure(hub: Hub) -> Hub:
    """One that takes nothing else."""
    hub.anonymous, hub.identity_tokens = False, {RIGHT: "azure"}
    for repository in (REDIS, PUBLIC, PRIVATE):
        hub.add_image(repository.name, "7")
    return hub


def identity(text: str, written: Written | None = None) -> IdentityToken:
    return IdentityToken(NOBODY, SecretStr(text), written)


@pytest.fixture
def remote(hub_of_azure: Hub, make_remote: MakeRemote) -> Remote:
    hub = hub_of_azure
    return make_remote(hub.url, credentials=(identity(RIGHT),), realm=hub.realm_url)


def sent(hub: Hub, token: str) -> list[dict[str, str]]:
    return [form for form in hub.forms if form["refresh_token"] == token]


async def test_it_is_changed_into_a_token_for_each_repository(
    hub_of_azure: Hub, remote: Remote
) -> None:
    hub = hub_of_azure
    for _ in range(3):
        for repository in (REDIS, PUBLIC):
            await remote.resolve(CONTEXT, repository, "7")
    asked = {"grant_type": "refresh_token", "service": "hub", "client_id": "registry-mirror"}
    assert hub.forms == [
        {**asked, "scope": f"repository:{repository.name}:pull", "refresh_token": RIGHT}
        for repository in (REDIS, PUBLIC)
    ]
    assert {account for account in hub.accounts.values() if account} == {"azure"}
    for one in hub.requests:
        assert RIGHT not in f"{one.path} {dict(one.query)} {dict(one.headers)}"
        assert "Basic" not in one.headers.get("Authorization", "")


async def test_it_is_not_sent_to_a_realm_elsewhere(
    hub_of_azure: Hub, make_remote: MakeRemote
) -> None:
    hub = hub_of_azure
    hub.realm_url = hub.realm_url.replace("127.0.0.1", "localhost")
    with capture_logs() as logs:
        remote = make_remote(hub.url, credentials=(identity(RIGHT),))
        assert len(await misses(remote, [REDIS])) == 1
    assert hub.forms == []
    assert "login_withheld" in [log["event"] for log in logs]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_redirect_takes_it_nowhere_else(
    hub_of_azure: Hub, remote: Remote, code: int, host: str
) -> None:
    """Only where the method, and the host, stay the same."""
    hub = hub_of_azure
    target = hub.realm_url.replace("127.0.0.1", host) + "/there"

    async def moved(request: web.Request) -> web.StreamResponse | None:
        is_there = request.path.endswith("/there")
        return None if is_there else web.Response(status=code, headers={"Location": target})

    hub.fail("realm", moved, times=1000)
    failed = await misses(remote, [REDIS])
    if code in (307, 308) and host == "127.0.0.1":
        assert failed == []
        assert len(sent(hub, RIGHT)) == 1
    else:
        assert f"{host}:" in str(failed[0])
        assert "it is not sent there" in str(failed[0])
        assert hub.forms == []
        assert hub.count("realm", path="/there") == 0


@pytest.mark.parametrize(
    "refuse",
    [
        status(401),
        status(403),
        status(400, body='{"error": "invalid_grant"}'),
        status(400, body='{"error": "unauthorized_client"}'),
    ],
)
async def test_one_that_is_refused_rests_and_its_file_is_read_again(
    hub_of_azure: Hub, make_remote: MakeRemote, counts: Counts, time: HandClock, refuse: Fault
) -> None:
    hub = hub_of_azure
    hub.anonymous = True
    hub.closed = {("", REDIS.name), ("", PRIVATE.name)}

    async def refuse_the_wrong(request: web.Request) -> web.StreamResponse | None:
        if request.method != "POST" or (await request.post())["refresh_token"] == RIGHT:
            return None
        hub.forms.append({"refresh_token": WRONG})
        return await refuse(request)

    hub.fail("realm", refuse_the_wrong, times=1000)
    written = Written(WRONG)
    credentials = (identity(WRONG, written),)
    remote = make_remote(hub.url, credentials=credentials, realm=hub.realm_url)
    failed = await misses(remote, [*repositories(20), PRIVATE])
    assert len(sent(hub, WRONG)) <= 2
    assert counts.logins == [("hub", NOBODY, True)]
    assert f"refuses the login '{NOBODY}'; it is shown again when its file" in str(failed[-1])
    assert await misses(remote, [PUBLIC]) == []
    written.write(RIGHT)
    time.now += 1
    assert await misses(remote, [REDIS, PRIVATE]) == []
    assert counts.logins == [("hub", NOBODY, True), ("hub", NOBODY, False)]


async def test_one_that_changes_is_picked_up_upon_its_first_refusal(
    hub_of_azure: Hub, make_remote: MakeRemote, counts: Counts, time: HandClock
) -> None:
    hub, written = hub_of_azure, Written(RIGHT)
    credentials = (identity(RIGHT, written),)
    remote = make_remote(hub.url, credentials=credentials, realm=hub.realm_url)
    for number in range(3):
        assert await misses(remote, [REDIS, PUBLIC]) == []
        hub.identity_tokens = {f"{number}-{RIGHT}": "azure"}
        hub.revoke_tokens()
        written.write(f"{number}-{RIGHT}")
        time.now += 3 * 3600
    assert counts.logins == []


async def test_a_scope_that_is_refused_is_no_refusal_of_the_login(
    hub_of_azure: Hub, remote: Remote, counts: Counts, time: HandClock
) -> None:
    async def not_that(request: web.Request) -> web.StreamResponse | None:
        asked = await request.post() if request.method == "POST" else request.query
        return web.Response(status=401) if PRIVATE.name in asked.get("scope", "") else None

    hub_of_azure.fail("realm", not_that, times=1000)
    for _ in range(5):
        (error,) = await misses(remote, [PRIVATE])
        assert isinstance(error, Denied)
        assert await misses(remote, [REDIS, PUBLIC]) == []
        time.now += 600
    assert counts.logins == []


async def test_a_realm_that_changes_nothing_without_a_scope_is_shown_a_wrong_one_seldom(
    hub_of_azure: Hub, make_remote: MakeRemote, counts: Counts
) -> None:
    """So it cannot be shown one for nothing, to find out whether it is good."""
    hub = hub_of_azure

    async def no_scope(request: web.Request) -> web.StreamResponse | None:
        form = await request.post()
        if request.method == "POST" and not form["scope"]:
            hub.forms.append({"refresh_token": str(form["refresh_token"])})
            return web.Response(status=400)
        return None

    hub.fail("realm", no_scope, times=1000)
    remote = make_remote(hub.url, credentials=(identity(WRONG),), realm=hub.realm_url)
    await misses(remote, repositories(20))
    for repository in repositories(20):
        await misses(remote, [repository])
    assert len(sent(hub, WRONG)) <= 2
    assert counts.logins == [("hub", NOBODY, True)]


@pytest.mark.parametrize(
    "knows_no_post",
    [status(404), status(405), status(400, body='{"error": "unsupported_grant_type"}')],
)
async def test_a_realm_that_knows_no_post_is_shown_it_as_a_password(
    hub_of_azure: Hub, make_remote: MakeRemote, knows_no_post: Fault
) -> None:
    hub = hub_of_azure
    hub.login = (NOBODY, RIGHT)

    async def no_post(request: web.Request) -> web.StreamResponse | None:
        return await knows_no_post(request) if request.method == "POST" else None

    hub.fail("realm", no_post, times=1000)
    remote = make_remote(hub.url, credentials=(identity(RIGHT),), realm=hub.realm_url)
    assert await misses(remote, [REDIS]) == []


async def test_a_registry_that_asks_for_basic_is_shown_it_as_a_password(
    hub_of_azure: Hub, remote: Remote
) -> None:
    hub_of_azure.challenge, hub_of_azure.login = "basic", (NOBODY, RIGHT)
    assert await misses(remote, [REDIS]) == []
    assert hub_of_azure.forms == []


async def test_a_connection_that_breaks_as_it_is_sent_costs_no_pull(
    hub_of_azure: Hub, remote: Remote, counts: Counts
) -> None:
    """As one that was kept, and that the realm closes: a POST is not sent again below us."""
    hub_of_azure.fail("realm", cut())
    assert await misses(remote, [REDIS]) == []
    assert counts.logins == []


async def test_it_is_one_of_several_logins(hub_of_azure: Hub, make_remote: MakeRemote) -> None:
    hub = hub_of_azure
    hub.login = ("ann", "pass")
    hub.closed = {("azure", REDIS.name), ("ann", PRIVATE.name)}
    both = (identity(RIGHT), Login("ann", SecretStr("pass")))
    remote = make_remote(hub.url, credentials=both, realm=hub.realm_url)
    assert await misses(remote, [REDIS, PUBLIC, PRIVATE]) == []


async def test_a_long_one_is_no_matter_and_none_is_in_a_message(
    hub_of_azure: Hub, make_remote: MakeRemote
) -> None:
    long = "x" * 60_000
    hub_of_azure.identity_tokens = {long: "azure"}
    remote = make_remote(
        hub_of_azure.url, credentials=(identity(long),), realm=hub_of_azure.realm_url
    )
    with capture_logs() as logs:
        assert await misses(remote, [REDIS]) == []
        hub_of_azure.identity_tokens = {RIGHT: "azure"}
        hub_of_azure.revoke_tokens()
        failed: list[RegistryError] = await misses(remote, [Repository("docker.io", "acme/other")])
    assert "xxxx" not in f"{logs} {failed} {remote.endpoint}"
