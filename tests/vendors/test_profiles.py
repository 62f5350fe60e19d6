"""Each registry's ways, through a whole mirror: what a client of the registry gets, one of the
mirror gets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest
from aiohttp import web

from mirror import app as assembly
from mirror import config

from ..e2e.programs import loopback_address
from ..fakes.hub import cut
from ..fakes.shelf import OCI_INDEX, OCI_MANIFEST, Shelf
from ..waiting import eventually
from . import PROFILES, cloud, short_name
from .emulated import Emulated
from .profile import Login, Profile, Referrers

LAYER = bytes(range(256)) * 1200  # 300 kB
SMALL = b"a thin layer" * 100
PUBLIC, PRIVATE = "library/demo", "private/secret"
TAGS = [f"v{number}" for number in range(130)]
ACCEPT = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}"}


def shelf_of(profile: Profile) -> Shelf:
    """An image for everybody, with many tags and a signature, and one that is not."""
    shelf = Shelf()
    digest = shelf.add_image(PUBLIC, "latest", LAYER, SMALL)
    shelf.tags[PUBLIC].update(dict.fromkeys(reversed(TAGS), digest))
    shelf.add_image(PRIVATE, "latest", b"secret" * 500)
    data, media_type = shelf.manifests[digest]
    described = {"mediaType": media_type, "digest": digest, "size": len(data)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described]}
    shelf.add_manifest(PUBLIC, "index", json.dumps(index).encode(), OCI_INDEX)
    signature = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": shelf.add_blob(b"{}"),
            "size": 2,
        },
        "layers": [],
        "subject": described,
    }
    data = json.dumps(signature).encode()
    signed = shelf.add_manifest(PUBLIC, None, data)
    if profile.referrers in (Referrers.TAG, Referrers.PAGE):
        fallback = {"mediaType": OCI_MANIFEST, "digest": signed, "size": len(data)}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [fallback]}
        tag = digest.replace(":", "-")
        shelf.add_manifest(PUBLIC, tag, json.dumps(index).encode(), OCI_INDEX)
    return shelf


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class House:
    """A mirror of one registry, and a client of it."""

    registry: Emulated
    shelf: Shelf
    client: aiohttp.ClientSession
    secret: Path  # the file of the login

    async def ask(self, path: str, method: str = "GET") -> Answer:
        async with self.client.request(method, path, headers=ACCEPT) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.read())

    async def pull(self, repository: str) -> None:
        """An image by its tag, as a client does; each byte is compared."""
        answer = await self.ask(f"/v2/{repository}/manifests/latest")
        digest = self.shelf.tags[repository]["latest"]
        assert (answer.status, answer.body) == (200, self.shelf.manifests[digest][0]), answer.body
        assert answer.headers["Docker-Content-Digest"] == digest
        manifest = json.loads(answer.body)
        for blob in (manifest["config"], *manifest["layers"]):
            got = await self.ask(f"/v2/{repository}/blobs/{blob['digest']}")
            assert (got.status, got.body) == (200, self.shelf.blobs[blob["digest"]]), got.body


@asynccontextmanager
async def house_of(profile: Profile, folder: Path, login: Login | None) -> AsyncIterator[House]:
    shelf = shelf_of(profile)
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(Emulated(profile, shelf))
        address = loopback_address()
        keys = {
            "listen": f"{address}:5000",
            "admin": f"{address}:5001",
            "storage": {"path": str(folder / "store")},
            "default_registry": profile.name,
            "registries": {profile.name: registry.configured(folder, login)},
        }
        file = folder / "mirror.yaml"
        file.write_text(json.dumps(keys))  # YAML contains JSON
        await stack.enter_async_context(assembly.running(config.load(file)))
        client = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://{address}:5000", auto_decompress=False)
        )
        yield House(registry, shelf, client, folder / f"{profile.name}.secret")


def those(condition: Callable[[Profile], object]) -> pytest.MarkDecorator:
    chosen = [profile for profile in PROFILES if condition(profile)]
    return pytest.mark.parametrize("profile", chosen, ids=short_name)


def visitor(profile: Profile) -> Login | None:
    """As whom to read what is public: without a login, where that is possible."""
    return None if profile.has_public else profile.login


@those(lambda profile: profile.has_public)
async def test_what_is_public_is_pulled_without_a_login(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, None) as house:
        await house.pull(PUBLIC)


@those(lambda profile: profile.login)
async def test_what_is_private_is_pulled_with_the_login(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, profile.login) as house:
        await house.pull(PRIVATE)
        await house.pull(PUBLIC)


@those(lambda profile: profile.has_public)
async def test_what_is_private_is_refused_without_a_login(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, None) as house:
        answer = await house.ask(f"/v2/{PRIVATE}/manifests/latest")
        assert answer.status in (403, 404)
        assert b"secret" not in answer.body.replace(PRIVATE.encode(), b"")


@those(lambda profile: profile.tags.is_open)
async def test_all_tags_are_listed_once(profile: Profile, tmp_path: Path) -> None:
    """As skopeo and oras list them: page after page, by the answer's own link."""
    async with house_of(profile, tmp_path, visitor(profile)) as house:
        path, found = f"/v2/{PUBLIC}/tags/list", []
        for _ in range(20):
            answer = await house.ask(path)
            assert answer.status == 200, answer.body
            found += json.loads(answer.body)["tags"]
            link = re.match(r'<([^>]+)>; *rel="next"', answer.headers.get("Link", ""))
            if link is None:
                break
            path = urljoin(path, link[1])
        assert sorted(found) == sorted(house.shelf.tags[PUBLIC])


