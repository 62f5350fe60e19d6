"""One hub for a whole run; for each test a mirror with nothing in it, and its client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .certificates import HUB_NAMES, Certificate, issue
from .clients import FLAVOURS, Client, Flavour
from .hub import Hub, Origin
from .images import DOCKER, OCI, Image, build
from .machines import Hosts
from .mirror import Mirror, endpoint
from .newer_clients import NotAvailable, root_of
from .programs import Programs, needs, unavailable

MB = 1_000_000


@dataclass(frozen=True)
class Published:
    """An image and where it is. `name` is its repository's, as clients write it in full."""

    repository: str
    image: Image

    @property
    def name(self) -> str:
        return f"docker.io/{self.repository}"

    @property
    def by_tag(self) -> str:
        return f"{self.name}:latest"

    @property
    def by_digest(self) -> str:
        return f"{self.name}@{self.image.digest}"


@dataclass(frozen=True)
class Shelf:
    """What the hub has."""

    origin: Origin
    official: Published  # OCI media types; layers below and above what is held until proven
    user: Published  # Docker's media types
    private: Published  # for those who are logged in
    few: Published  # three layers: a client asks for them and the config all at once


@pytest.fixture(scope="session")
def shelf() -> Iterator[Shelf]:
    """A registry with images in it."""
    needs("docker-registry", "busybox")
    with Programs() as programs:
        origin = Origin(programs)

        def publish(repository: str, kind: dict[str, str], *layers: int) -> Published:
            image = build(repository, kind, layers)
            origin.push(image, repository)
            return Published(repository, image)

        yield Shelf(
            origin,
            official=publish("library/demo", OCI, MB // 10, 2 * MB, 5 * MB, MB // 2),
            user=publish("bob/app", DOCKER, 3 * MB, MB // 5),
            private=publish("private/secret", DOCKER, MB // 10),
            few=publish("library/few", OCI, 2 * MB, 3 * MB),
        )


@pytest.fixture(scope="session")
def _hub(shelf: Shelf) -> Iterator[Hub]:
    with Programs() as programs:
        yield Hub(programs, shelf.origin)


@pytest.fixture
def hub(_hub: Hub) -> Hub:
    """The mirror's upstream: running, and asked nothing so far."""
    _hub.open_gate()
    _hub.start()
    _hub.forget_requests()
    return _hub


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Where a test's programs live. What they wrote is shown when the test fails."""
    with Programs() as programs:
        yield programs
        for log in sorted(programs.folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-20_000:]}")


@pytest.fixture
def mirror(hub: Hub, programs: Programs) -> Mirror:
    """A mirror of the hub, with an empty cache."""
    return Mirror(programs, endpoint(hub.url)).start()


@pytest.fixture(scope="session")
def certificate() -> Iterator[Certificate]:
    """Docker Hub's, by an authority of this run."""
    with Programs() as programs:
        yield issue(programs.folder, HUB_NAMES)


@pytest.fixture
def docker_hub(programs: Programs, shelf: Shelf, certificate: Certificate) -> Hub:
    """What a program takes for Docker Hub when it runs with these `docker_hub_hosts`."""
    if os.geteuid() != 0:
        unavailable("to run this test: be root, for port 443 and for names that lead there")
    return Hub(programs, shelf.origin, certificate)


@pytest.fixture
def docker_hub_hosts(docker_hub: Hub, certificate: Certificate) -> Hosts:
    return Hosts(docker_hub.address, certificate.authority)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a `flavour` is run with every client, unless it says with which."""
    asked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    names = {name for each in asked for name in ([each] if isinstance(each, str) else each)}
    if "flavour" in metafunc.fixturenames and "flavour" not in names:
        metafunc.parametrize("flavour", FLAVOURS.values(), ids=FLAVOURS)


def have(flavour: Flavour) -> Flavour:
    """The same; skips the test when its programs are not here."""
    if not flavour.suite:
        needs(*flavour.client.programs)
        return flavour
    try:
        root_of(flavour.suite)
    except NotAvailable as error:
        unavailable(str(error))
    return flavour


@pytest.fixture
def client(flavour: Flavour, mirror: Mirror, programs: Programs) -> Client:
    """A client of the mirror: Docker Hub itself is out of its reach."""
    return have(flavour).start(programs, mirror.url)
