"""Which registry a request means, by its path, ?ns=, Host, or none of them."""

from __future__ import annotations

import doctest

import pytest

from mirror.oci.errors import Denied, NameInvalid, NameUnknown
from mirror.oci.reference import Repository
from mirror.server.v2 import naming
from mirror.server.v2.naming import Naming

CONFIGURED = frozenset({"docker.io", "ghcr.io", "registry.corp:5000", "localhost"})
HUB = Naming("docker.io", CONFIGURED, {"ghcr.mirror.lan": "ghcr.io"})
CORP = Naming("registry.corp:5000", CONFIGURED)
ANY = Naming("docker.io", CONFIGURED, any_registry=True)


@pytest.mark.parametrize(
    ("served", "name", "ns", "host", "meant"),
    [
        # Nothing said: the default registry
        (HUB, "library/redis", None, "", "docker.io/library/redis"),
        (HUB, "redis", None, "mirror.lan:5000", "docker.io/library/redis"),
        (CORP, "redis", None, "", "registry.corp:5000/redis"),
        # containerd
        (HUB, "owner/app", "ghcr.io", "", "ghcr.io/owner/app"),
        (HUB, "app", "ghcr.io", "", "ghcr.io/app"),
        (HUB, "owner/app", "GHCR.io", "", "ghcr.io/owner/app"),
        (HUB, "app", "registry.corp:5000", "", "registry.corp:5000/app"),
        (HUB, "redis", "", "", "docker.io/library/redis"),
        (HUB, "owner/app", "evil.example", "", "evil.example/owner/app"),  # refused by Routed
        # A path prefix: podman, or whoever can only rewrite the host
        (HUB, "ghcr.io/owner/app", None, "", "ghcr.io/owner/app"),
        (HUB, "docker.io/redis", None, "", "docker.io/library/redis"),
        (HUB, "docker.io/library/redis", None, "", "docker.io/library/redis"),
        (HUB, "registry.corp:5000/app", None, "", "registry.corp:5000/app"),
        (HUB, "localhost/app", None, "", "localhost/app"),
        (HUB, "ghcr.io", None, "", "docker.io/library/ghcr.io"),
        (HUB, "ghcr.io/ghcr.io/app", None, "", "ghcr.io/ghcr.io/app"),
        # Both: containerd with override_path
        (HUB, "ghcr.io/owner/app", "ghcr.io", "", "ghcr.io/owner/app"),
        (HUB, "docker.io/redis", "docker.io", "", "docker.io/library/redis"),
        # What only looks like a prefix
        (CORP, "quay.io/app", None, "", "registry.corp:5000/quay.io/app"),
        (HUB, "quay.io/app", "registry.corp:5000", "", "registry.corp:5000/quay.io/app"),
        (HUB, "owner/ghcr.io/app", None, "", "docker.io/owner/ghcr.io/app"),
        # What can be nothing else: such names exist neither at Docker Hub nor anywhere
        (HUB, "evil.example/owner/app", None, "", "evil.example/owner/app"),
        (CORP, "evil:80/app", None, "", "evil:80/app"),
        # A Host
        (HUB, "owner/app", None, "ghcr.mirror.lan", "ghcr.io/owner/app"),
        (HUB, "owner/app", None, "GHCR.mirror.lan.:5000", "ghcr.io/owner/app"),
        (HUB, "ghcr.io/owner/app", "ghcr.io", "ghcr.mirror.lan:5000", "ghcr.io/owner/app"),
        # Any spelling of a registry, wherever it stands
        *(
            (served, name, ns, "", "docker.io/library/redis")
            for hub in (
                *("docker.io", "Docker.IO", "docker.io.", "docker.io:443", "index.docker.io"),
                *("registry-1.docker.io", "registry.hub.docker.com:443", "hub.docker.com"),
            )
            for served in (HUB, CORP, ANY)
            for name, ns in (
                ("redis", hub),
                ("library/redis", hub),
                (f"{hub}/redis", None),
                (f"{hub}/library/redis", "docker.io"),
            )
        ),
        (HUB, "owner/app", "ghcr.io:443", "", "ghcr.io/owner/app"),
        (HUB, "ghcr.io:443/owner/app", None, "", "ghcr.io/owner/app"),
        (HUB, "GHCR.io./owner/app", "ghcr.io:0443", "", "ghcr.io/owner/app"),
        (CORP, "REGISTRY.corp.:5000/app", None, "", "registry.corp:5000/app"),
        # containerd without override_path, which asks below /v2/docker.io/v2/
        (HUB, "docker.io/v2/library/redis", "docker.io", "", "docker.io/library/redis"),
        (CORP, "index.docker.io/v2/bob/app", "docker.io", "", "docker.io/bob/app"),
        (HUB, "docker.io/v2/app", None, "", "docker.io/v2/app"),
        (HUB, "v2/library/redis", "docker.io", "", "docker.io/v2/library/redis"),
        (HUB, "ghcr.io/v2/owner/app", "ghcr.io", "", "ghcr.io/v2/owner/app"),
        # Any registry
        (ANY, "quay.io/owner/app", None, "", "quay.io/owner/app"),
        (ANY, "quay.io:8443/app", None, "", "quay.io:8443/app"),
        (ANY, "owner/app", None, "", "docker.io/owner/app"),
    ],
)
def test_what_a_request_means(
    served: Naming, name: str, ns: str | None, host: str, meant: str
) -> None:
    repository = served.repository(name, ns, host)
    assert isinstance(repository, Repository)
    assert str(repository) == meant


