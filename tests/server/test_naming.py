"""Which registry a request means, by its path, ?ns=, Host, or none of them."""

from __future__ import annotations

import doctest

import pytest

from mirror.oci.errors import Denied, NameInvalid
from mirror.oci.reference import Repository
from mirror.server import naming
from mirror.server.naming import Naming

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
        (HUB, "app", "bad_name!", "", r"'bad_name!' is no registry"),
        (HUB, "ev!l:80/app", None, "", r"is no registry"),
        (HUB, "app", "../etc", "", r"is no registry"),
    ],
)
def test_what_is_refused(served: Naming, name: str, ns: str | None, host: str, words: str) -> None:
    with pytest.raises(Denied, match=words):
        served.repository(name, ns, host)


@pytest.mark.parametrize("name", ["", "ghcr.io/", "/app", "ghcr.io//app", "ghcr.io/App", "a" * 256])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(NameInvalid):
        HUB.repository(name)


def test_a_prefix_takes_nothing_from_the_length_of_a_name() -> None:
    assert HUB.repository("ghcr.io/" + "a" * 255).name == "a" * 255


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(naming).failed == 0
