"""Clients are sent to a real object store for large blobs, and have them from there."""

from __future__ import annotations

import pytest

from ..seaweed import Seaweed
from ..waiting import until
from .clients import FLAVOURS, Flavour
from .conftest import Shelf, have
from .hub import Hub
from .mirror import Mirror, endpoint
from .programs import Programs

pytestmark = pytest.mark.xdist_group("seaweed")


@pytest.mark.parametrize("name", ["docker", "skopeo"])
def test_a_client_that_is_sent_to_the_store_has_the_whole_image(
    name: str, hub: Hub, programs: Programs, shelf: Shelf, seaweed: Seaweed
) -> None:
    redirect = {"networks": ["127.0.0.0/8"], "over": "1MiB"}
    section = seaweed.storage(seaweed.bucket(), redirect=redirect)
    storage = {"path": str(programs.folder / "storage"), **section}
    mirror = Mirror(programs, endpoint(hub.url), storage=storage).start()
    flavour: Flavour = have(FLAVOURS[name])
    client = flavour.start(programs, mirror.url)
    image = shelf.official.by_tag
    client.pull(image)
    client.forget()
    until(lambda: mirror.metric("second_tier_backlog") == 0)
    until(lambda: mirror.metric("second_tier_kept_total") >= 5)
    client.pull(image)
    assert client.run(image) in (None, f"hello from {shelf.official.repository}\n")
    assert mirror.metric("second_tier_redirects_total") >= 2
