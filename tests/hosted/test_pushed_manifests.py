"""What is recorded of a manifest that somebody pushes."""

from __future__ import annotations

import json

from mirror.hosted.pushed_manifests import read_pushed
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_MANIFEST


def test_sizes_that_no_database_takes_are_recorded_as_the_most() -> None:
    layers = [
        {"mediaType": "a/b", "digest": str(Digest.of(b"%d" % number)), "size": 1 << 62}
        for number in range(3)
    ]
    made = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layers[0], "layers": layers}
    data = json.dumps(made).encode()
    _, record = read_pushed(data, OCI_MANIFEST, Digest.of(data))
    assert record.image_size == (1 << 63) - 1
