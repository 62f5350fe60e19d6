"""Registries that nobody configured: which names are served, and how many at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mirror.interfaces import Clock
from mirror.oci.errors import Denied, NameUnknown, Unavailable
from mirror.oci.reference import Repository
from mirror.wrappers.on_demand import OnDemand, Opened, refuse_private
from mirror.wrappers.routed import Routed

from ..fakes import FakeRegistry
from ..waiting import eventually


class House:
    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self.now = 0.0
        self.made: list[str] = []
        self.closed: list[str] = []
        self.busy: set[str] = set()
        self.registries: dict[str, FakeRegistry] = {}
        self.on_demand = OnDemand(self._open, Clock(monotonic=lambda: self.now), most)

    def _open(self, name: str) -> Opened:
        self.made.append(name)
        folder = self._folder / str(len(self.made))
        folder.mkdir()
        registry = self.registries[name] = FakeRegistry(folder)
        registry.add_manifest(b"{}", "1")

        async def close() -> None:
            self.closed.append(name)

        return Opened(registry, lambda: name not in self.busy, close)

    async def ask(self, name: str) -> None:
        await self.on_demand.tags(Repository(name, "app"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, most=2)


async def test_a_registry_is_made_once_and_closed_at_the_end(house: House) -> None:
    await house.ask("quay.io")
    await house.ask("quay.io")
    await house.ask("ghcr.io")
    assert house.made == ["quay.io", "ghcr.io"]
    await house.on_demand.close()
    assert sorted(house.closed) == ["ghcr.io", "quay.io"]


async def test_the_longest_unused_is_closed_for_a_new_one(house: House) -> None:
    for name in ("a.io", "b.io", "a.io"):
        await house.ask(name)
    house.now = 60
    await house.ask("c.io")
    assert house.closed == ["b.io"]
    await house.ask("b.io")
    assert house.closed == ["b.io", "a.io"]


async def test_one_in_use_is_not_closed(house: House) -> None:
    await house.ask("a.io")
    await house.ask("b.io")
    house.registries["a.io"].waits["tags"] = asyncio.Event()
    asking = asyncio.create_task(house.ask("a.io"))
    await eventually(lambda: len(house.registries["a.io"].asked) == 2)
    house.busy.add("b.io")  # a fill goes on, though its client left
    house.now = 60
    with pytest.raises(Unavailable, match="2 registries") as refused:
        await house.ask("c.io")
    assert refused.value.retry_after
    house.busy.clear()
    await house.ask("c.io")
    assert house.closed == ["b.io"]
    house.registries["a.io"].waits["tags"].set()
    await asking


async def test_one_used_just_now_is_not_closed(house: House) -> None:
    for name in ("a.io", "b.io"):
        await house.ask(name)
    with pytest.raises(Unavailable):
        await house.ask("c.io")
    assert house.closed == []


@pytest.mark.parametrize("name", ["quay.io", "registry.example.com", "a-b.co.uk:8443", "xn--x.de"])
def test_public_names(name: str) -> None:
    refuse_private(name)


@pytest.mark.parametrize(
    "name",
    [
        *("127.0.0.1", "127.1", "10.0.0.1:5000", "2130706433", "0x7f.1", "0x7f000001", "1.2.3.0x4"),
        *("[::1]", "::1", "localhost", "localhost:5000", "registry", "registry:5000"),
        *("metadata.google.internal", "printer.local", "a.localhost", "1.0.0.127.in-addr.arpa"),
        *("quay.io.", "-a.io", "a..io", "a_b.io", "a.b.c:123456", "quay.io/x", "QUAY.IO", ""),
    ],
)
async def test_f63_f64_names_that_are_not_public_are_denied(house: House, name: str) -> None:
    with pytest.raises(Denied, match="public names only"):
        await house.ask(name)
    assert house.made == []


async def test_what_is_configured_is_never_made_on_demand(house: House, tmp_path: Path) -> None:
    routed = Routed({"docker.io": FakeRegistry(tmp_path)}, house.on_demand)
    with pytest.raises(NameUnknown):
        await routed.tags(Repository("docker.io", "library/redis"))
    await routed.tags(Repository("quay.io", "app"))
    assert house.made == ["quay.io"]
