"""What registries ask for before they answer, and where: hidden repositories, scopes of their own,
realms that are written oddly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, ManifestUnknown, Unavailable, Unknown
from mirror.oci.reference import Repository
from mirror.secret_text import SecretStr
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import Login
from mirror.upstream.failures import Faulty

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Fault, Hub, basic, cut, status
from .authority import Authority, tls_server
from .conftest import REDIS, MakeRemote

LOGIN = Login("ann", SecretStr("secret"))
LAYER = b"layer"
LAYER_DIGEST = Digest.of(LAYER)


def repository(number: int) -> Repository:
    return Repository("docker.io", f"acme/app{number}")


Ask = Callable[[Remote], Awaitable[object]]


async def _blob(remote: Remote) -> bytes:
    stream = await remote.blob(CONTEXT, REDIS, LAYER_DIGEST)
    try:
        return await stream.read()
    finally:
        await stream.close()


ASKS: dict[str, Ask] = {
    "tag": lambda remote: remote.resolve(CONTEXT, REDIS, "7"),
    "blob": _blob,
    "size": lambda remote: remote.stat(CONTEXT, REDIS, LAYER_DIGEST),
    "tags": lambda remote: remote.tags(CONTEXT, REDIS),
}


@pytest.fixture
def private(hub: Hub) -> Hub:
    """Its one image may be read with ann's login alone."""
    hub.login, hub.anonymous = ("ann", "secret"), False
    hub.add_image(REDIS.name, "7", LAYER)
    return hub


@pytest.fixture
def ann(private: Hub, make_remote: MakeRemote) -> Remote:
    return make_remote(private.url, credentials=(LOGIN,), realm=private.realm_url)


def pings(hub: Hub) -> int:
    return sum(one.path == "/v2/" for one in hub.seen("registry"))


# Hidden repositories.


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("challenge", ["bearer", "basic"])
@pytest.mark.parametrize("code", [401, 403, 404])
async def test_what_is_hidden_from_the_anonymous_is_asked_for_with_the_login(
    private: Hub, ann: Remote, code: int, challenge: str, ask: str
) -> None:
    private.hidden, private.challenge = code, challenge
    await ASKS[ask](ann)
    await ASKS["tag"](ann)
    # Learnt once: the login, or its token, goes along from then on.
    anonymous = [
        one
        for one in private.seen("registry", path="/library/")
        if "Authorization" not in one.headers
    ]
    assert len(anonymous) == 1
    assert pings(private) == (1 if challenge == "bearer" else 2)  # where the login is tried, too


async def test_misses_do_not_each_cost_a_ping(private: Hub, ann: Remote, time: HandClock) -> None:
    private.hidden = 404
    for number in range(10):
        with pytest.raises(ManifestUnknown):
            await ann.resolve(CONTEXT, repository(number), "7")
    assert pings(private) == 1
    assert private.count("registry", path="/acme/") == 21


@pytest.mark.parametrize("login", [True, False])
async def test_an_open_registrys_misses_do_not_each_cost_a_ping(
    hub: Hub, make_remote: MakeRemote, time: HandClock, login: bool
) -> None:
    hub.challenge = "none"
    remote = make_remote(hub.url, credentials=(LOGIN,) if login else ())
    for _ in range(10):
        with pytest.raises(ManifestUnknown):
            await remote.resolve(CONTEXT, REDIS, "7")
        with pytest.raises(Unknown):
            await remote.referrers(CONTEXT, REDIS, LAYER_DIGEST)
    assert pings(hub) == (1 if login else 0)
    assert hub.count("registry", path="/library/") == 40
    # Not for ever: it may be closed one day.
    time.now += 400
    with pytest.raises(ManifestUnknown):
        await remote.resolve(CONTEXT, REDIS, "7")
    assert pings(hub) == (2 if login else 0)


async def test_many_who_are_refused_at_once_share_one_ping(private: Hub, ann: Remote) -> None:
    private.hidden = 404
    results = await asyncio.gather(*(ASKS["tag"](ann) for _ in range(20)), return_exceptions=True)
    assert not [each for each in results if isinstance(each, Exception)]
    assert pings(private) == 1
    assert private.count("realm") == 1


async def test_a_client_that_leaves_during_the_ping_does_not_end_it_for_the_others(
    private: Hub, ann: Remote
) -> None:
    private.hidden = 404
    go_on = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/v2/":
            await go_on.wait()
        return None

    private.fail("registry", wait, times=9)
    first = asyncio.create_task(ann.resolve(CONTEXT, REDIS, "7"))
    second = asyncio.create_task(ann.resolve(CONTEXT, REDIS, "7"))
    async with asyncio.timeout(5):
        while private.count("registry") < 3:
            await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    assert (await second).digest


