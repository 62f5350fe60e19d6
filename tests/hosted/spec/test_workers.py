"""Two processes on one port: what one is told, the other knows at once."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator

import pytest

from mirror.server.control import ask

from .registry import (
    PORT,
    HostedMirror,
    Registry,
    Repository,
    digest_of,
    image,
    started,
)

CLIENTS = 12  # connections, of which each worker has some


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedMirror]:
    mirror = HostedMirror(tmp_path_factory.mktemp("workers"), {"workers": 2})
    yield mirror
    mirror.kill()
    mirror.wrote_well()


@pytest.fixture(scope="module")
def registry(mirror: HostedMirror) -> Registry:
    return started(mirror)


@pytest.fixture
def repository(registry: Registry) -> Repository:
    return registry.new_repository()


class Anonymous:
    """Many clients without a login, each with a connection of its own."""

    def __init__(self, registry: Registry) -> None:
        self._open = [
            http.client.HTTPConnection(registry.address, PORT, timeout=30) for _ in range(CLIENTS)
        ]

    def ask(self, path: str) -> list[tuple[int, bytes, bool]]:
        """Status, body, and whether the answer was given from the table of public ones, in which
        none has an id of its own."""
        found = []
        for connection in self._open:
            connection.request("GET", path)
            answer = connection.getresponse()
            hot = answer.headers["X-Request-ID"] is None
            found.append((answer.status, answer.read(), hot))
        return found


def make(mirror: HostedMirror, repository: Repository, visibility: str) -> None:
    asyncio.run(ask(mirror.storage, "repo-set", name=repository.name, visibility=visibility))


def test_one_begins_an_upload_and_others_end_it(repository: Repository) -> None:
    data = bytes(range(256)) * 40
    for _ in range(8):
        location = repository.begin()
        for start in range(0, len(data), 1024):
            chunk = data[start : start + 1024]
            answer = repository.registry.ask(
                "PATCH", location, chunk, {"Content-Range": f"{start}-{start + len(chunk) - 1}"}
            )
            assert answer.status == 202
        end = f"{location}?digest={digest_of(data)}"
        assert repository.registry.ask("PUT", end).status == 201


def test_what_is_public_is_given_at_once_and_what_becomes_private_no_more(
    mirror: HostedMirror, repository: Repository
) -> None:
    manifest = repository.put_image("1")
    make(mirror, repository, "public")
    path = f"/v2/{repository.name}/manifests/{digest_of(manifest)}"
    clients = Anonymous(repository.registry)
    assert {(status, body) for status, body, _ in clients.ask(path)} == {(200, manifest)}
    assert any(hot for _, _, hot in clients.ask(path))
    make(mirror, repository, "private")
    assert {status for status, _, _ in clients.ask(path)} == {401}
    make(mirror, repository, "public")
    assert {status for status, _, _ in clients.ask(path)} == {200}


def test_a_tag_that_moves_is_seen_by_all_at_once(
    mirror: HostedMirror, repository: Repository
) -> None:
    repository.put_image("1")
    make(mirror, repository, "public")
    path = f"/v2/{repository.name}/manifests/1"
    clients = Anonymous(repository.registry)
    for number in range(5):
        manifest = image(annotations={"number": str(number)})
        assert repository.put(manifest, "1").status == 201
        assert {body for _, body, _ in clients.ask(path)} == {manifest}
        assert {body for _, body, _ in clients.ask(path)} == {manifest}
    assert repository.ask("DELETE", "manifests/1").status == 202
    assert {status for status, _, _ in clients.ask(path)} == {404}


def test_the_mirrors_port_is_as_it_was(mirror: HostedMirror, registry: Registry) -> None:
    """It challenges nobody, and gives nothing of what is hosted."""
    repository = registry.new_repository()
    repository.put_image("1")
    connection = http.client.HTTPConnection(mirror.address, 5000, timeout=30)
    for path, status in (("/v2/", 200), (f"/v2/{repository.name}/manifests/1", None)):
        connection.request("GET", path, headers={"Authorization": "Basic YTpi"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status != 401
        assert status is None or answer.status == status
        assert answer.headers["WWW-Authenticate"] is None
