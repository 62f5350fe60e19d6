"""An endpoint whose URL has a path: where its registry is, and what it is asked for there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from mirror.oci.challenges import parse_challenges
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, ManifestUnknown, RegistryError, Unavailable
from mirror.oci.layout import Layout
from mirror.oci.reference import Repository
from mirror.upstream.client.site import Found, Heard, heard, judged
from mirror.upstream.endpoint import GivenToken
from mirror.upstream.failures import NoRegistry, Unreached

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Fault, Hub, cut, hang, page, status
from ..waiting import eventually
from .conftest import REDIS, MakeRemote
from .test_tokens import LOGIN

Web = Callable[[web.Request], web.StreamResponse]

API = {"Docker-Distribution-Api-Version": "registry/2.0"}


class Host:
    """A hub, some of whose paths are somebody else's."""

    def __init__(self, hub: Hub, path: str = "") -> None:
        self.hub = hub
        hub.path = path
        self.paths: dict[str, Fault] = {}
        self.others: Fault = status(404)
        hub.elsewhere = self._elsewhere

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse | None:
        return await self.paths.get(request.path, self.others)(request)


def challenging(hub: Hub) -> Fault:
    """The answer of `/v2/`, whatever is asked for."""

    async def fault(request: web.Request) -> web.StreamResponse:
        return hub.ping(request)

    return fault


def walled(hub: Hub, each: bool = False) -> Fault:
    """As a proxy that asks everybody for a login: who has one learns that nothing is there. With
    `each` it asks otherwise at each path."""

    async def fault(request: web.Request) -> web.StreamResponse:
        answer = hub.ping(request)
        if answer.status != 401:
            return web.Response(status=404)
        if each:
            answer.headers.add("WWW-Authenticate", f'Basic realm="{request.path}"')
        return answer

    return fault


# As vendors have them: the path in the URL, what stands before /v2/, the repository's name there,
# and how the rest of the host answers.


def harbor(host: Host) -> None:
    host.others = page()  # its portal, whatever the path


def artifactory(host: Host) -> None:
    host.others = status(302, {"Location": "/ui/"})
    host.paths["/ui/"] = page()
    host.paths["/v2/"] = challenging(host.hub)  # for all its repositories


def ecr(host: Host) -> None:
    host.others = challenging(host.hub)  # a challenge, whatever the path


def gar(host: Host) -> None:
    host.others = status(302, {"Location": "/console"})
    host.paths["/console"] = page()


def gitlab(host: Host) -> None:
    host.others = status(302, {"Location": "/users/sign_in"})
    host.paths["/users/sign_in"] = page()


def nexus(host: Host) -> None:
    host.others = status(404, {"Content-Type": "text/html"}, "<html>Nexus")


def docker_registry(host: Host) -> None:
    host.others = status(404, API, "404 page not found")


