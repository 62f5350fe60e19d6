"""The stand-in refuses what Docker Hub refuses: else the other tests would prove nothing."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from email.message import Message
from typing import Any

from .conftest import Shelf
from .hub import Hub
from .images import HERE


class KeepRedirects(urllib.request.HTTPRedirectHandler):
    """Shows a redirect instead of following it."""

    def redirect_request(self, *_: Any) -> None:
        return None


def get(url: str, **headers: str) -> tuple[int, Message, bytes]:
    opener = urllib.request.build_opener(KeepRedirects)
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def token(hub: Hub, repository: str, **headers: str) -> str:
    _, _, body = get(f"{hub.realm}/token?scope=repository:{repository}:pull", **headers)
    return str(json.loads(body)["token"])


def test_a_manifest_wants_a_token_of_its_own_repository(hub: Hub, shelf: Shelf) -> None:
    url = f"{hub.url}/v2/{shelf.official.repository}/manifests/latest"
    status, headers, _ = get(url)
    assert status == 401
    assert headers["WWW-Authenticate"] == (
        f'Bearer realm="{hub.realm}/token",service="registry.docker.io",'
        f'scope="repository:{shelf.official.repository}:pull"'
    )
    assert get(url, Authorization=f"Bearer {token(hub, 'bob/app')}")[0] == 401
    accept = shelf.official.image.media_types["index"]
    good = f"Bearer {token(hub, shelf.official.repository)}"
    status, headers, body = get(url, Authorization=good, Accept=accept)
    assert (status, body) == (200, shelf.official.image.manifests[shelf.official.image.digest])
    assert headers["ratelimit-limit"] == "5000;w=21600"


def test_a_private_repository_wants_a_login(hub: Hub, shelf: Shelf) -> None:
    url = f"{hub.url}/v2/{shelf.private.repository}/tags/list"
    anonymous = token(hub, shelf.private.repository)
    assert get(url, Authorization=f"Bearer {anonymous}")[0] == 401
    login = "Basic Ym9iOmh1bnRlcjI="
    known = token(hub, shelf.private.repository, Authorization=login)
    assert get(url, Authorization=f"Bearer {known}")[0] == 200


def test_a_blob_is_elsewhere_and_wants_no_token_there(hub: Hub, shelf: Shelf) -> None:
    digest = shelf.official.image.config_of(HERE)
    bearer = f"Bearer {token(hub, shelf.official.repository)}"
    url = f"{hub.url}/v2/{shelf.official.repository}/blobs/{digest}"
    status, headers, _ = get(url, Authorization=bearer)
    assert status == 307
    place = headers["Location"]
    assert get(place)[2] == shelf.official.image.blobs[digest]
    assert get(place, Range="bytes=1-3")[2] == shelf.official.image.blobs[digest][1:4]
    assert get(place, Authorization=bearer)[0] == 400
    assert get(place[:-1])[0] == 403
    assert hub.downloads()[digest] == 4
