"""Real clients pull what registries of vendors have, which are emulated (see tests/vendors), and
what real ones have that anybody can run."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest

from ..fakes.shelf import Shelf
from ..vendors import PROFILES, own, short_name
from ..vendors.emulated import Emulated
from ..vendors.profile import Profile
from .certificates import issue
from .clients import Client, Containerd, Dockerd, Flavour, Skopeo
from .conftest import have
from .hub import Hub, Origin, serve_registry
from .images import DOCKER, OCI, build_thin
from .mirror import Mirror, endpoint
from .nginx import serve_below, serve_project, serve_tls
from .programs import REPOSITORY, Programs, needs
from .ways import serve_proxy

pytestmark = pytest.mark.xdist_group("registries")  # one mirror and one of each client for all

TAGS = [f"v{number}" for number in range(130)]
CLIENTS = {"skopeo": Skopeo, "containerd": Containerd, "docker": Dockerd}

REAL = {
    "open": "docker-registry that asks for no login",
    "htpasswd": "docker-registry with htpasswd",
    "cache": "docker-registry as a pull-through cache of another",
    "tokens": "docker-registry behind a token realm, with blobs on another host",
    "mirror": "another mirror such as this",
    "named": "a registry of another mirror, by its name as a prefix",
    "tls": "nginx with a certificate of a company's authority, which wants a client's certificate",
    "proxy": "nginx, as that, which only a company's proxy can reach",
    "prefix": "docker-registry below a path, by its own key http.prefix",
    "path": "docker-registry below a path, by nginx",
    "project": "docker-registry as a project, by nginx",
    "written": "the same, with /v2/ in its URL",
    "login": "docker-registry with htpasswd, below a path, by nginx",
}
# correct-horse, as `htpasswd -B` writes it
HTPASSWD = "mirror:$2b$04$MjmAN21EMfUtisuvju0DNuTv8NTqJxWmNHEXFf60qyNkL442g6cua\n"


def shelf_of(profile: Profile) -> Shelf:
    """For each client a public image and a private one, that no other client asks for: so that
    each is brought from the registry. And one of Docker Hub's, which the registry caches."""
    shelf = Shelf()
    readers = [f"{kind}/{client}" for kind in ("library", "private") for client in CLIENTS]
    for number, repository in enumerate((*readers, f"library/{short_name(profile)}")):
        image = build_thin(f"{profile.name}/{repository}", (OCI, DOCKER)[number % 2])
        shelf.blobs |= image.blobs
        for digest, data in image.manifests.items():
            shelf.manifests[digest] = data, json.loads(data)["mediaType"]
        shelf.tags[repository] = dict.fromkeys(["latest", *TAGS], image.digest)
    return shelf


class Street:
    """All registries, on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self.registries = {
            profile.name: Emulated(profile, shelf_of(profile)) for profile in PROFILES
        }

    def __enter__(self) -> Street:
        self._thread.start()
        for registry in self.registries.values():
            asyncio.run_coroutine_threadsafe(registry.__aenter__(), self._loop).result(30)
        return self

    def __exit__(self, *left: object) -> None:
        for registry in self.registries.values():
            leaving = registry.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(leaving, self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@dataclass(frozen=True)
class Town:
    """A mirror that has each registry twice: by its name without a login, and below `login.`."""

    mirror: Mirror
    registries: dict[str, dict[str, Any]]


def real_registries(programs: Programs, beside: Programs) -> dict[str, dict[str, Any]]:
    """What to write for each of REAL; it has an image for each client in `<registry>/<client>`."""
    origin = Origin(programs)
    for name in REAL:
        for number, client in enumerate(CLIENTS):
            repository = f"{name}/{client}"
            origin.push(build_thin(repository, (OCI, DOCKER)[number % 2]), repository)
    users, secret = programs.folder / "htpasswd", programs.folder / "password"
    users.write_text(HTPASSWD)
    secret.write_text("correct-horse\n")
    basic = serve_registry(
        programs,
        "htpasswd",
        origin.storage,
        auth={"htpasswd": {"realm": "corp", "path": str(users)}},
    )
    cache = serve_registry(
        programs, "cache", programs.folder / "cache", proxy={"remoteurl": origin.url}
    )
    tokens = Hub(programs, origin)
    quick = endpoint(origin.url)
    other = Mirror(beside, quick, registries={"docker.io": quick, "corp.example": quick}).start()
    (programs.folder / "client").mkdir()
    shown = issue(programs.folder / "client", ("mirror",))
    wanted = f"ssl_client_certificate {shown.authority}; ssl_verify_client on;"
    tls, authority = serve_tls(programs, "tls", origin.url, wanted)
    proxy, proxied = serve_proxy(programs)
    inner = serve_tls(programs, "inner", origin.url, f"allow {proxied}; deny all;")
    mounted = serve_registry(programs, "mounted", origin.storage, "/some/path")
    path, project = "/artifactory/api/docker/hub", "dockerhub-proxy"
    below = serve_below(programs, "below", origin.url, path)
    beneath = serve_below(programs, "beneath", basic, path)
    harbor = serve_project(programs, "harbor", origin.url, project)
    with_login = {"username": "mirror", "password_file": str(secret)}
    return {
        "open.example": endpoint(origin.url),
        "htpasswd.example": endpoint(basic, credentials=with_login),
        "cache.example": endpoint(cache),
        "tokens.example": endpoint(tokens.url, credentials=with_login, realm=tokens.realm),
        "mirror.example": endpoint(other.url),
        "named.example": endpoint(f"{other.url}/v2/corp.example"),
        "tls.example": endpoint(
            tls,
            ca_file=str(authority),
            client={"cert": str(shown.server), "key": str(shown.server)},
        ),
        "proxy.example": endpoint(inner[0], ca_file=str(inner[1]), proxy=proxy),
        "prefix.example": endpoint(mounted),
        "path.example": endpoint(below + path),
        "project.example": endpoint(f"{harbor}/{project}"),
        "written.example": endpoint(f"{harbor}/v2/{project}"),
        "login.example": endpoint(beneath + path, credentials=with_login),
    }


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    needs("docker-registry", "nginx", "squid")
    with Programs() as programs, Programs() as beside, Street() as street:
        registries = real_registries(programs, beside)
        for name, registry in street.registries.items():
            registries[name] = registry.configured(programs.folder, None)
            registries[f"login.{name}"] = registry.configured(
                programs.folder, registry.profile.login
            )
        registries["docker.io"] = registries[own.HARBOR.name]
        mirror = Mirror(programs, {}, registries=registries).start()
        yield Town(mirror, registries)
        print(mirror.words()[-20_000:])


@pytest.fixture(scope="module")
def clients(town: Town) -> Iterator[dict[str, Client]]:
    """One of each, which knows the mirror for every registry."""
    with Programs() as first, Programs() as second, Programs() as third:
        flavours = {name: have(Flavour(kind)) for name, kind in CLIENTS.items()}
        started = {
            name: flavours[name].start(programs, town.mirror.url)
            for name, programs in zip(CLIENTS, (first, second, third), strict=True)
        }
        address = f"{town.mirror.address}:{town.mirror.port}"
        registries = ""
        for name in set(town.registries) - {"docker.io"}:
            registries += f'[[registry]]\nprefix = "{name}"\nlocation = "{address}/{name}"\n'
            registries += "insecure = true\n"
            hosts = second.folder / "hosts.d" / name
            hosts.mkdir()
            (hosts / "hosts.toml").write_text(
                f'server = "https://{name}"\n[host."{town.mirror.url}"]\n'
                '  capabilities = ["pull", "resolve"]\n'
            )
        (first.folder / "registries.conf").write_text(registries)
        yield started


def image_at(town: Town, client: str, registry: str, repository: str) -> str:
    """The image as this client names it. dockerd has mirrors of Docker Hub alone; to others it
    goes by the mirror's own name."""
    prefix = f"{town.mirror.address}:{town.mirror.port}/" if client == "docker" else ""
    return f"{prefix}{registry}/{repository}/{client}:latest"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("profile", PROFILES, ids=short_name)
