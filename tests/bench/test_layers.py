"""The layers of the bench are what their digests name, and hold what a client is to find there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.layers import Layer, image_of, packed, plain

SIZE = 9 << 20


@pytest.mark.parametrize("kind", [packed, plain])
def test_layers_differ_and_unpack_to_one_file(
    kind: Callable[[Path, int], Iterator[Layer]], tmp_path: Path
) -> None:
    layers = kind(tmp_path / "layer", SIZE)
    one, other = next(layers), next(layers)
    assert one.blob.digest != other.blob.digest
    for number, layer in enumerate((one, other)):
        layer.blob.write(tmp_path / str(number))
        data = (tmp_path / str(number)).read_bytes()
        assert len(data) == layer.blob.size
        assert layer.blob.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        inside = gzip.decompress(data) if layer.media_type.endswith("gzip") else data
        assert layer.inside == f"sha256:{hashlib.sha256(inside).hexdigest()}"
        with tarfile.open(fileobj=io.BytesIO(inside)) as archive:
            assert [entry.size for entry in archive] == [SIZE + 32]


def test_an_image_names_its_layers_and_what_is_in_them(tmp_path: Path) -> None:
    layer = next(plain(tmp_path / "layer", 1000))
    manifest, (config, blob) = image_of([layer])
    assert json.loads(config.tail)["rootfs"]["diff_ids"] == [layer.inside]
    assert [each["digest"] for each in json.loads(manifest.data)["layers"]] == [blob.digest]
