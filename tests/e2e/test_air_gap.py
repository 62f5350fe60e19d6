"""Images go by a file to where no registry is, and real clients pull them there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .clients import FLAVOURS
from .conftest import Shelf, have
from .hub import Hub
from .mirror import Mirror, endpoint
from .programs import Programs, run


def command(mirror: Mirror, *words: str | Path) -> None:
    run(sys.executable, "-m", "mirror", *words, "--config", mirror.configuration)


@dataclass(frozen=True)
class Site:
    """A mirror that no registry is asked by, and the archive that was imported there."""

    mirror: Mirror
    archive: Path


@pytest.fixture(scope="module")
def site(_hub: Hub, shelf: Shelf) -> Iterator[Site]:
    with Programs() as here, Programs() as there:
        _hub.open_gate()
        _hub.start()
        mirror = Mirror(here, endpoint(_hub.url)).start()
        archive = here.folder / "site.tar"
        command(mirror, "export", shelf.official.by_tag, shelf.user.by_tag, "-o", archive)
        offline = Mirror(there, endpoint("https://registry.invalid"), offline=True).start()
        command(offline, "import", archive)
        yield Site(offline, archive)


@pytest.mark.parametrize("name", ["docker", "containerd", "podman", "skopeo"])
def test_the_client_pulls_what_was_imported_reads_what_was_exported_and_what_it_saves_is_imported(
    name: str, site: Site, shelf: Shelf, programs: Programs
) -> None:
    client = have(FLAVOURS[name]).start(programs, site.mirror.url)
    saved = programs.folder / "saved.tar"
    for each in (shelf.official, shelf.user):
        client.pull(each.by_tag)
        client.pull(each.by_digest)
        assert client.run(each.by_tag) in (None, f"hello from {each.repository}\n")
    client.save(shelf.official.by_tag, saved)
    if name != "docker":  # which loads archives of its own kind only
        client.forget()
        for each in (shelf.official, shelf.user):
            client.load(site.archive, each.by_tag)
    command(site.mirror, "import", saved, "--as", f"saved/{name}:v1")
    status, body = site.mirror.get(f"/v2/saved/{name}/manifests/v1")
    assert status == 200
    while "manifests" in (manifest := json.loads(body)):
        digest = manifest["manifests"][0]["digest"]
        status, body = site.mirror.get(f"/v2/saved/{name}/manifests/{digest}")
        assert status == 200
    for layer in manifest["layers"]:
        assert site.mirror.get(f"/v2/saved/{name}/blobs/{layer['digest']}")[0] == 200
