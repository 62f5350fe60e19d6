"""The mirror's port with TLS, by an authority that the clients trust, pulled by real clients."""

from __future__ import annotations

import pytest

from .certificates import issue
from .clients import FLAVOURS, Flavour
from .conftest import Shelf, have
from .hub import Hub
from .images import HERE
from .machines import Hosts, no_hub
from .mirror import ADMIN_PORT, PORT, Mirror, endpoint
from .programs import Programs, loopback_address

CLIENTS = ("docker", "containerd", "podman", "skopeo")


@pytest.mark.parametrize("flavour", [FLAVOURS[name] for name in CLIENTS], ids=CLIENTS)
def test_clients_that_verify_pull_by_https(
    flavour: Flavour, hub: Hub, programs: Programs, shelf: Shelf
) -> None:
    address = loopback_address()
    shown = issue(programs.folder, (address,))
    mirror = Mirror(
        programs,
        endpoint(hub.url),
        listen=[f"{address}:{PORT}", {"address": f"{address}:5080", "tls": False}],
        admin=f"{address}:{ADMIN_PORT}",
        tls={"cert": str(shown.server)},
    )
    mirror.address = address  # its own would be in no certificate
    mirror.start()
    seen = Hosts(no_hub().hub, shown.authority)
    client = have(flavour).start(programs, f"https://{address}:{PORT}", seen)
    client.pull(shelf.official.by_tag)
    client.pull(shelf.user.by_digest)
    assert hub.downloads().keys() >= shelf.official.image.blobs_of(HERE)
    assert "tls_refused" not in (programs.folder / "mirror.log").read_text()
