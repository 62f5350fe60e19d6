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
from .programs import House, needs, unavailable

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
    with House() as house:
        origin = Origin(house)

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
    with House() as house:
        yield Hub(house, shelf.origin)


@pytest.fixture
def hub(_hub: Hub) -> Hub:
    """The mirror's upstream: running, and asked nothing so far."""
    _hub.open_gate()
    _hub.start()
    _hub.forget_requests()
    return _hub


@pytest.fixture
def house() -> Iterator[House]:
    """Where a test's programs live. What they wrote is shown when the test fails."""
    with House() as house:
        yield house
        for log in sorted(house.folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-20_000:]}")


@pytest.fixture
def mirror(hub: Hub, house: House) -> Mirror:
    """A mirror of the hub, with an empty cache."""
    return Mirror(house, endpoint(hub.url)).start()


@pytest.fixture(scope="session")
def certificate() -> Iterator[Certificate]:
    """Docker Hub's, by an authority of this run."""
    with House() as house:
        yield issue(house.folder, HUB_NAMES)


@pytest.fixture
def docker_hub(house: House, shelf: Shelf, certificate: Certificate) -> Hub:
    """What a program takes for Docker Hub when it runs with these `docker_hub_hosts`."""
    if os.geteuid() != 0:
        unavailable("to run this test: be root, for port 443 and for names that lead there")
    return Hub(house, shelf.origin, certificate)


@pytest.fixture
def docker_hub_hosts(docker_hub: Hub, certificate: Certificate) -> Hosts:
    return Hosts(docker_hub.address, certificate.authority)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a `flavour` is run with every client, unless it says with which."""
    asked = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "flavour" in metafunc.fixturenames and "flavour" not in asked:
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
def client(flavour: Flavour, mirror: Mirror, house: House) -> Client:
    """A client of the mirror: Docker Hub itself is out of its reach."""
    return have(flavour).start(house, mirror.url)