@those(lambda profile: True)
async def test_a_head_says_what_a_get_does(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, visitor(profile)) as house:
        for tag in ("latest", "index"):
            path = f"/v2/{PUBLIC}/manifests/{tag}"
            head, get = await house.ask(path, "HEAD"), await house.ask(path)
            assert (head.status, get.status) == (200, 200)
            digest = house.shelf.tags[PUBLIC][tag]
            for answer in (head, get):
                assert answer.headers["Docker-Content-Digest"] == digest
                assert answer.headers["Content-Type"] == house.shelf.manifests[digest][1]
                assert int(answer.headers["Content-Length"]) == len(get.body)


@those(lambda profile: True)
async def test_a_head_of_a_blob_that_is_not_cached_tells_its_size(
    profile: Profile, tmp_path: Path
) -> None:
    async with house_of(profile, tmp_path, visitor(profile)) as house:
        digest = house.shelf.add_blob(LAYER[1:])
        answer = await house.ask(f"/v2/{PUBLIC}/blobs/{digest}", "HEAD")
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(LAYER) - 1))


async def redirecting(request: web.Request) -> None:
    """No fault: the registry answers as ever."""


@those(lambda profile: True)
async def test_a_blob_that_breaks_off_goes_on_by_range(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, visitor(profile)) as house:
        digest = house.shelf.add_blob(LAYER[::-1])
        source = house.registry.behind or house.registry
        how = source.profile.storage
        await house.ask(f"/v2/{PUBLIC}/manifests/latest")  # from now on it knows what to show
        server = "blobs" if how.status and not how.path else "registry"
        if how.path:
            source.fail(server, redirecting)  # then comes the question for the bytes
        source.fail(server, cut(LAYER[::-1][:100_000], len(LAYER)))
        answer = await house.ask(f"/v2/{PUBLIC}/blobs/{digest}")
        assert answer.body == LAYER[::-1]
        ranges = [each.headers.get("Range") for each in source.seen(server, "GET", digest)]
        assert "bytes=100000-" in ranges