@pytest.mark.parametrize(
    ("served", "name", "ns", "host", "words"),
    [
        (HUB, "ghcr.io/owner/app", "docker.io", "", r"\?ns= docker\.io and its path ghcr\.io"),
        (HUB, "docker.io/redis", "ghcr.io", "", r"names two registries"),
        (HUB, "redis", "docker.io", "ghcr.mirror.lan", r"and its Host ghcr\.io"),
        (HUB, "docker.io/redis", None, "ghcr.mirror.lan", r"two registries"),
        (ANY, "quay.io/app", "evil.example", "", r"two registries"),
    ],
)
def test_what_is_refused(served: Naming, name: str, ns: str | None, host: str, words: str) -> None:
    with pytest.raises(Denied, match=words):
        served.repository(name, ns, host)


@pytest.mark.parametrize(
    ("name", "ns"),
    [
        ("app", "bad_name!"),
        ("ev!l:80/app", None),
        ("app", "../etc"),
        ("app", "host:99999"),
        ("app", "host:0"),
        ("app", "host:"),
        ("app", "127.1"),
        ("host:99999/app", None),
        ("a..b/app", None),
    ],
)
def test_what_is_no_registry_is_no_name(name: str, ns: str | None) -> None:
    with pytest.raises(NameInvalid, match="is no registry"):
        HUB.repository(name, ns)


@pytest.mark.parametrize(
    ("served", "before", "name", "ns", "meant"),
    [
        (HUB, "docker.io", "library/redis", None, "docker.io/library/redis"),
        (HUB, "index.docker.io:443", "redis", "docker.io", "docker.io/library/redis"),
        (HUB, "ghcr.io", "owner/app", None, "ghcr.io/owner/app"),
        (HUB, "GHCR.io:443", "owner/app", "ghcr.io", "ghcr.io/owner/app"),
        (HUB, "ghcr.io", "ghcr.io/owner/app", None, "ghcr.io/owner/app"),
        (HUB, "registry.corp:5000", "quay.io/app", None, "registry.corp:5000/quay.io/app"),
        (HUB, "localhost", "app", None, "localhost/app"),
        (ANY, "quay.io", "owner/app", None, "quay.io/owner/app"),
    ],
)
def test_a_registry_may_stand_before_v2(
    served: Naming, before: str, name: str, ns: str | None, meant: str
) -> None:
    assert str(served.repository(name, ns, before=before)) == meant


def test_what_stands_before_v2_agrees_with_all_else() -> None:
    for name, ns in (("owner/app", "docker.io"), ("docker.io/redis", None)):
        with pytest.raises(Denied, match=r"its path before /v2/ ghcr\.io"):
            HUB.repository(name, ns, before="ghcr.io")


@pytest.mark.parametrize(
    ("served", "before"),
    [
        *((HUB, before) for before in ("quay.io", "mirror", "v1", "docker.io:5000", "a%2fb", "..")),
        *((ANY, before) for before in ("mirror", "v1", "ev!l.io", "host:99999")),
    ],
)
def test_no_other_component_may_stand_before_v2(served: Naming, before: str) -> None:
    with pytest.raises(NameUnknown, match=r"configured are docker\.io, "):
        served.repository("owner/app", before=before)


@pytest.mark.parametrize("name", ["", "ghcr.io/", "/app", "ghcr.io//app", "ghcr.io/App", "a" * 256])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(NameInvalid):
        HUB.repository(name)


def test_a_prefix_takes_nothing_from_the_length_of_a_name() -> None:
    assert HUB.repository("ghcr.io/" + "a" * 255).name == "a" * 255


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(naming).failed == 0
