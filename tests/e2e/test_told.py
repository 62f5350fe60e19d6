"""What a user of a real client reads when the registry refuses the mirror."""

from __future__ import annotations

import pytest

from .clients import FLAVOURS
from .conftest import have
from .hub import Hub
from .mirror import Mirror, endpoint
from .programs import Programs

PRIVATE = "private and wants credentials"


@pytest.mark.parametrize("client", ["skopeo", "podman"])
def test_skopeo_and_podman_show_why_a_repository_is_denied(
    client: str, hub: Hub, programs: Programs
) -> None:
    mirror = Mirror(programs, endpoint(hub.url)).start()
    started = have(FLAVOURS[client]).start(programs, mirror.url)
    with pytest.raises(AssertionError, match=PRIVATE):
        started.pull("docker.io/private/app:latest")


def test_docker_shows_it_where_the_mirror_is_named_and_dockerd_has_it_in_its_log_elsewhere(
    hub: Hub, programs: Programs
) -> None:
    mirror = Mirror(programs, endpoint(hub.url)).start()
    docker = have(FLAVOURS["docker"]).start(programs, mirror.url)
    with pytest.raises(AssertionError, match=PRIVATE):
        docker.pull(f"{mirror.address}:{mirror.port}/docker.io/private/app:latest")
    with pytest.raises(AssertionError):
        docker.pull("docker.io/private/other:latest")
    log = (programs.folder / "dockerd.log").read_text()
    assert (
        f"does not let us read private/other (401): it does not exist there, or it is {PRIVATE}"
        in log
    )


@pytest.mark.parametrize("client", ["skopeo", "containerd"])
def test_of_what_may_come_back_clients_show_the_status_alone(
    client: str, programs: Programs
) -> None:
    mirror = Mirror(programs, endpoint("http://127.0.0.1:9")).start()
    started = have(FLAVOURS[client]).start(programs, mirror.url)
    with pytest.raises(AssertionError, match="503 Service Unavailable"):
        started.pull("docker.io/library/app:latest")
