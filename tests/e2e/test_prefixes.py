"""Clients that can only rewrite the host put the registry's name before the repository's."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from .clients import FLAVOURS, Client, Containerd, Flavour
from .conftest import Shelf, have
from .hub import Hub
from .mirror import Mirror, endpoint
from .programs import House


def use_prefix(client: Client, mirror: Mirror) -> None:
    """Has the client ask for `/v2/docker.io/library/x/…`."""
    folder = client.house.folder
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


@pytest.mark.parametrize(
    "flavour",
    [FLAVOURS[name] for name in ("containerd", "containerd-sid", "podman", "skopeo")],
    ids=["containerd", "containerd-sid", "podman", "skopeo"],
)
def test_a_path_prefix_names_the_registry(
    flavour: Flavour, hub: Hub, house: House, shelf: Shelf
) -> None:
    """The default registry is another one, and down: nothing but the prefix leads to the hub."""
    nowhere = {"endpoints": [{"url": "http://127.0.0.1:9"}]}
    registries = {"docker.io": endpoint(hub.url), "other.example": nowhere}
    keys = {"registries": registries, "default_registry": "other.example"}
    mirror = Mirror(house, {}, **keys).start()
    client = have(flavour).start(house, mirror.url)
    use_prefix(client, mirror)
    client.pull(shelf.official.by_tag)
    client.pull(shelf.user.by_digest)
    asked = [word for word in mirror.words().splitlines() if '"request"' in word]
    assert any('"registry": "docker.io"' in line for line in asked)
    assert not any('"registry": "other.example"' in line for line in asked)
