"""A registry that redirects to another one, which has a challenge of its own (lscr.io does to
ghcr.io): answered anonymously, and learnt."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.errors import (
    Denied,
    ManifestUnknown,
    RegistryError,
    Unavailable,
    Untrustworthy,
)
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository
from mirror.secret_text import SecretStr
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import Login

from ..fakes import CONTEXT
from ..fakes.hub import Hub, status
from ..fakes.servers import Servers
from .conftest import REDIS, MakeRemote

LOGIN = Login("ann", SecretStr("secret"))
LAYER = b"a layer of some bytes"
LAYER_DIGEST = Digest.of(LAYER)


class Front(Servers):
    """Redirects whatever it is asked for to `target`."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.code = 307
        self.url = ""

    async def __aenter__(self) -> Front:
        self.url = await self.serve("front", self._redirect)
        return self

    async def _redirect(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        return web.Response(status=self.code, headers={"Location": self.target + request.path_qs})


@pytest.fixture
async def front(hub: Hub) -> AsyncIterator[Front]:
    hub.add_image(REDIS.name, "7", LAYER)
    async with Front(hub.url) as front:
        yield front


@pytest.fixture
def through(front: Front, make_remote: MakeRemote) -> Remote:
    return make_remote(front.url, name="front", credentials=(LOGIN,))


async def read(remote: Remote, range: ByteRange | None = None) -> bytes:
    stream = await remote.blob(CONTEXT, REDIS, LAYER_DIGEST, range)
    try:
        return await stream.read()
    finally:
        await stream.close()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_its_challenge_is_answered_anonymously_and_learnt(
    hub: Hub, front: Front, through: Remote, code: int
) -> None:
    front.code = code
    descriptor = await through.resolve(CONTEXT, REDIS, "7")
    await through.manifest(CONTEXT, REDIS, descriptor.digest)
    assert await read(through) == LAYER
    assert (await through.stat(CONTEXT, REDIS, LAYER_DIGEST)).size == len(LAYER)
    assert (await through.tags(CONTEXT, REDIS)).tags == ("7",)
    refused = [one for one in hub.seen("registry") if "Authorization" not in one.headers]
    assert len(refused) == 1
    assert hub.count("realm") == 1
    # Our login is for the host that the configuration names, and no token for one beside its own.
    assert not any("Authorization" in one.headers for one in hub.seen("realm"))
    assert not any("Authorization" in one.headers for one in front.seen("front"))
    assert not any("Authorization" in one.headers for one in hub.seen("blobs"))


async def test_a_range_is_asked_for_again_with_the_token(hub: Hub, through: Remote) -> None:
    hub.redirects = False
    assert await read(through, ByteRange(2, 7)) == LAYER[2:7]
    assert [one.headers["Range"] for one in hub.seen("registry")] == ["bytes=2-6"] * 2


async def test_a_token_is_for_its_repository_alone(hub: Hub, through: Remote) -> None:
    other = Repository("docker.io", "library/nginx")
    hub.add_image(other.name, "1", LAYER)
    await through.resolve(CONTEXT, REDIS, "7")
    await through.resolve(CONTEXT, other, "1")
    assert [one.query["scope"] for one in hub.seen("realm")] == [
        "repository:library/redis:pull",
        "repository:library/nginx:pull",
    ]
    assert hub.count("registry") == 3


async def test_a_scope_of_its_own_is_asked_for(hub: Hub, through: Remote) -> None:
    hub.scope_of = lambda name, kind: f"repository:linuxserver/{name}:pull"
    await through.resolve(CONTEXT, REDIS, "7")
    await through.resolve(CONTEXT, REDIS, "7")
    assert hub.count("registry") == 4


async def test_a_revoked_token_is_renewed(hub: Hub, through: Remote) -> None:
    await through.resolve(CONTEXT, REDIS, "7")
    hub.revoke_tokens()
    await through.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 2


async def test_what_it_does_not_have_is_unknown_and_names_it(hub: Hub, through: Remote) -> None:
    with pytest.raises(ManifestUnknown, match=hub.url):
        await through.resolve(CONTEXT, REDIS, "none")


async def test_what_it_lets_nobody_read_is_denied_and_names_it(hub: Hub, through: Remote) -> None:
    hub.closed.add(("", REDIS.name))
    with pytest.raises(Denied, match=rf"{hub.url}.*refuses anonymous askers"):
        await through.resolve(CONTEXT, REDIS, "7")
    assert hub.count("registry") <= 3
    hub.anonymous = False
    hub.revoke_tokens()
    with pytest.raises(Denied, match=r"anonymous askers"):
        await through.resolve(CONTEXT, Repository("docker.io", "library/nginx"), "7")


async def test_one_that_asks_for_a_login_is_denied_in_words(hub: Hub, through: Remote) -> None:
    hub.challenge = "basic"
    with pytest.raises(Denied, match=rf"{hub.url}.*asks for a login.*configure that registry"):
        await through.resolve(CONTEXT, REDIS, "7")
    assert hub.count("registry") == 2
    assert not any("Authorization" in one.headers for one in hub.requests)


async def test_the_endpoints_own_login_goes_to_the_endpoint_alone(
    hub: Hub, front: Front, make_remote: MakeRemote
) -> None:
    async def asks_for_a_login(request: web.Request) -> web.StreamResponse | None:
        if "Authorization" in request.headers and request.path != "/v2/":
            return None
        if "Authorization" in request.headers:
            return web.json_response({})
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="front"'})

    front.fail("front", asks_for_a_login, times=99)
    remote = make_remote(front.url, name="front", credentials=(LOGIN,))
    assert await read(remote) == LAYER
    assert await read(remote) == LAYER
    shown = [one.headers["Authorization"] for one in hub.requests if "Authorization" in one.headers]
    assert shown
    assert all(each.startswith("Bearer ") for each in shown)
    assert not any("Authorization" in one.headers for one in hub.seen("realm"))


async def test_a_realm_of_its_own_that_fails_is_named(hub: Hub, through: Remote) -> None:
    hub.fail("realm", status(503), times=99)
    with pytest.raises(Unavailable, match=hub.realm_url):
        await through.resolve(CONTEXT, REDIS, "7")


async def test_a_realm_of_its_own_is_guarded_as_any_referral(hub: Hub, through: Remote) -> None:
    hub.realm_url = "http://169.254.169.254/token"
    with pytest.raises(Untrustworthy, match="not public"):
        await through.resolve(CONTEXT, REDIS, "7")


async def test_how_many_such_registries_are_remembered_is_bounded(through: Remote) -> None:
    assert through._requests._referred._known.maxsize == 16


@pytest.mark.parametrize("name", ["a" * 300, "a%20repository:other:push", "a%00b"])
async def test_no_token_is_asked_for_what_is_no_repository(
    hub: Hub, front: Front, through: Remote, name: str
) -> None:
    """The redirect's path is the registry's word, and stands in the scope that is asked for."""
    front.target = f"{hub.url}/v2/{name}"
    hub.fail("registry", status(401, {"WWW-Authenticate": hub.lines("")[0]}), 9)
    with pytest.raises(RegistryError):
        await through.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 0
