"""Whose password goes where: nobody's further than it must."""

from __future__ import annotations

import base64

from .clients import LOGIN, PASSWORD, Flavour
from .conftest import Shelf, have
from .hub import Hub, written_below
from .images import HERE
from .machines import Hosts
from .mirror import Mirror
from .programs import Programs
from .tap import Tap

MIRROR_ACCOUNT, MIRROR_PASSWORD = "mirror", "correct-horse"  # of the hub's accounts


def basic(account: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{account}:{password}".encode()).decode()


def test_a_user_logged_in_to_the_hub_pulls_and_no_password_reaches_the_mirror(
    flavour: Flavour, hub: Hub, mirror: Mirror, programs: Programs, shelf: Shelf
) -> None:
    with Tap(mirror) as tap:
        client = have(flavour).start(programs, tap.url)
        client.log_in()
        client.pull(shelf.official.by_tag)
        client.pull(shelf.user.by_digest)
        heard = tap.heard
    assert f"/v2/{shelf.official.repository}/manifests/".encode() in heard
    assert b"authorization" not in heard.lower()
    for secret in (LOGIN, PASSWORD):
        assert secret.encode() not in heard
        assert secret not in mirror.words()
    assert mirror.metric("credentials_dropped_total") == 0


def test_f60_what_a_client_sends_goes_nowhere(hub: Hub, mirror: Mirror, shelf: Shelf) -> None:
    digest = shelf.official.image.config_of(HERE)
    repository = f"/v2/{shelf.official.repository}"
    for secret in (basic("bob", PASSWORD), "Bearer stolen-token"):
        for path in ("/v2/", f"{repository}/manifests/latest", f"{repository}/blobs/{digest}"):
            assert mirror.get(path, Authorization=secret, Cookie="session=stolen-cookie")[0] == 200
    assert mirror.metric("credentials_dropped_total") == 6
    sent = "".join(value for each in hub.requests() for _, value in each.headers)
    seen = written_below(mirror.storage) + mirror.words().encode() + sent.encode()
    for secret in (LOGIN, PASSWORD, "stolen-token", "stolen-cookie"):
        assert secret.encode() not in seen


def test_the_mirrors_login_goes_to_the_realm_and_its_token_not_to_the_blob_host(
    docker_hub: Hub, docker_hub_hosts: Hosts, programs: Programs, shelf: Shelf
) -> None:
    """With Docker Hub as the defaults have it: by name, over TLS, its realm on another host."""
    secret = programs.folder / "password"
    secret.write_text(f"{MIRROR_PASSWORD}\n")
    login = {"username": MIRROR_ACCOUNT, "password_file": str(secret)}
    mirror = Mirror(programs, {"credentials": login}, docker_hub_hosts).start()
    repository = f"/v2/{shelf.private.repository}"
    digest = shelf.private.image.config_of(HERE)
    assert mirror.get(f"{repository}/manifests/latest")[0] == 200
    assert mirror.get(f"{repository}/blobs/{digest}") == (200, shelf.private.image.blobs[digest])

    authorizations: dict[str, set[str]] = {role: set() for role in ("registry", "realm", "blobs")}
    for each in docker_hub.requests():
        authorizations[each.role].add(each.header("Authorization").partition(" ")[0])
    assert authorizations["blobs"] == {""}
    assert authorizations["realm"] == {"Basic"}
    assert "Basic" not in authorizations["registry"]
    for word in (MIRROR_PASSWORD, basic(MIRROR_ACCOUNT, MIRROR_PASSWORD).split()[1]):
        assert word not in mirror.words()
        assert word.encode() not in written_below(mirror.storage)


def test_the_blob_host_sees_no_token_of_an_anonymous_mirror(
    hub: Hub, mirror: Mirror, shelf: Shelf
) -> None:
    digest = shelf.official.image.config_of(HERE)
    assert mirror.get(f"/v2/{shelf.official.repository}/blobs/{digest}")[0] == 200
    asked = [each for each in hub.requests() if each.role == "blobs"]
    assert [each.header("Authorization") for each in asked] == [""]
    assert [each.header("Cookie") for each in asked] == [""]
