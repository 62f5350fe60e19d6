"""Pushes, mounts, deletes and collections at the same time, by several that have the records open
as processes have: no manifest ever lacks a blob, and what a namespace uses is what it has."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.hosted import HostedManifest, Missing, Needed, Seen
from mirror.oci.digest import Digest
from mirror.storage.records.hosted.collecting import CollectingRecords
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.opening import open_at, open_in
from mirror.storage.records.hosted.repositories import RepositoryRecords
from tests.postgres import Postgres

NOW = 1_000_000.0
BLOBS = [Digest.of(b"%d" % number) for number in range(4)]
REPOSITORIES = ["one/a", "one/b", "two/a"]
STEPS = 60


@pytest.fixture(params=["sqlite", "postgresql"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    if request.param == "sqlite":
        yield lambda: open_in(tmp_path, Clock(), sync=False)
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.make(request.getfixturevalue("template"))
    yield lambda: open_at(server.url(name), None, Clock())
    server.drop(name)


class Node:
    """One that pushes, or collects, on a thread and an event loop of its own."""

    def __init__(self, database: Database, seed: int) -> None:
        self.chance = random.Random(seed)
        self.database = database
        self.records = RepositoryRecords(database, late=0)
        self.collecting = CollectingRecords(database)
        self.pushed = 0

    async def push(self, step: int) -> None:
        repository = self.chance.choice(REPOSITORIES)
        blobs = self.chance.sample(BLOBS, 2)
        for blob in blobs:
            if not await self.records.mount(repository, blob, REPOSITORIES, NOW, "ann"):
                await self.records.add_blob(repository, blob, 5, NOW, "ann")
        # No grace here: a collection may take the blobs out before the manifest comes.
        name = f"{self.chance.random()}"
        manifest = HostedManifest(Digest.of(name.encode()), "a/b", 7, tuple(blobs))
        try:
            await self.records.put_manifest(repository, manifest, f"t{step % 3}", NOW, "ann")
            self.pushed += 1
        except Missing:
            return
        if step % 2:
            await self.records.delete_manifest(repository, manifest.digest, NOW, "ann")

    async def collect(self, _: int) -> None:
        found = await self.collecting.garbage(NOW + 1, 100)
        await self.collecting.remove(found, NOW + 1)
        for blob in BLOBS:
            with contextlib.suppress(Needed):
                await self.records.delete_blob(self.chance.choice(REPOSITORIES), blob)

    async def work(self, what: Callable[[int], object]) -> None:
        for step in range(STEPS):
            await what(step)  # type: ignore[misc]
        await self.database.close()


def test_no_manifest_lacks_a_blob(opens: Callable[[], Database]) -> None:
    nodes = [Node(opens(), seed) for seed in range(4)]
    failed: list[BaseException] = []

    def run(node: Node, what: Callable[[int], object]) -> None:
        try:
            asyncio.run(node.work(what))
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=(node, node.collect if number == 3 else node.push))
        for number, node in enumerate(nodes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []
    assert sum(node.pushed for node in nodes) > STEPS
    asyncio.run(_all_is_there(opens()))


async def _all_is_there(database: Database) -> None:
    records = RepositoryRecords(database)
    has: dict[str, dict[Digest, int]] = {"one": {}, "two": {}}
    count = 0
    for repository in await records.repositories(Seen(everything=True)):
        mine = has[repository.namespace]
        for manifest in await records.manifests(repository.name):
            mine[manifest.digest] = manifest.size
            for blob in manifest.blobs:
                count += 1
                assert await records.blob(repository.name, blob) == 5
        for blob in BLOBS:
            if await records.blob(repository.name, blob) is not None:
                mine[blob] = 5
    assert count
    for namespace, sizes in has.items():
        assert await records.usage(namespace) == sum(sizes.values())
    await database.close()
