"""Ways to a registry as companies have them: squid and tinyproxy, named by the environment or by a
key, with a login or without; TLS that wants a client's certificate. Pulled by real clients."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from .certificates import Certificate, issue
from .clients import FLAVOURS, Flavour
from .conftest import Shelf, have
from .hub import Hub, serve_registry
from .images import HERE
from .machines import Hosts, no_hub
from .mirror import Mirror, endpoint
from .nginx import serve_tls
from .programs import Programs, loopback_address, needs, wait_until
from .ways import serve_proxy, serve_tinyproxy, with_login

CLIENTS = ("docker", "containerd", "skopeo")
some_clients = pytest.mark.parametrize("flavour", [FLAVOURS[name] for name in CLIENTS], ids=CLIENTS)


@dataclass(frozen=True)
class Inside(Hosts):
    """A network without Docker Hub's names, whose way out is a proxy."""

    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.variables}


def docker_hub_keys(certificate: Certificate, **keys: Any) -> dict[str, Any]:
    """Docker Hub with a certificate by a company's authority. The host of its blobs has no name
    inside."""
    return endpoint(
        "https://registry-1.docker.io",
        ca_file=str(certificate.authority),
        allow_private=["*.cloudflare.docker.com"],
        **keys,
    )


def pull(flavour: Flavour, programs: Programs, mirror: Mirror, shelf: Shelf) -> None:
    client = have(flavour).start(programs, mirror.url)
    client.pull(shelf.official.by_tag)
    client.pull(shelf.user.by_digest)


def error_of(answer: tuple[int, bytes]) -> str:
    [error] = json.loads(answer[1])["errors"]
    return str(error["message"])


# Docker Hub by the proxy of the environment


@some_clients
@pytest.mark.parametrize("program", ["squid", "tinyproxy"])
def test_docker_hub_is_reached_by_the_environments_proxy(
    program: str,
    flavour: Flavour,
    docker_hub: Hub,
    docker_hub_hosts: Hosts,
    certificate: Certificate,
    programs: Programs,
    shelf: Shelf,
) -> None:
    needs(program)
    known = docker_hub_hosts.write(programs.folder / "proxy-hosts")
    if program == "squid":
        proxy, _ = serve_proxy(programs, hosts=known)
    else:
        proxy = serve_tinyproxy(programs, hosts=known)
    inside = Inside(no_hub().hub, variables={"HTTPS_PROXY": proxy, "no_proxy": ".corp.local"})
    mirror = Mirror(programs, docker_hub_keys(certificate), hosts=inside).start()
    pull(flavour, programs, mirror, shelf)
    roles = {one.role for one in docker_hub.requests()}
    assert roles == {"registry", "realm", "blobs"}
    for one in docker_hub.requests():
        assert not one.header("Proxy-Authorization")
    assert docker_hub.downloads().keys() >= shelf.official.image.blobs_of(HERE)


def test_a_blobs_host_that_has_no_name_here_is_refused_with_what_to_write(
    docker_hub: Hub,
    docker_hub_hosts: Hosts,
    certificate: Certificate,
    programs: Programs,
    shelf: Shelf,
) -> None:
    needs("squid")
    known = docker_hub_hosts.write(programs.folder / "proxy-hosts")
    proxy, _ = serve_proxy(programs, hosts=known)
    keys = docker_hub_keys(certificate) | {"allow_private": []}
    inside = Inside(no_hub().hub, variables={"HTTPS_PROXY": proxy})
    mirror = Mirror(programs, keys, hosts=inside).start()
    digest = sorted(shelf.official.image.blobs_of(HERE))[0]
    assert mirror.get(f"/v2/{shelf.official.repository}/manifests/latest")[0] == 200
    answer = mirror.get(f"/v2/{shelf.official.repository}/blobs/{digest}")
    assert answer[0] >= 400
    assert "production.cloudflare.docker.com" in error_of(answer)
    assert "allow_private" in error_of(answer)
    assert not docker_hub.downloads()


# A proxy's login


# A client sees nothing of what is between the mirror and a registry: each meets each program once.
@pytest.mark.parametrize(
    ("program", "scheme", "client"),
    [
        ("squid", "http", "docker"),
        ("squid", "https", "containerd"),
        ("squid", "https", "skopeo"),
        ("tinyproxy", "https", "docker"),
        ("tinyproxy", "http", "containerd"),
        ("tinyproxy", "http", "skopeo"),
    ],
)
def test_a_proxy_with_a_login_is_passed(
    program: str, scheme: str, client: str, hub: Hub, programs: Programs, shelf: Shelf
) -> None:
    needs(program, "nginx")
    password = programs.folder / "password"
    password.write_text("correct-horse\n")
    proxy = serve_guarded_proxy(program, programs)
    keys: dict[str, Any] = {
        "proxy": {"url": proxy, "username": "mirror", "password_file": str(password)},
        "allow_private": ["127.0.0.0/8"],  # a proxy says nothing of how near the registry is
    }
    url = hub.url
    if scheme == "https":
        url, authority = serve_tls(programs, "tls", shelf.origin.url, "")
        keys["ca_file"] = str(authority)
    mirror = Mirror(programs, endpoint(url, **keys)).start()
    pull(FLAVOURS[client], programs, mirror, shelf)
    assert mirror.metric("upstream_requests_total", status="proxy") == 0
    for one in hub.requests():
        assert not one.header("Proxy-Authorization")


