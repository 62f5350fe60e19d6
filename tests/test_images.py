"""`warm` and `ready`, and /readyz?image=: whole images, with a registry and without one."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.pullthrough.images import this_platform

from .commands import Done, ran
from .fakes.hub import OCI_INDEX, Hub
from .faults.client import digest_of


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


@pytest.fixture
def config(tmp_path: Path, hub: Hub) -> Path:
    config = tmp_path / "mirror.yaml"
    config.write_text(
        f"storage: {{path: {tmp_path / 'store'}}}\n"
        f"registries: {{docker.io: {{endpoints: [{{url: '{hub.url}'}}]}}}}\n"
    )
    return config


async def say(config: Path, *words: str) -> Done:
    return await ran(*words, "--config", config)


async def test_an_image_that_was_warmed_is_ready_with_no_registry(hub: Hub, config: Path) -> None:
    hub.add_image("library/redis", "7", b"layer one" * 1000, b"layer two" * 1000)
    before = await say(config, "ready", "redis:7")
    assert before.status == 1
    assert "docker.io/library/redis:7: not ready" in before.stdout
    warmed = await say(config, "warm", "redis:7")
    assert warmed.status == 0, warmed.stderr
    assert "docker.io/library/redis:7: whole" in warmed.stdout
    asked = len(hub.seen("registry"))
    after = await say(config, "ready", "redis:7")
    assert after.status == 0, after.stdout
    assert f"docker.io/library/redis:7: ready for {this_platform()}" in after.stdout
    assert len(hub.seen("registry")) == asked


async def test_what_is_missing_is_named(hub: Hub, config: Path, tmp_path: Path) -> None:
    layers = b"layer one" * 5000, b"layer two, which is small"
    hub.add_image("library/redis", "7", *layers)
    await say(config, "warm", "redis:7")
    lose(tmp_path / "store", *layers)
    said = await say(config, "ready", "redis:7")
    assert said.status == 1
    for layer in layers:
        assert f"layer {digest_of(layer)}" in said.stdout


def lose(store: Path, *contents: bytes) -> None:
    """Small content is a row, other content a file: each has to be there."""
    for digest in map(digest_of, contents):
        algorithm, _, name = digest.partition(":")
        files = list((store / "blobs" / algorithm).rglob(name))
        for path in files:
            path.unlink()
        with contextlib.closing(sqlite3.connect(store / "small.db")) as db, db:
            rows = db.execute("DELETE FROM small WHERE digest = ?", (digest,)).rowcount
        assert len(files) + rows == 1


async def test_an_image_that_is_not_there_is_told(hub: Hub, config: Path) -> None:
    said = await say(config, "warm", "redis:nope")
    assert said.status == 1
    assert "docker.io/library/redis:nope" in said.stderr
    assert "Traceback" not in said.stderr


async def test_a_name_that_is_none_is_told_before_anything_is_done(hub: Hub, config: Path) -> None:
    said = await say(config, "warm", "Redis")
    assert said.status == 2
    assert "'Redis' is no repository name" in said.stderr or "'library/Redis'" in said.stderr


def add_nested(hub: Hub, *layers: bytes) -> None:
    """library/redis:7, an index in an index."""
    image = hub.add_image("library/redis", "image", *layers)
    system, architecture = this_platform().split("/")
    named: dict[str, object] = {"platform": {"os": system, "architecture": architecture}}
    for tag in ("inner", "7"):
        data, media_type = hub.manifests[image]
        child = {"mediaType": media_type, "digest": image, "size": len(data), **named}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
        image = hub.add_manifest("library/redis", tag, json.dumps(index).encode(), OCI_INDEX)
        named = {}


async def test_what_is_below_an_index_in_an_index_is_warmed_and_missed(
    hub: Hub, config: Path, tmp_path: Path
) -> None:
    add_nested(hub, b"layer one" * 1000)
    warmed = await say(config, "warm", "redis:7")
    assert warmed.status == 0, warmed.stderr
    assert "2 blobs" in warmed.stdout
    assert (await say(config, "ready", "redis:7")).status == 0
    lose(tmp_path / "store", b"layer one" * 1000)
    said = await say(config, "ready", "redis:7")
    assert (said.status, "layer sha256:" in said.stdout) == (1, True)
