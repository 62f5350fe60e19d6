"""What a purge removes, and what it leaves, against a model that looks at everything."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mirror.app.images import HeldImages, Keeping, purging
from mirror.app.resources import Process, Resources, holding_store, resources
from mirror.config import Config, parse
from mirror.contracts.catalogue import Kept, Tagged
from mirror.contracts.images import PurgeTotal, PurgeWanted, Sort
from mirror.contracts.tags import TagRecord
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_MANIFEST
from mirror.oci.patterns import ImagePattern
from mirror.oci.reference import Repository

PLACES = [Repository("docker.io", "library/redis"), Repository("docker.io", "acme/app")]
LAYERS = [f"layer {number}".encode() for number in range(4)]

# Where an image is, its tag, and its layers.
images = some.dictionaries(
    some.tuples(some.sampled_from(PLACES), some.sampled_from(["a", "b", "c"])),
    some.sets(some.sampled_from(LAYERS), min_size=1, max_size=3),
    min_size=1,
)


def manifest_of(layers: set[bytes]) -> bytes:
    return json.dumps({"layers": [str(Digest.of(layer)) for layer in sorted(layers)]}).encode()


async def keep(opened: Resources, place: Repository, tag: str, layers: set[bytes]) -> None:
    manifest = manifest_of(layers)
    needs = [Digest.of(layer) for layer in layers]
    for layer in layers:
        await opened.store.put(Digest.of(layer), layer)
    digest = Digest.of(manifest)
    await opened.store.put(digest, manifest, needs)
    await opened.links.add(place, [digest, *needs])
    record = TagRecord(Descriptor(OCI_MANIFEST, digest, len(manifest)), 1.0)
    await opened.tags.put(place, tag, record, 1000.0)
    kept = [Kept(Digest.of(layer), len(layer), "", (), None, 1.0) for layer in layers]
    await opened.catalogue.note(
        [
            *kept,
            Kept(digest, len(manifest), OCI_MANIFEST, needs, place, 1.0),
            Tagged(place, tag, digest, 1.0),
        ]
    )


@settings(max_examples=8, deadline=None)
@given(images, some.data())
def test_what_an_image_that_stays_needs_stays_and_all_else_of_the_purged_goes(
    given: dict[tuple[Repository, str], set[bytes]], data: some.DataObject
) -> None:
    gone = {key for key in given if data.draw(some.booleans())}
    stay = {key: layers for key, layers in given.items() if key not in gone}

    async def compare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = parse(f"storage: {{path: {folder}, durability: none}}\n", "mirror.yaml")
            async with resources(config, Process({"docker.io"}), holding_store) as opened:

                async def nothing() -> None: ...

                held = HeldImages(opened, Keeping(opened, config), lambda: config, nothing)
                for (place, tag), layers in given.items():
                    await keep(opened, place, tag, layers)
                before = {entry.digest: entry.size for entry in await opened.store.page(None, 99)}
                names = tuple(f"{place}:{tag}" for place, tag in gone)
                told = [each async for each in held.purge(PurgeWanted(names))] if names else []
                left = {entry.digest for entry in await opened.store.page(None, 99)}
                assert left == {
                    digest
                    for layers in stay.values()
                    for digest in (Digest.of(manifest_of(layers)), *map(Digest.of, layers))
                }
                if told:
                    total = told[-1]
                    assert isinstance(total, PurgeTotal)
                    assert total.freed == sum(before.values()) - sum(before[d] for d in left)
                for place, tag in given:
                    record = await opened.tags.get(place, tag)
                    assert (record is None) == ((place, tag) in gone)
                for place in PLACES:
                    shown = {
                        digest
                        for (where, _), layers in stay.items()
                        if where == place
                        for digest in (Digest.of(manifest_of(layers)), *map(Digest.of, layers))
                    }
                    for digest in before:
                        seen = await opened.links.seen(place, digest)
                        assert (seen is not None) == (digest in shown)

    asyncio.run(compare())


def test_what_is_purged_of_two_repositories_at_once_is_shown_by_neither(tmp_path: Path) -> None:
    """What is known of the first is forgotten before the other is looked at."""
    config = parse(f"storage: {{path: {tmp_path}, durability: none}}\n", "mirror.yaml")

    async def purge() -> None:
        async with resources(config, Process({"docker.io"}), holding_store) as opened:

            async def nothing() -> None: ...

            held = HeldImages(opened, Keeping(opened, config), lambda: config, nothing)
            for place in PLACES:
                await keep(opened, place, "a", {LAYERS[0], LAYERS[1]})
            await keep(opened, PLACES[0], "stays", {LAYERS[1]})
            names = tuple(f"{place}:a" for place in PLACES)
            _ = [each async for each in held.purge(PurgeWanted(names))]
            assert not await opened.links.is_shown(Digest.of(LAYERS[0]))
            assert await opened.links.seen(PLACES[0], Digest.of(LAYERS[1]))
            assert not await opened.links.seen(PLACES[1], Digest.of(LAYERS[1]))

    asyncio.run(purge())


def test_all_others_go_on_while_a_long_list_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse(f"storage: {{path: {tmp_path}, durability: none}}\n", "mirror.yaml")
    read = purging.read_pattern
    readers = set[int]()

    def watched(text: str, config: Config) -> ImagePattern:
        readers.add(threading.get_ident())
        return read(text, config)

    async def purge() -> None:
        monkeypatch.setattr(purging, "read_pattern", watched)
        async with resources(config, Process({"docker.io"}), holding_store) as opened:

            async def nothing() -> None: ...

            held = HeldImages(opened, Keeping(opened, config), lambda: config, nothing)
            names = [f"app{number}*" for number in range(100)]
            [total] = [each async for each in held.purge(PurgeWanted(names, is_trial=True))]
            assert isinstance(total, PurgeTotal)
            assert len(total.unknown) == 100

    asyncio.run(purge())
    assert len(readers) == 1
    assert threading.get_ident() not in readers


def test_names_are_what_docker_takes(tmp_path: Path) -> None:
    """Each name that is shown means that image."""
    config = parse(f"storage: {{path: {tmp_path}, durability: none}}\n", "mirror.yaml")

    async def compare() -> None:
        async with resources(config, Process({"docker.io"}), holding_store) as opened:

            async def nothing() -> None: ...

            held = HeldImages(opened, Keeping(opened, config), lambda: config, nothing)
            for place in (*PLACES, Repository("ghcr.io", "acme/app")):
                await keep(opened, place, "a", {LAYERS[0], str(place).encode()})
            shown = (await held.list()).images
            assert len(shown) == 3
            for image in shown:
                assert [one.name for one in (await held.list(image.image)).images] == [image.name]
                assert (await held.image(image.name)).image == image
            for sort in ("name", "size", "own", "used", "pulls"):
                found: list[str] = []
                after: str | None = ""
                while after is not None:
                    page = await held.list(sort=Sort(sort), after=after, limit=1)
                    found += [one.name for one in page.images]
                    after = page.following
                assert sorted(found) == [image.name for image in shown]

    asyncio.run(compare())