def test_what_is_public_and_what_is_private_is_pulled(
    profile: Profile, client: str, town: Town, clients: dict[str, Client]
) -> None:
    if profile.has_public:
        clients[client].pull(image_at(town, client, profile.name, "library"))
    if profile.login is not None:
        clients[client].pull(image_at(town, client, f"login.{profile.name}", "private"))


@pytest.mark.parametrize(
    "profile", [profile for profile in PROFILES if profile.path or profile.project], ids=short_name
)
def test_dockerd_pulls_docker_hubs_images_by_way_of_another_registry(
    profile: Profile, town: Town, clients: dict[str, Client]
) -> None:
    town.mirror.reload(town.registries[f"login.{profile.name}"])
    clients["docker"].pull(f"docker.io/library/{short_name(profile)}:latest")


@pytest.mark.parametrize(
    "profile",
    [profile for profile in PROFILES if profile.tags.is_open],
    ids=short_name,
)
def test_skopeo_lists_all_tags(profile: Profile, town: Town, clients: dict[str, Client]) -> None:
    skopeo = clients["skopeo"]
    assert isinstance(skopeo, Skopeo)
    name = profile.name if profile.has_public else f"login.{profile.name}"
    repository = f"{town.mirror.address}:{town.mirror.port}/{name}/library/skopeo"
    assert sorted(skopeo.tags(repository)) == sorted(["latest", *TAGS])


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("registry", REAL)
def test_what_real_registries_have_is_pulled(
    registry: str, client: str, town: Town, clients: dict[str, Client]
) -> None:
    clients[client].pull(image_at(town, client, f"{registry}.example", registry))


@pytest.mark.parametrize("registry", REAL)
def test_skopeo_lists_the_tags_of_real_registries(
    registry: str, town: Town, clients: dict[str, Client]
) -> None:
    skopeo = clients["skopeo"]
    assert isinstance(skopeo, Skopeo)
    repository = f"{town.mirror.address}:{town.mirror.port}/{registry}.example/{registry}/docker"
    assert skopeo.tags(repository) == ["latest"]


def test_check_online_says_of_each_what_a_pull_meets(town: Town) -> None:
    """Of those with a login, and of real ones: at no step anything but what is well."""
    well = {f"{name}.example": f"{name}.example/{name}/skopeo" for name in REAL}
    for profile in PROFILES:
        if profile.has_public:
            well[profile.name] = f"{profile.name}/library/skopeo"
        if profile.login is not None:
            well[f"login.{profile.name}"] = f"login.{profile.name}/private/skopeo"
    told = check_online(town.mirror, *well.values())
    assert {name: told[name] for name in well} == {name: [] for name in well}


def check_online(mirror: Mirror, *images: str) -> dict[str, list[str]]:
    """Of each registry the steps that were not well."""
    argv = [sys.executable, "-m", "mirror", "check", "--online", "--config", mirror.configuration]
    done = subprocess.run([*argv, *images], cwd=REPOSITORY, capture_output=True, text=True)
    told: dict[str, list[str]] = {}
    for block in done.stdout.split("\n\n")[1:]:
        head, *steps = block.splitlines()
        bad = [step for step in steps if step.startswith("  FAIL")]
        told.setdefault(head.partition(": ")[0], []).extend(bad)
    return told
