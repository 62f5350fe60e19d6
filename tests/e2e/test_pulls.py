"""Every client pulls, with the upstream there and without, and nothing is fetched twice."""

from __future__ import annotations

from collections import Counter

from .clients import Client
from .conftest import Published, Shelf
from .hub import Hub
from .images import ELSEWHERE, HERE
from .mirror import Mirror


def expected_blobs(client: Client, *images: Published) -> Counter[str]:
    """One download of each blob that the client has a use for."""
    wanted: set[str] = set()
    for each in images:
        wanted |= each.image.blobs_of(HERE)
        if client.asks_all_platforms:
            wanted.add(each.image.config_of(ELSEWHERE))
    return Counter(wanted)


def expected_manifests(client: Client, *images: Published) -> Counter[str]:
    wanted: set[str] = set()
    for each in images:
        wanted |= {each.image.digest, each.image.manifest_of[HERE]}
        if client.asks_all_platforms:
            wanted.add(each.image.manifest_of[ELSEWHERE])
    return Counter(wanted)


def test_each_blob_is_downloaded_once_and_pulled_again_without_the_upstream_and_after_a_crash(
    client: Client, hub: Hub, mirror: Mirror, shelf: Shelf
) -> None:
    """None of another architecture is. In one test, since a client takes seconds to start."""
    official, user = shelf.official, shelf.user
    client.pull(official.by_tag)
    client.pull(user.by_digest)
    assert hub.downloads() == expected_blobs(client, official, user)
    assert hub.manifests() == expected_manifests(client, official, user)

    client.forget()
    client.pull(official.by_digest)
    client.pull(user.by_tag)
    assert hub.downloads() == expected_blobs(client, official, user)
    assert hub.manifests() == expected_manifests(client, official, user)

    def pull_all() -> None:
        client.forget()
        client.pull(official.by_tag)
        client.pull(user.by_digest)
        for each in (official, user):
            assert client.run(each.by_tag if each is official else each.by_digest) in (
                None,
                f"hello from {each.repository}\n",
            )

    hub.stop()
    hub.forget_requests()
    pull_all()
    mirror.kill()
    mirror.start()
    pull_all()
    assert hub.requests() == []