@pytest.mark.parametrize("program", ["squid", "tinyproxy"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_login_that_a_proxy_refuses_is_told_and_its_file_is_read_again(
    program: str, scheme: str, programs: Programs, shelf: Shelf
) -> None:
    needs(program, "nginx")
    password = programs.folder / "password"
    password.write_text("wrong-horse\n")
    proxy = serve_guarded_proxy(program, programs)
    keys: dict[str, Any] = {
        "proxy": {"url": proxy, "username": "mirror", "password_file": str(password)}
    }
    url = shelf.origin.url
    if scheme == "https":
        url, authority = serve_tls(programs, "tls", shelf.origin.url, "")
        keys["ca_file"] = str(authority)
    mirror = Mirror(programs, endpoint(url, **keys)).start()
    path = f"/v2/{shelf.official.repository}/manifests/latest"
    answer = mirror.get(path)
    assert answer[0] >= 500
    assert f"by the proxy {proxy}: the proxy refuses the login 'mirror' (40" in error_of(answer)
    password.write_text("correct-horse\n")
    # The breaker has closed the endpoint: it is looked at anew after a while.
    wait_until(lambda: mirror.get(path)[0] == 200, "the mirror gets through", 60)
    assert "-horse" not in mirror.words()


def serve_guarded_proxy(program: str, programs: Programs) -> str:
    """Its URL. It lets who shows `mirror` and `correct-horse` through."""
    if program == "tinyproxy":
        return serve_tinyproxy(programs, "BasicAuth mirror correct-horse")
    url, _ = serve_proxy(programs, with_login(programs, "mirror", "correct-horse"))
    return url


# A proxy's own refusals


@pytest.mark.parametrize("program", ["squid", "tinyproxy"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("why", ["denied", "down"])
def test_a_proxys_own_refusal_is_told_as_its_own(
    program: str, scheme: str, why: str, programs: Programs, shelf: Shelf
) -> None:
    needs(program)
    nobody = f"{loopback_address()}:5999"
    if program == "squid":
        proxy, _ = serve_proxy(programs, "http_access deny all" if why == "denied" else "")
    else:
        allowed = programs.folder / "filter"
        allowed.write_text("^nothing$\n")
        rules = f'Filter "{allowed}"\nFilterDefaultDeny Yes' if why == "denied" else ""
        proxy = serve_tinyproxy(programs, rules)
    mirror = Mirror(programs, endpoint(f"{scheme}://{nobody}", proxy=proxy)).start()
    answer = mirror.get(f"/v2/{shelf.official.repository}/manifests/latest")
    assert answer[0] >= 500
    says = "lets nobody, or not us, through" if why == "denied" else " not reach"
    assert says in error_of(answer)
    assert proxy in error_of(answer)
    assert mirror.metric("upstream_requests_total", status="proxy") > 0


# Client certificates, as a server of Go asks for them


@some_clients
def test_a_registry_that_wants_a_certificate_is_pulled_from(
    flavour: Flavour, programs: Programs, shelf: Shelf
) -> None:
    url, keys = guarded(programs, shelf)
    mirror = Mirror(programs, endpoint(url, **keys)).start()
    pull(flavour, programs, mirror, shelf)


def test_a_registry_that_misses_a_certificate_is_told(programs: Programs, shelf: Shelf) -> None:
    url, keys = guarded(programs, shelf)
    del keys["client"]
    mirror = Mirror(programs, endpoint(url, **keys)).start()
    answer = mirror.get(f"/v2/{shelf.official.repository}/manifests/latest")
    assert answer[0] >= 500
    assert "client certificate" in error_of(answer)


def test_nginx_that_misses_a_certificate_is_told(programs: Programs, shelf: Shelf) -> None:
    needs("nginx")
    shown = clients_certificate(programs)
    rules = f"ssl_client_certificate {shown.authority}; ssl_verify_client on;"
    url, authority = serve_tls(programs, "tls", shelf.origin.url, rules)
    (programs.folder / "stranger").mkdir()
    stranger = issue(programs.folder / "stranger", ("stranger",))
    for keys, says in (
        ({}, "write client: {cert: …, key: …}"),
        ({"client": {"cert": str(stranger.server)}}, "refuses our client certificate"),
    ):
        mirror = Mirror(programs, endpoint(url, ca_file=str(authority), **keys)).start()
        answer = mirror.get(f"/v2/{shelf.official.repository}/manifests/latest")
        assert answer[0] >= 500
        assert says in error_of(answer)
        mirror.kill()


def clients_certificate(programs: Programs) -> Certificate:
    folder = programs.folder / "client"
    folder.mkdir()
    return issue(folder, ("mirror",))


def guarded(programs: Programs, shelf: Shelf) -> tuple[str, dict[str, Any]]:
    """docker-registry with TLS of its own that wants a certificate; its URL, and the keys by which
    it is reached."""
    shown = clients_certificate(programs)
    folder = programs.folder / "guarded"
    folder.mkdir()
    address = loopback_address()
    made = issue(folder, (address,))
    tls = {
        "certificate": str(made.server),
        "key": str(made.server),
        "clientcas": [str(shown.authority)],
    }
    http = {"addr": f"{address}:5000", "tls": tls}
    serve_registry(programs, "guarded", shelf.origin.storage, address=address, http=http)
    keys = {"ca_file": str(made.authority), "client": {"cert": str(shown.server)}}
    return f"https://{address}:5000", keys
