"""Where the mirror fails, the Docker daemon goes to Docker Hub itself, as it would without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .clients import DOCKERS, Client, Flavour
from .conftest import Shelf, have
from .hub import Hub
from .images import HERE
from .machines import Hosts
from .mirror import Mirror
from .programs import Programs
from .tap import Tap

pytestmark = pytest.mark.parametrize("flavour", DOCKERS.values(), ids=DOCKERS)


@pytest.fixture
def tap(mirror: Mirror) -> Iterator[Tap]:
    with Tap(mirror) as tap:
        yield tap


@pytest.fixture
def docker(flavour: Flavour, programs: Programs, tap: Tap, docker_hub_hosts: Hosts) -> Client:
    """Docker Hub is within its reach. The mirror's upstream is another one."""
    return have(flavour).start(programs, tap.url, docker_hub_hosts)


def came_from(hub: Hub, digest: str) -> bool:
    return hub.downloads()[digest] == 1


def test_a_working_mirror_leaves_docker_hub_alone(
    docker: Client, docker_hub: Hub, hub: Hub, shelf: Shelf
) -> None:
    docker.pull(shelf.user.by_tag)
    assert docker_hub.requests() == []
    assert came_from(hub, shelf.user.image.config_of(HERE))


def test_a_stopped_mirror_is_passed_over(
    docker: Client, mirror: Mirror, docker_hub: Hub, shelf: Shelf
) -> None:
    mirror.stop()
    docker.pull(shelf.user.by_tag)
    assert came_from(docker_hub, shelf.user.image.config_of(HERE))


def test_a_tag_that_cannot_be_had_is_refused_so_that_docker_hub_is_asked(
    docker: Client, mirror: Mirror, hub: Hub, docker_hub: Hub, shelf: Shelf
) -> None:
    hub.stop()
    status, _ = mirror.get(f"/v2/{shelf.user.repository}/manifests/latest")
    assert status == 503
    docker.pull(shelf.user.by_tag)
    assert came_from(docker_hub, shelf.user.image.config_of(HERE))


def test_a_private_image_comes_from_docker_hub_with_the_users_login(
    docker: Client, hub: Hub, docker_hub: Hub, tap: Tap, shelf: Shelf
) -> None:
    docker.log_in()
    docker.pull(shelf.private.by_tag)
    assert came_from(docker_hub, shelf.private.image.config_of(HERE))
    assert f"/v2/{shelf.private.repository}/manifests/latest".encode() in tap.heard
    assert b"authorization" not in tap.heard.lower()
    assert not hub.downloads()