VENDORS = [
    (harbor, "/dockerhub-proxy", "", "dockerhub-proxy/library/redis"),
    (harbor, "/v2/dockerhub-proxy", "", "dockerhub-proxy/library/redis"),
    (ecr, "/docker-hub", "", "docker-hub/library/redis"),
    (ecr, "/v2/docker-hub", "", "docker-hub/library/redis"),
    (gar, "/project/repo", "", "project/repo/library/redis"),
    (
        gitlab,
        "/group/dependency_proxy/containers",
        "",
        "group/dependency_proxy/containers/library/redis",
    ),
    (
        gitlab,
        "/Group/dependency_proxy/containers",
        "",
        "group/dependency_proxy/containers/library/redis",
    ),
    (docker_registry, "/org", "", "org/library/redis"),
    (docker_registry, "/mounted/here", "/mounted/here", "library/redis"),
    (docker_registry, "/mounted/here/v2/org", "/mounted/here", "org/library/redis"),
    (artifactory, "/artifactory/api/docker/hub", "/artifactory/api/docker/hub", "library/redis"),
    (artifactory, "/artifactory/api/docker/Hub", "/artifactory/api/docker/Hub", "library/redis"),
    (artifactory, "/artifactory/api/docker/hub/v2", "/artifactory/api/docker/hub", "library/redis"),
    (nexus, "/repository/hub", "/repository/hub", "library/redis"),
    (nexus, "/nexus/v2/hub", "/nexus", "hub/library/redis"),
]


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
@pytest.mark.parametrize(("vendor", "written", "path", "name"), VENDORS)
async def test_a_registry_is_found_wherever_the_path_means(
    hub: Hub,
    make_remote: MakeRemote,
    challenge: str,
    vendor: Callable[[Host], None],
    written: str,
    path: str,
    name: str,
) -> None:
    hub.challenge, hub.login = challenge, ("ann", "pass:wörd")
    vendor(Host(hub, path))
    digest = hub.add_image(name, "7", b"layer")
    layer = hub.add_blob(b"layer")
    remote = make_remote(hub.url + written, credentials=(LOGIN,))
    found = await remote.resolve(CONTEXT, REDIS, "7")
    assert str(found.digest) == digest
    await remote.manifest(CONTEXT, REDIS, found.digest)
    await remote.stat(CONTEXT, REDIS, Digest.parse(layer))
    assert (await remote.tags(CONTEXT, REDIS)).tags == ("7",)
    stream = await remote.blob(CONTEXT, REDIS, Digest.parse(layer))
    await stream.close()
    scopes = {one.query["scope"] for one in hub.seen("realm") if "scope" in one.query}
    assert scopes == ({f"repository:{name}:pull"} if challenge == "bearer" else set())
    await remote.ping()
    assert hub.seen("registry")[-1].path == f"{path}/v2/"


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
@pytest.mark.parametrize("path", ["", "/artifactory/api/docker/hub"])
@pytest.mark.parametrize("each", [False, True])
async def test_where_all_paths_ask_for_a_login_the_first_answer_decides(
    hub: Hub, make_remote: MakeRemote, challenge: str, path: str, each: bool
) -> None:
    """A host that looks at the login before it looks at the path: nobody can tell until then."""
    hub.challenge, hub.login = challenge, ("ann", "pass:wörd")
    host = Host(hub, path)
    host.others = walled(hub, each)
    prefix = "" if path else "artifactory/api/docker/hub/"
    for name in ("library/redis", "library/nginx"):
        hub.add_image(prefix + name, "7", b"layer")
    remote = make_remote(
        f"{hub.url}/artifactory/api/docker/hub",
        credentials=(LOGIN,),
        realm=hub.realm_url,
    )
    await remote.ping()
    with pytest.raises(ManifestUnknown):  # which decides nothing
        await remote.resolve(CONTEXT, REDIS, "8")
    assert await remote.resolve(CONTEXT, REDIS, "7")
    before = hub.count("registry")
    assert await remote.resolve(CONTEXT, Repository("docker.io", "library/nginx"), "7")
    with pytest.raises(ManifestUnknown):
        await remote.resolve(CONTEXT, REDIS, "9")
    asked = {one.path for one in hub.seen("registry")[before:]}
    assert {one.rpartition("/library/")[0] for one in asked} == {
        f"{path}/v2" + ("" if path else "/artifactory/api/docker/hub")
    }


async def test_referrers_and_their_fallback_tag_are_asked_for_with_the_prefix(
    hub: Hub, make_remote: MakeRemote
) -> None:
    digest = Digest.of(b"subject")
    hub.add_image("hub/library/redis", f"sha256-{digest.hex}", b"signature")
    remote = make_remote(hub.url + "/v2/hub")
    with pytest.raises(RegistryError):
        await remote.referrers(CONTEXT, REDIS, digest)
    asked = [one.path.removeprefix("/v2/hub/library/redis/") for one in hub.seen("registry")]
    assert set(asked) == {f"referrers/{digest}", f"manifests/sha256-{digest.hex}"}


