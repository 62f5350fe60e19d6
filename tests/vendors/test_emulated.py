"""The emulated registries refuse what real ones do: else the other tests would prove nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
from yarl import URL

from ..fakes.hub import basic
from ..fakes.shelf import OCI_INDEX, OCI_MANIFEST, Shelf
from . import cloud, own
from .emulated import Emulated
from .profile import Profile

LAYER = b"layer" * 100
Answer = tuple[int, dict[str, str], bytes]


class Asker:
    """A client that follows nothing, and shows what it is told to show."""

    def __init__(self, registry: Emulated, session: aiohttp.ClientSession) -> None:
        self.registry = registry
        self._session = session

    async def __call__(self, path: str, method: str = "GET", **headers: str) -> Answer:
        url = URL(path if "://" in path else self.registry.url + path, encoded=True)
        asked = self._session.request(method, url, headers=headers, allow_redirects=False)
        async with asked as answer:
            return answer.status, dict(answer.headers), await answer.read()

    async def token(self, path: str, field: str = "token", **headers: str) -> str:
        status, _, body = await self(path, **headers)
        assert status == 200, body
        return str(json.loads(body)[field])

    async def blob(self, path: str, method: str = "GET", **headers: str) -> str:
        """Where the bytes are."""
        _, answered, _ = await self(path, method, **headers)
        return answered["Location"]


@asynccontextmanager
async def asking(profile: Profile) -> AsyncIterator[tuple[Asker, str]]:
    """A client of that registry, and the digest of a layer there."""
    shelf = Shelf()
    shelf.add_image("library/demo", "latest", LAYER)
    shelf.add_image("private/secret", "latest", LAYER)
    shelf.add_manifest("library/demo", "index", b'{"manifests": []}', OCI_INDEX)
    digest = shelf.add_blob(LAYER)
    async with Emulated(profile, shelf) as registry, aiohttp.ClientSession() as session:
        yield Asker(registry, session), digest


async def test_a_token_is_good_for_its_own_repository_and_action() -> None:
    async with asking(cloud.ACR) as (ask, _):
        service = ask.registry.url.partition("://")[2]
        realm = f"/oauth2/token?service={service}&scope=repository:library/demo"
        bearer = "Bearer " + await ask.token(f"{realm}:pull", "access_token")
        path = "/v2/library/demo/manifests/latest"
        assert (await ask(path, Authorization=bearer))[0] == 200
        status, headers, _ = await ask("/v2/library/demo/tags/list", Authorization=bearer)
        assert status == 401
        assert 'scope="repository:library/demo:metadata_read"' in headers["WWW-Authenticate"]
        assert (await ask("/v2/private/secret/manifests/latest", Authorization=bearer))[0] == 401
        ask.registry.expire_tokens()
        assert (await ask(path, Authorization=bearer))[0] == 401


async def test_a_realm_wants_its_service_and_the_right_login() -> None:
    async with asking(own.HARBOR) as (ask, _):
        realm = "/service/token?scope=repository:private/secret:pull"
        assert (await ask(realm))[0] == 400
        assert (await ask(f"{realm}&service=other"))[0] == 400
        assert (await ask(f"{realm}&service=harbor-registry"))[0] == 200
        wrong = basic("robot$mirror", "wrong")
        assert (await ask(f"{realm}&service=harbor-registry", Authorization=wrong))[0] == 401
        strange = await ask.token(f"{realm}&service=harbor-registry")
        path = "/v2/private/secret/manifests/latest"
        assert (await ask(path, Authorization=f"Bearer {strange}"))[0] == 401
        login = own.HARBOR.login
        assert login is not None
        right = basic(login.username, login.secret)
        known = await ask.token(f"{realm}&service=harbor-registry", Authorization=right)
        assert (await ask(path, Authorization=f"Bearer {known}"))[0] == 200
        assert (await ask(f"{realm}&service=harbor-registry", Accept="image/png"))[0] == 406


async def test_an_identity_token_is_taken_by_post_alone() -> None:
    async with asking(cloud.ACR_IDENTITY) as (ask, _):
        login = cloud.ACR_IDENTITY.login
        assert login is not None
        service = ask.registry.url.partition("://")[2]
        realm = f"/oauth2/token?service={service}&scope=repository:private/secret:pull"
        shown = basic(login.username, login.secret)
        assert (await ask(realm, Authorization=shown))[0] == 401
        assert (await ask(realm, "POST"))[0] == 401


async def test_the_host_of_the_bytes_refuses_logins_and_other_methods() -> None:
    async with asking(replace(cloud.MCR, storage=cloud.ECR.storage)) as (ask, digest):
        place = await ask.blob(f"/v2/library/demo/blobs/{digest}")
        assert (await ask(place, Authorization="Bearer x"))[0] == 400
        assert (await ask(place, "HEAD"))[0] == 403
        assert (await ask(place.replace("X-Signature=", "X-Signature=0")))[0] == 403
        status, headers, body = await ask(place, Range="bytes=5-9")
        assert (status, headers["Content-Range"], body) == (206, "bytes 5-9/500", b"layer")


async def test_ecr_refuses_ended_passwords_by_403_and_pages_that_are_too_large() -> None:
    async with asking(cloud.ECR) as (ask, _):
        login = cloud.ECR.login
        assert login is not None
        right = basic(login.username, login.secret)
        path = "/v2/library/demo/tags/list"
        status, headers, _ = await ask(path)
        assert (status, headers["WWW-Authenticate"]) == (
            401,
            f'Basic realm="{ask.registry.url}/",service="ecr.amazonaws.com"',
        )
        assert (await ask(path, Authorization=right))[0] == 200
        assert (await ask(f"{path}?n=1001", Authorization=right))[0] == 405
        assert (await ask(f"{path}?page=1", Authorization=right))[0] == 400
        assert (await ask(path, Authorization=basic("AWS", "ended")))[0] == 403


async def test_ghcr_shows_an_index_to_those_alone_who_accept_one() -> None:
    async with asking(cloud.GHCR) as (ask, _):
        realm = "/token?service=ghcr.io&scope=repository:library/demo:pull"
        bearer = f"Bearer {await ask.token(realm)}"
        path = "/v2/library/demo/manifests/index"
        assert (await ask(path, Authorization=bearer, Accept=OCI_MANIFEST))[0] == 404
        assert (await ask(path, Authorization=bearer, Accept=OCI_INDEX))[0] == 200
        assert (await ask(realm.replace("library/demo", "private/secret")))[0] == 401


async def test_what_is_hidden_is_not_there_for_strangers() -> None:
    async with asking(own.ARTIFACTORY_HOST) as (ask, _):
        status, headers, _ = await ask("/v2/private/secret/manifests/latest")
        assert status == 404
        assert "WWW-Authenticate" not in headers
        assert (await ask("/v2/library/demo/manifests/latest"))[0] == 200
