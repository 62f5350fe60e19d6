"""Clients that can only rewrite the host put the registry's name before the repository's, or before
/v2/."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from .clients import FLAVOURS, Client, Containerd, Flavour
from .conftest import Shelf, have
from .hub import Hub
from .mirror import Mirror, endpoint
from .programs import Programs


def use_prefix(client: Client, mirror: Mirror) -> None:
    """Has the client ask for `/v2/docker.io/library/x/…`."""
    folder = client.programs.folder
    if isinstance(client, Containerd):  # which adds ?ns=docker.io
        (folder / "hosts.d/docker.io/hosts.toml").write_text(
            f'server = "{mirror.url}/v2/docker.io"\n'
            f'[host."{mirror.url}/v2/docker.io"]\n'
            '  capabilities = ["pull", "resolve"]\n  override_path = true\n'
        )
    else:
        (folder / "registries.conf").write_text(
            '[[registry]]\nprefix = "docker.io"\n'
            f'location = "{urlsplit(mirror.url).netloc}/docker.io"\ninsecure = true\n'
        )


def with_another_default(programs: Programs, hub: Hub) -> Mirror:
    """The default registry is another one, and down: nothing but a prefix leads to the hub."""
    nowhere = {"endpoints": [{"url": "http://127.0.0.1:9"}]}
    registries = {"docker.io": endpoint(hub.url), "other.example": nowhere}
    return Mirror(programs, {}, registries=registries, default_registry="other.example").start()


def pull_from_docker_io(client: Client, shelf: Shelf, mirror: Mirror) -> None:
    client.pull(shelf.official.by_tag)
    client.pull(shelf.user.by_digest)
    asked = [word for word in mirror.words().splitlines() if '"request"' in word]
    assert any('"registry": "docker.io"' in line for line in asked)
    assert not any('"registry": "other.example"' in line for line in asked)


@pytest.mark.parametrize(
    "flavour",
    [FLAVOURS[name] for name in ("containerd", "containerd-sid", "podman", "skopeo")],
    ids=["containerd", "containerd-sid", "podman", "skopeo"],
)
def test_a_path_prefix_names_the_registry(
    flavour: Flavour, hub: Hub, programs: Programs, shelf: Shelf
) -> None:
    mirror = with_another_default(programs, hub)
    client = have(flavour).start(programs, mirror.url)
    use_prefix(client, mirror)
    pull_from_docker_io(client, shelf, mirror)


# Each client with one path, and each path: which paths there are is the mirror's affair alone.
PATHS = [
    ("docker-sid", "docker.io"),
    ("docker-sid", "index.docker.io"),
    ("docker-sid-containerd-store", "v2/docker.io"),
    ("containerd", "docker.io"),
    ("containerd", "v2/docker.io"),
    ("containerd-sid", "index.docker.io"),
]


@pytest.mark.parametrize(
    ("flavour", "path"),
    [(FLAVOURS[name], path) for name, path in PATHS],
    ids=["-".join(each) for each in PATHS],
)
def test_a_path_of_the_mirrors_url_names_the_registry(
    flavour: Flavour, path: str, hub: Hub, programs: Programs, shelf: Shelf
) -> None:
    """Without `override_path`, and in Docker 28 always, the API is below that path."""
    mirror = with_another_default(programs, hub)
    client = have(flavour).start(programs, f"{mirror.url}/{path}")
    pull_from_docker_io(client, shelf, mirror)