async def test_pages_of_tags_are_asked_for_with_the_prefix(
    hub: Hub, make_remote: MakeRemote
) -> None:
    for tag in ("a", "b", "c"):
        hub.add_image("hub/library/redis", tag, b"layer")
    remote = make_remote(hub.url + "/v2/hub")
    first = await remote.tags(CONTEXT, REDIS, 2)
    assert (first.tags, first.last) == (("a", "b"), "b")
    assert (await remote.tags(CONTEXT, REDIS, 2, first.last)).tags == ("c",)


async def test_errors_name_the_repository_as_the_registry_does(
    hub: Hub, make_remote: MakeRemote
) -> None:
    remote = make_remote(hub.url + "/v2/hub")
    with pytest.raises(ManifestUnknown, match="have hub/library/redis/manifests/8"):
        await remote.resolve(CONTEXT, REDIS, "8")
    hub.closed.add(("", "hub/library/redis"))
    with pytest.raises(Denied, match="read hub/library/redis "):
        await remote.resolve(CONTEXT, REDIS, "7")


@pytest.mark.parametrize("path", ["", "/mounted"])
async def test_a_login_is_proven_where_the_registry_is(
    hub: Hub, make_remote: MakeRemote, path: str
) -> None:
    hub.challenge, hub.login = "basic", ("ann", "pass:wörd")
    Host(hub, path)
    hub.add_image("library/redis", "7", b"layer")
    await make_remote(hub.url + path, credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
    proofs = [one.path for one in hub.seen("registry") if "Authorization" in one.headers]
    assert proofs[0] == f"{path}/v2/"
    given = make_remote(hub.url + path, credentials=(GivenToken(LOGIN.secret),))
    with pytest.raises(Denied):
        await given.resolve(CONTEXT, REDIS, "7")
    shown = [
        one for one in hub.seen("registry") if "Bearer" in one.headers.get("Authorization", "")
    ]
    assert shown[-1].path == f"{path}/v2/"


async def test_nobody_s_login_is_shown_to_find_a_registry(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.challenge, hub.login = "basic", ("ann", "pass:wörd")
    Host(hub).others = challenging(hub)
    hub.add_image("hub/library/redis", "7", b"layer")
    await make_remote(hub.url + "/hub", credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
    asked = hub.seen("registry")[:3]
    assert sorted(one.path for one in asked)[1:] == [
        "/registry-mirror-asks-for-nothing/hub/v2/",
        "/v2/",
    ]
    assert all("Authorization" not in one.headers for one in asked)
    assert hub.count("registry", "GET", "/library/") == 0  # HEADs alone


async def test_it_is_found_once_for_all_who_ask(hub: Hub, make_remote: MakeRemote) -> None:
    harbor(Host(hub))
    names = [f"library/app{number}" for number in range(20)]
    for name in names:
        hub.add_image(f"hub/{name}", "7", b"layer")
    remote = make_remote(hub.url + "/hub")
    for _ in range(2):
        await asyncio.gather(
            *(remote.resolve(CONTEXT, Repository("docker.io", name), "7") for name in names)
        )
    roots = [one.path for one in hub.seen("registry") if one.path.endswith("/v2/")]
    assert sorted(roots) == ["/hub/v2/", "/v2/"]


@pytest.mark.parametrize(
    "trouble", [status(503), status(429), status(502, {"Content-Type": "text/html"}), cut()]
)
async def test_nothing_is_concluded_from_trouble(
    hub: Hub, make_remote: MakeRemote, trouble: Fault
) -> None:
    host = Host(hub, "/mounted")
    hub.add_image("library/redis", "7", b"layer")
    # Another registry is at the root, and the one that is meant is not up yet.
    host.paths["/v2/"] = challenging(hub)
    remote = make_remote(hub.url + "/mounted")

    async def not_yet(request: web.Request) -> web.StreamResponse | None:
        return await trouble(request) if request.path == "/mounted/v2/" else None

    hub.fail("registry", not_yet, times=30)
    with pytest.raises(Unavailable):
        await remote.resolve(CONTEXT, REDIS, "7")
    with pytest.raises(Unavailable):
        await remote.ping()
    assert not [one for one in hub.seen("registry") if "manifests" in one.path]
    hub.mend()
    assert await remote.resolve(CONTEXT, REDIS, "7")


async def test_what_is_found_in_spite_of_trouble_is_found_again_until_it_gives_something(
    hub: Hub, make_remote: MakeRemote, time: HandClock
) -> None:
    """A registry whose host's other paths have trouble: Harbor, its portal being down."""
    host = Host(hub)
    host.others = status(502)
    hub.add_image("hub/library/redis", "7", b"layer")
    remote = make_remote(hub.url + "/hub")
    for times in (1, 2):
        for _ in range(3):
            with pytest.raises(ManifestUnknown):
                await remote.resolve(CONTEXT, REDIS, "8")
        assert hub.count("registry", path="/hub/v2/") == 2 * times
        time.now += 6
    await remote.resolve(CONTEXT, REDIS, "7")
    time.now += 6
    await remote.resolve(CONTEXT, REDIS, "7")  # once it gave something, it is sure
    assert hub.count("registry", path="/hub/v2/") == 6


async def test_where_no_registry_is_the_error_says_what_to_write(
    hub: Hub, make_remote: MakeRemote, time: HandClock
) -> None:
    host = Host(hub, "/really/here")
    host.others = page()
    hub.add_image("library/redis", "7", b"layer")
    remote = make_remote(hub.url + "/here", name="corp/here")
    with pytest.raises(NoRegistry) as caught:
        await remote.resolve(CONTEXT, REDIS, "7")
    assert caught.value.message == (
        f"corp/here: no registry is there: {hub.url}/here/v2/ answered a web page, and "
        f"{hub.url}/v2/ a web page. Write url: with /v2/ where it stands, as in "
        f"{hub.url}/v2/here, or prefix:"
    )
    with pytest.raises(NoRegistry):
        await remote.ping()
    assert hub.count("registry") == 2  # believed, for a moment
    time.now += 6
    hub.path = "/here"  # by now
    assert await remote.resolve(CONTEXT, REDIS, "7")


async def test_a_silent_host_is_not_waited_for_without_an_end(
    hub: Hub, make_remote: MakeRemote
) -> None:
    end = asyncio.Event()
    hub.fail("registry", hang(end), times=100)
    remote = make_remote(hub.url + "/hub")
    with pytest.raises(Unreached):
        await remote.resolve(CONTEXT, REDIS, "7")
    end.set()


async def test_who_leaves_does_not_end_the_find_of_others(
    hub: Hub, make_remote: MakeRemote
) -> None:
    harbor(Host(hub))
    hub.add_image("hub/library/redis", "7", b"layer")
    go = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse | None:
        await go.wait()
        return None

    hub.fail("registry", wait, times=2)
    remote = make_remote(hub.url + "/hub")
    asks = [asyncio.create_task(remote.resolve(CONTEXT, REDIS, "7")) for _ in range(2)]
    await eventually(lambda: hub.count("registry") == 2)
    asks[0].cancel()
    go.set()
    assert (await asks[1]).size
    assert hub.count("registry", path="/hub/v2/") == 1


async def test_an_endpoint_that_is_closed_while_it_is_looked_for_leaves_nothing(
    hub: Hub, make_remote: MakeRemote
) -> None:
    end = asyncio.Event()
    hub.fail("registry", hang(end), times=100)
    remote = make_remote(hub.url + "/hub")
    ask = asyncio.create_task(remote.resolve(CONTEXT, REDIS, "7"))
    await eventually(lambda: hub.count("registry") == 2)
    await remote.close()
    with pytest.raises(asyncio.CancelledError):
        await ask
    end.set()


async def test_where_it_was_found_is_told(hub: Hub, make_remote: MakeRemote) -> None:
    harbor(Host(hub))
    hub.add_image("hub/library/redis", "7", b"layer")
    with capture_logs() as logs:
        await make_remote(hub.url + "/hub").resolve(CONTEXT, REDIS, "7")
    assert [one["at"] for one in logs if one["event"] == "registry_found"] == ["/v2/hub"]


JSON, HTML = {"Content-Type": "application/json"}, {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("code", "headers", "wanted", "is_registry"),
    [
        (200, JSON, "", True),
        (200, {}, "", True),
        (200, {**HTML, **API}, "", True),
        (200, HTML, "", False),
        (401, HTML, 'Bearer realm="https://h/token",service="h"', True),
        (401, HTML, 'BASIC realm="h"', True),
        (401, API, "", True),
        (401, HTML, "", False),
        (401, JSON, "Negotiate", False),
        (403, JSON, "", True),
        (403, API, "", True),
        (403, HTML, "", False),
        (404, {**JSON, **API}, "", False),
        (404, HTML, "", False),
        (302, {"Location": "/ui/"}, "", False),
        (503, API, "", False),
        (429, JSON, "", False),
    ],
)
def test_which_answers_are_a_registry_s(
    code: int, headers: dict[str, str], wanted: str, is_registry: bool
) -> None:
    assert heard(code, headers, parse_challenges([wanted])).is_registry is is_registry


BEFORE, BEHIND = Layout("/hub"), Layout(prefix="hub")
REGISTRY, WALL = Heard(True, (401, "a"), "401"), Heard(True, (401, "b"), "401")
NOTHING = Heard(False, (404,), "404")
TROUBLE = Heard(False, (502,), "502", Unavailable("502"))
OTHER_TROUBLE = Heard(False, (503,), "503", Unavailable("503"))


@pytest.mark.parametrize(
    ("before", "behind", "nowhere", "found"),
    [
        (REGISTRY, NOTHING, None, Found(BEFORE)),
        (NOTHING, REGISTRY, None, Found(BEHIND)),
        (NOTHING, NOTHING, None, None),
        (NOTHING, TROUBLE, None, None),
        (TROUBLE, NOTHING, NOTHING, None),
        (TROUBLE, TROUBLE, TROUBLE, None),
        # Both, and the third question decides.
        (REGISTRY, WALL, None, None),
        (REGISTRY, WALL, NOTHING, Found(BEFORE, BEHIND)),
        (REGISTRY, REGISTRY, NOTHING, Found(BEFORE, BEHIND)),
        (REGISTRY, WALL, WALL, Found(BEFORE, BEHIND)),
        (WALL, REGISTRY, WALL, Found(BEHIND, BEFORE)),
        (WALL, WALL, WALL, Found(BEHIND, BEFORE)),
        (REGISTRY, REGISTRY, TROUBLE, Found(BEFORE, BEHIND)),
        # One, and trouble at the other.
        (REGISTRY, TROUBLE, NOTHING, Found(BEFORE)),
        (REGISTRY, TROUBLE, TROUBLE, Found(BEFORE, for_good=False)),
        (WALL, TROUBLE, WALL, None),
        (TROUBLE, REGISTRY, NOTHING, None),
        (TROUBLE, REGISTRY, OTHER_TROUBLE, None),
        (TROUBLE, REGISTRY, TROUBLE, Found(BEHIND, for_good=False)),
    ],
)
def test_what_was_answered_decides(
    before: Heard, behind: Heard, nowhere: Heard | None, found: Found | None
) -> None:
    assert judged(before, behind, nowhere, (BEFORE, BEHIND)) == found


def test_what_is_no_registry_is_never_found() -> None:
    every = (REGISTRY, WALL, NOTHING, TROUBLE, OTHER_TROUBLE)
    for before, behind, nowhere in itertools.product(every, every, (*every, None)):
        found = judged(before, behind, nowhere, (BEFORE, BEHIND))
        if found is not None:
            assert (before if found.layout is BEFORE else behind).is_registry