async def test_a_challenge_on_v2_alone_is_answered_anonymously_too(
    hub: Hub, make_remote: MakeRemote
) -> None:
    for code in (401, 403):
        hub.hidden = code
        hub.add_image(REDIS.name, "7", LAYER)
        await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert not any("Authorization" in one.headers for one in hub.seen("realm"))


@pytest.mark.parametrize("fault", [status(500), status(403), status(200, body="{}")])
async def test_what_everybody_may_read_needs_no_token_because_v2_asks_for_one(
    hub: Hub, make_remote: MakeRemote, fault: Fault
) -> None:
    """Quay lets everybody read what is public, and challenges whoever asks for /v2/."""
    hub.add_image(REDIS.name, "7", LAYER)
    hub.challenge = "none"
    line = f'Bearer realm="{hub.realm_url}"'

    async def private(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/v2/":
            return web.Response(status=401, headers={"WWW-Authenticate": line})
        return web.Response(status=403) if "/acme/" in request.path else None

    hub.fail("registry", private, times=99)
    hub.fail("realm", fault, times=99)
    remote = make_remote(hub.url)
    for number in range(2):
        with pytest.raises(Denied):
            await remote.resolve(CONTEXT, repository(number), "7")
        await remote.resolve(CONTEXT, REDIS, "7")
    assert pings(hub) == 1


async def test_what_the_realm_gives_no_token_for_does_not_exist_as_the_registry_said(
    private: Hub, ann: Remote
) -> None:
    """GitHub's realm says DENIED for a repository that is not there."""
    private.hidden = 404

    async def denied(request: web.Request) -> web.StreamResponse | None:
        is_redis = "library/redis" in request.query.get("scope", "library/redis")
        return None if is_redis else web.json_response({"errors": []}, status=403)

    private.fail("realm", denied, times=99)
    with pytest.raises(ManifestUnknown):
        await ann.resolve(CONTEXT, repository(1), "7")
    await ann.resolve(CONTEXT, REDIS, "7")


async def test_a_login_that_is_refused_leaves_the_registrys_404_as_it_is(
    private: Hub, make_remote: MakeRemote
) -> None:
    private.hidden = 404
    private.anonymous = True
    private.closed.add(("", REDIS.name))
    wrong = Login("ann", SecretStr("wrong"))
    remote = make_remote(private.url, credentials=(wrong,), realm=private.realm_url)
    for _ in range(3):
        with pytest.raises(ManifestUnknown):
            await remote.resolve(CONTEXT, REDIS, "7")
    shown = [
        one for one in private.requests if one.headers.get("Authorization") == basic("ann", "wrong")
    ]
    assert 1 <= len(shown) <= 2
    assert pings(private) <= 2


async def test_a_realm_in_trouble_does_not_make_a_hidden_repository_one_that_does_not_exist(
    private: Hub, ann: Remote, time: HandClock
) -> None:
    private.hidden = 404
    await ann.resolve(CONTEXT, REDIS, "7")
    private.fail("realm", status(503), times=99)
    time.now += 400
    for _ in range(2):
        with pytest.raises(Unavailable):
            await ann.resolve(CONTEXT, REDIS, "7")
    private.mend()
    await ann.resolve(CONTEXT, REDIS, "7")


async def test_a_v2_that_cannot_be_asked_hides_nothing_that_was_found_to_be_hidden(
    private: Hub, ann: Remote, time: HandClock
) -> None:
    private.hidden = 404
    await ann.resolve(CONTEXT, REDIS, "7")

    async def broken(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=503) if request.path == "/v2/" else None

    private.fail("registry", broken, times=999)
    private.fail("realm", status(503), times=999)
    time.now += 400
    for _ in range(2):
        asks = (ann.resolve(CONTEXT, REDIS, "7") for _ in range(10))
        failed = await asyncio.gather(*asks, return_exceptions=True)
        assert {type(each) for each in failed} <= {Faulty, Unavailable}
    private.mend()
    time.now += 10
    await ann.resolve(CONTEXT, REDIS, "7")


@pytest.mark.parametrize("fault", [status(500), status(429), status(404), cut()])
async def test_a_v2_that_cannot_be_asked_leaves_the_answer_as_it_is(
    hub: Hub, make_remote: MakeRemote, time: HandClock, fault: Fault
) -> None:
    hub.challenge = "none"
    hub.add_image(REDIS.name, "7", LAYER)

    async def broken(request: web.Request) -> web.StreamResponse | None:
        return await fault(request) if request.path == "/v2/" else None

    hub.fail("registry", broken, times=99)
    remote = make_remote(hub.url, credentials=(LOGIN,))
    for _ in range(5):
        with pytest.raises(ManifestUnknown):
            await remote.resolve(CONTEXT, REDIS, "none")
    assert pings(hub) <= 2  # one on a kept connection that was cut is repeated
    await remote.resolve(CONTEXT, REDIS, "7")


async def test_limits_on_the_anonymous_are_answered_with_the_login(
    private: Hub, ann: Remote
) -> None:
    """A registry that lets everybody read a little, and those with a login more."""

    async def limited(request: web.Request) -> web.StreamResponse | None:
        is_anonymous = "Authorization" not in request.headers and request.path != "/v2/"
        return web.Response(status=429) if is_anonymous else None

    private.fail("registry", limited, times=99)
    await ann.resolve(CONTEXT, REDIS, "7")
    assert pings(private) == 1


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("ask", ASKS)
async def test_a_page_to_sign_in_at_is_answered_with_the_login(
    private: Hub, ann: Remote, ask: str, elsewhere: bool
) -> None:
    host = private.blobs_url.replace("127.0.0.1", "localhost") if elsewhere else ""

    async def leads_to_page(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/v2/" or "Authorization" in request.headers:
            return None
        if request.path == "/sign_in":
            return web.Response(text="<html>Sign in", content_type="text/html")
        return web.Response(status=302, headers={"Location": f"{host}/sign_in"})

    async def signs_in(request: web.Request) -> web.StreamResponse | None:
        return await leads_to_page(request) if request.path == "/sign_in" else None

    private.fail("registry", leads_to_page, times=99)
    private.fail("blobs", signs_in, times=99)
    await ASKS[ask](ann)
    assert pings(private) == 1


async def test_a_403_with_a_challenge_is_answered(private: Hub, ann: Remote) -> None:
    async def forbidden(request: web.Request) -> web.StreamResponse | None:
        if "Authorization" in request.headers:
            return None
        line = f'Bearer realm="{private.realm_url}",service="hub"'
        return web.Response(status=403, headers={"WWW-Authenticate": line})

    private.fail("registry", forbidden, times=99)
    await ann.resolve(CONTEXT, REDIS, "7")
    assert pings(private) == 0


# Scopes of the registry's own.


@pytest.fixture
def odd(private: Hub) -> Hub:
    private.redirects = False
    return private


@pytest.mark.parametrize(
    "scope_of",
    [
        lambda name, kind: f"repository:docker-remote/{name}:pull",
        lambda name, kind: f"repository:{name.rpartition('/')[2]}:pull",
        lambda name, kind: f"repository:{name.upper()}:pull",
        lambda name, kind: f"repository(plugin):{name}:pull",
        lambda name, kind: f"repository:{name}:pull repository:shared/base:pull",
        lambda name, kind: f"repository:{name}:{'metadata_read' if kind == 'tags' else 'pull'}",
        lambda name, kind: f"artifact-repository:{name}:content/read",
    ],
)
@pytest.mark.parametrize("refuses", [False, True], ids=["no-access", "denied-by-realm"])
async def test_a_scope_of_the_registrys_own_is_asked_for_and_remembered(
    odd: Hub, ann: Remote, scope_of: Callable[[str, str], str], refuses: bool
) -> None:
    odd.scope_of = scope_of
    known = {scope_of(REDIS.name, kind) for kind in ("manifests", "blobs", "tags")}

    async def strict(request: web.Request) -> web.StreamResponse | None:
        scope = " ".join(request.query.getall("scope", []))
        return None if scope in known or not scope else web.Response(status=403)

    if refuses:
        odd.fail("realm", strict, times=99)
    for ask in ASKS.values():
        await ask(ann)
    odd.requests.clear()
    for ask in ASKS.values():
        await ask(ann)
    assert odd.count("realm") == 0
    assert odd.count("registry") == len(ASKS)


async def test_an_odd_registrys_next_repository_costs_one_refusal_at_most(
    odd: Hub, ann: Remote
) -> None:
    odd.scope_of = lambda name, kind: f"repository:remote/{name}:pull"

    async def strict(request: web.Request) -> web.StreamResponse | None:
        scope = request.query.get("scope", "repository:remote/")
        return None if scope.startswith("repository:remote/") else web.Response(status=403)

    odd.fail("realm", strict, times=99)
    await ann.resolve(CONTEXT, REDIS, "7")
    for number in range(3):
        odd.add_image(repository(number).name, "7", LAYER)
        odd.requests.clear()
        await ann.resolve(CONTEXT, repository(number), "7")
        assert odd.count("registry") == 2


async def test_a_scope_that_allows_more_than_reading_is_not_asked_for_with_the_login(
    odd: Hub, ann: Remote
) -> None:
    odd.lines = lambda scope: [
        f'Bearer realm="{odd.realm_url}",service="hub",'
        'scope="repository:library/redis:pull,push,delete registry:catalog:* aws repository:b:push"'
    ]
    odd.scope_of = lambda name, kind: "aws"
    with pytest.raises(Denied):
        await ann.resolve(CONTEXT, REDIS, "7")
    asked = {one.query["scope"] for one in odd.seen("realm")}
    assert asked == {"repository:library/redis:pull"}


@pytest.mark.parametrize("word", ["aws", "*"])
async def test_a_scope_of_one_word_is_asked_for_anonymously(
    hub: Hub, make_remote: MakeRemote, word: str
) -> None:
    hub.add_image(REDIS.name, "7", LAYER)
    hub.scope_of = lambda name, kind: word
    await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert [one.query["scope"] for one in hub.seen("realm")][-1] == word


async def test_a_token_for_less_than_was_asked_ends_after_each_scope_was_tried(
    odd: Hub, ann: Remote, time: HandClock
) -> None:
    odd.scope_of = lambda name, kind: f"repository:{name}:metadata_read"
    odd.token_answer = lambda token: {"token": f"less-{token}"}
    with pytest.raises(Denied):
        await ann.resolve(CONTEXT, REDIS, "7")
    assert odd.count("realm") == 2
    assert odd.count("registry") == 5
    odd.requests.clear()
    for _ in range(5):
        with pytest.raises(Denied):
            await ann.resolve(CONTEXT, REDIS, "7")
    assert odd.count("realm") == 0, "tokens that were never accepted are not renewed at once"
    assert odd.count("registry") <= 20


async def test_the_mirrors_own_scope_is_tried_again_where_the_named_one_is_no_good_any_more(
    odd: Hub, ann: Remote
) -> None:
    odd.scope_of = lambda name, kind: f"repository:remote/{name}:pull"
    await ann.resolve(CONTEXT, REDIS, "7")
    named = odd.lines
    odd.lines = lambda scope: named("repository:remote/library/redis:pull")
    odd.scope_of = lambda name, kind: f"repository:{name}:pull"
    await ann.resolve(CONTEXT, REDIS, "7")


async def test_scopes_that_are_remembered_are_bounded(odd: Hub, ann: Remote) -> None:
    """A repository whose scope was forgotten costs one refusal, and is answered."""
    scopes = ann._accounts._all[0].authorizer._negotiation._scopes
    assert scopes.maxsize <= 1024
    odd.scope_of = lambda name, kind: f"repository:remote/{name}:pull"
    await ann.resolve(CONTEXT, REDIS, "7")
    assert len(scopes) == 1
    scopes.clear()
    await ann.resolve(CONTEXT, REDIS, "7")


# Tokens that are refused early.


async def test_a_revoked_token_is_renewed_once_and_what_nobody_may_read_renews_none(
    private: Hub, ann: Remote, time: HandClock
) -> None:
    await ann.resolve(CONTEXT, REDIS, "7")
    private.revoke_tokens()
    await asyncio.gather(*(ann.resolve(CONTEXT, REDIS, "7") for _ in range(10)))
    assert private.count("realm") == 2
    private.closed.add(("ann", REDIS.name))
    for _ in range(10):
        with pytest.raises(Denied):
            await ann.resolve(CONTEXT, REDIS, "7")
    assert private.count("realm") <= 3
    # It may be read again by now, with another token.
    private.closed.clear()
    private.revoke_tokens()
    time.now += 61
    await ann.resolve(CONTEXT, REDIS, "7")


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [("300", 300), (" 300", 60), ("-1", 60), (0, 60), (-5, 60), (0.5, 0.5), (None, 60)],
)
async def test_how_long_a_token_lasts_as_realms_write_it(
    hub: Hub, make_remote: MakeRemote, time: HandClock, expires_in: object, seconds: float
) -> None:
    hub.token_answer = lambda token: {"token": token, "expires_in": expires_in}
    hub.add_image(REDIS.name, "7", LAYER)
    remote = make_remote(hub.url)
    await remote.resolve(CONTEXT, REDIS, "7")
    time.now += seconds / 2
    await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 1
    time.now += seconds / 2
    await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 2


# Realms.


@pytest.mark.parametrize(
    "lines",
    [
        lambda realm: [f'BEARER Realm="{realm}", Service=hub, charset="UTF-8"'],
        lambda realm: ['Basic realm="hub"', f'Bearer realm="{realm}",service="hub"'],
        lambda realm: [f'Basic realm="hub", Bearer realm="{realm}",service="hub",error="x"'],
        lambda realm: ["Negotiate", 'Bearer realm=""', f'Bearer realm=" {realm} "'],
        lambda realm: [f'Bearer realm="{realm.replace("http:", "HTTP:")}"'],
        lambda realm: [f'Bearer realm="{realm}?kind=pull&x=y"'],
    ],
)
async def test_challenges_as_registries_write_them(
    private: Hub, ann: Remote, lines: Callable[[str], list[str]]
) -> None:
    private.lines = lambda scope: lines(private.realm_url)
    await ann.resolve(CONTEXT, REDIS, "7")
    asked = private.seen("realm")[-1]
    assert asked.headers["Authorization"] == basic("ann", "secret")
    if "kind=" in lines("")[0]:
        assert (asked.query["kind"], asked.query["x"]) == ("pull", "y")


async def test_a_realm_on_the_registrys_own_host_may_be_a_path(
    private: Hub, ann: Remote, make_remote: MakeRemote
) -> None:
    private.lines = lambda scope: ['Bearer realm="/auth?x=y",service="hub"']

    async def here(request: web.Request) -> web.StreamResponse | None:
        return await private._realm(request) if request.path == "/auth" else None

    private.fail("registry", here, times=9)
    await make_remote(private.url, credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
    assert private.seen("registry", path="/auth")[0].query["x"] == "y"


async def test_a_configured_realm_replaces_the_one_that_the_challenge_names(
    private: Hub, make_remote: MakeRemote
) -> None:
    for named in ("http://internal.invalid:8080/token", "nonsense", "http://127.0.0.1:1/token"):
        line = f'Bearer realm="{named}",service="hub"'
        private.lines = lambda scope, line=line: [line]  # type: ignore[misc]
        remote = make_remote(private.url, credentials=(LOGIN,), realm=private.realm_url)
        await remote.resolve(CONTEXT, REDIS, "7")
    assert private.count("realm") == 3


async def test_where_the_realm_may_not_see_the_login_basic_is_answered(
    private: Hub, make_remote: MakeRemote
) -> None:
    """The registry offers both, and is itself entitled to the login."""
    elsewhere = private.realm_url.replace("127.0.0.1", "localhost")
    private.lines = lambda scope: [f'Bearer realm="{elsewhere}"', 'Basic realm="hub"']
    private.challenge = "basic"
    await make_remote(private.url, credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
    assert private.count("realm") == 0


async def test_a_realm_over_http_of_a_registry_over_https_is_shown_no_login(
    private: Hub, make_remote: MakeRemote, tmp_path: Path
) -> None:
    """TLS ends before the registry, which does not know of it."""
    private.redirects, private.anonymous = False, True
    authority = Authority(tmp_path)
    tls = authority.server("localhost")
    async with tls_server(tls, private._registry) as port, tls_server(tls, private._realm) as other:
        url, trusted = f"https://localhost:{port}", authority.trusted()
        private.realm_url = private.realm_url.replace("127.0.0.1", "localhost")
        await make_remote(url, tls=trusted).resolve(CONTEXT, REDIS, "7")
        with capture_logs() as logs:
            await make_remote(url, tls=trusted, credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
        assert not any("Authorization" in one.headers for one in private.seen("realm"))
        (log,) = [log for log in logs if log["event"] == "login_withheld"]
        assert f"write realm: {url}/token if" in log["hint"]
        private.closed.add(("", REDIS.name))
        with pytest.raises(Denied, match=f"that login was not shown, .*write realm: {url}/token"):
            await make_remote(url, tls=trusted, credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
        realm = f"https://localhost:{other}/token"
        remote = make_remote(url, tls=trusted, credentials=(LOGIN,), realm=realm)
        await remote.resolve(CONTEXT, REDIS, "7")
        # Over http it is not shown, not even where the configuration says so.
        private.closed.clear()
        before = private.count("realm")
        realm = private.realm_url
        remote = make_remote(url, tls=trusted, credentials=(LOGIN,), realm=realm)
        await remote.resolve(CONTEXT, REDIS, "7")
        assert private.count("realm") == before + 1
        assert not any("Authorization" in one.headers for one in private.seen("realm"))
