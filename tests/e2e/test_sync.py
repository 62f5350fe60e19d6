"""Images that the mirror has brought by itself are pulled by real clients with no registry."""

from __future__ import annotations

import json
import sys

from .clients import FLAVOURS
from .conftest import Shelf, have
from .hub import Hub
from .mirror import Mirror, endpoint
from .programs import Programs, run


def test_what_a_mirror_with_workers_has_brought_is_pulled_without_a_registry(
    hub: Hub, shelf: Shelf, programs: Programs
) -> None:
    clients = [have(FLAVOURS[name]) for name in ("docker", "skopeo")]
    images = [shelf.official.by_tag.partition("/")[2], "bob/app:l*"]
    entry = {"images": images, "every": "6h", "spare_quota": "10%"}
    mirror = Mirror(programs, endpoint(hub.url), workers=2, sync=[entry]).start()
    command = [sys.executable, "-m", "mirror", "sync"]
    run(*command, "run", "--config", mirror.configuration)
    told = run(*command, "list", "--json", "--config", mirror.configuration).stdout
    assert json.loads(told)["last"]["whole"] == 2
    hub.stop()
    for flavour in clients:
        client = flavour.start(programs, mirror.url)
        for published in (shelf.official, shelf.user):
            client.pull(published.by_tag)
