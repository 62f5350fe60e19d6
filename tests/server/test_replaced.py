"""What requests are served by is replaced while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mirror.oci.errors import Denied
from mirror.oci.reference import Repository
from mirror.server.v2.naming import Naming
from mirror.server.v2.serving import Serving

from ..fakes.registry import FakeRegistry
from ..waiting import eventually
from .conftest import Port, descriptors

PATH = "/v2/library/redis/manifests/"


@pytest.fixture
def denying(tmp_path_factory: pytest.TempPathFactory) -> FakeRegistry:
    other = FakeRegistry(tmp_path_factory.mktemp("other"))
    other.failures = dict.fromkeys(("resolve", "manifest", "blob"), Denied("no more"))
    return other


async def test_a_request_ends_by_what_it_has_begun_with(port: Port, denying: FakeRegistry) -> None:
    digest = port.registry.add_manifest(b"{}")
    go = port.registry.waits["manifest"] = asyncio.Event()
    first, second = await port.connect(), await port.connect()
    await first.ask(f"{PATH}{digest}")
    await eventually(lambda: bool(port.registry.asked))
    unused = asyncio.ensure_future(port.serving.replace(Serving(denying))())
    await second.ask(f"{PATH}{digest}")
    assert (await second.answer()).status == 403
    assert not unused.done()
    go.set()
    assert (await first.answer()).status == 200
    await unused


async def test_an_answer_that_would_not_be_given_any_more_is_given_once(
    port: Port, denying: FakeRegistry
) -> None:
    """It was asked for before, and comes after what was prepared has been forgotten."""
    digest = port.registry.add_manifest(b"{}")
    go = port.registry.waits["manifest"] = asyncio.Event()
    wire = await port.connect()
    await wire.ask(f"{PATH}{digest}")
    await eventually(lambda: bool(port.registry.asked))
    port.serving.replace(Serving(denying))
    port.response_cache.clear()
    go.set()
    assert (await wire.answer()).status == 200
    await wire.ask(f"{PATH}{digest}")
    assert (await wire.answer()).status == 403


async def test_what_has_changed_is_asked_for_again_by_the_mirrors_names(port: Port) -> None:
    """A repository of one's own that is private from now on: no answer of before is given."""
    digest = port.registry.add_manifest(b"{}")
    changes: list[str] = []

    def still(repository: Repository) -> Callable[[], bool]:
        count = changes.count(repository.name)
        return lambda: changes.count(repository.name) == count

    port.serving.replace(Serving(port.registry, still=still))
    wire = await port.connect()
    for _ in range(3):
        await wire.ask(f"{PATH}{digest}")
        assert (await wire.answer()).status == 200
    port.registry.failures["manifest"] = Denied("private now")
    changes.append("library/redis")
    await wire.ask(f"{PATH}{digest}")
    assert (await wire.answer()).status == 403


async def test_registries_are_named_as_the_new_one_says(port: Port, denying: FakeRegistry) -> None:
    port.registry.add_manifest(b"{}", "7")
    configured = frozenset({"ghcr.io"})
    port.serving.replace(Serving(port.registry, Naming("ghcr.io", configured)))
    wire = await port.connect()
    await wire.ask(f"{PATH}7")
    assert (await wire.answer()).status == 200
    assert port.registry.asked[0][1].registry == "ghcr.io"


async def test_replacing_costs_nothing_that_stays(port: Port, denying: FakeRegistry) -> None:
    port.registry.add_manifest(b"{}", "7")
    before = descriptors()
    for _ in range(100):
        wire = await port.connect()
        await wire.ask(f"{PATH}7")
        assert (await wire.answer()).status == 200
        wire.leave()
        await port.serving.replace(Serving(port.registry))()
        port.response_cache.clear()
    await eventually(lambda: descriptors() <= before + 1)


async def test_another_idle_time_counts_for_connections_that_are_open(port: Port) -> None:
    port.registry.add_manifest(b"{}", "7")
    wire = await port.connect()
    for _ in range(2):  # which is kept as one that asks for what was just asked
        await wire.ask(f"{PATH}7")
        assert (await wire.answer()).status == 200
    port.listener.limit(0.2, 0.2)
    later = await port.connect()
    await later.ask(f"{PATH}7")
    assert (await later.answer()).status == 200
    async with asyncio.timeout(5):
        assert await later.reader.read() == b""