@those(lambda profile: profile.referrers is not Referrers.NOWHERE)
async def test_signatures_are_found(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, visitor(profile)) as house:
        digest = house.shelf.tags[PUBLIC]["latest"]
        answer = await house.ask(f"/v2/{PUBLIC}/referrers/{digest}")
        assert answer.status == 200, answer.body
        (found,) = json.loads(answer.body)["manifests"]
        got = await house.ask(f"/v2/{PUBLIC}/manifests/{found['digest']}")
        assert (got.status, got.body) == (200, house.shelf.manifests[found["digest"]][0])


@pytest.mark.parametrize("status", [200, 401, 403, 429, 503])
async def test_a_page_in_place_of_the_list_hides_no_signature(status: int, tmp_path: Path) -> None:
    async with house_of(cloud.GHCR, tmp_path, None) as house:
        house.registry.page_status = status
        answer = await house.ask(f"/v2/{PUBLIC}/referrers/{house.shelf.tags[PUBLIC]['latest']}")
        assert answer.status == 200, answer.body
        assert len(json.loads(answer.body)["manifests"]) == 1


@those(lambda profile: profile.referrers is Referrers.NOWHERE)
async def test_an_index_is_not_taken_for_the_list_of_its_own_referrers(
    profile: Profile, tmp_path: Path
) -> None:
    async with house_of(profile, tmp_path, visitor(profile)) as house:
        answer = await house.ask(f"/v2/{PUBLIC}/referrers/{house.shelf.tags[PUBLIC]['index']}")
        assert answer.status == 404 or json.loads(answer.body)["manifests"] == []


@those(lambda profile: profile.login)
async def test_a_wrong_login_is_said_and_hides_nothing_that_is_public(
    profile: Profile, tmp_path: Path
) -> None:
    assert profile.login is not None
    wrong = replace(profile.login, secret="wrong" * 10)
    async with house_of(profile, tmp_path, wrong) as house:
        answer = await house.ask(f"/v2/{PRIVATE}/manifests/latest")
        assert answer.status == (404 if profile.stranger == 404 else 403)
        assert b"refuses" in answer.body
        if profile.has_public:
            await house.pull(PUBLIC)


@pytest.mark.parametrize(
    "profile", [cloud.ECR, cloud.DOCKER_HUB, cloud.ACR_IDENTITY], ids=short_name
)
async def test_a_login_that_is_corrected_counts_without_a_restart(
    profile: Profile, tmp_path: Path
) -> None:
    assert profile.login is not None
    wrong = replace(profile.login, secret="wrong" * 10)
    async with house_of(profile, tmp_path, wrong) as house:
        path = f"/v2/{PRIVATE}/manifests/latest"
        assert (await house.ask(path)).status == 403
        house.secret.write_text(profile.login.secret)

        async def is_let_in() -> bool:
            return (await house.ask(path)).status == 200

        await eventually(is_let_in)
        await house.pull(PRIVATE)


@those(lambda profile: profile.realm or profile.front_of)
async def test_tokens_that_end_before_their_time_are_renewed(
    profile: Profile, tmp_path: Path
) -> None:
    async with house_of(profile, tmp_path, visitor(profile)) as house:
        assert (await house.ask(f"/v2/{PUBLIC}/manifests/latest")).status == 200
        house.registry.expire_tokens()
        await house.pull(PUBLIC)
        if profile.tags.is_open:
            assert (await house.ask(f"/v2/{PUBLIC}/tags/list")).status == 200


@those(lambda profile: profile.login and profile.realm is None)
async def test_a_password_that_ends_is_read_anew(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, profile.login) as house:
        await house.pull(PUBLIC)
        changed = Login(house.registry.login.username, "B" * 1900)  # type: ignore[union-attr]
        house.registry.login = changed
        house.secret.write_text(changed.secret)
        await house.pull(PRIVATE)


@those(lambda profile: profile.login and (profile.realm or profile.refused))
async def test_the_hosts_of_bytes_see_no_login(profile: Profile, tmp_path: Path) -> None:
    async with house_of(profile, tmp_path, profile.login) as house:
        await house.pull(PRIVATE)
        for each in house.registry.seen("blobs"):
            assert "Authorization" not in each.headers
