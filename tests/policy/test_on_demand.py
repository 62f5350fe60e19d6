"""Registries that nobody configured: which names are served, and how many at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from mirror.clock import Clock
from mirror.contracts.context import RequestContext
from mirror.oci.errors import Denied, NameUnknown, Unavailable
from mirror.oci.reference import Repository
from mirror.policy.on_demand import OnDemand, Opened, refuse_private
from mirror.policy.routed import Routed

from ..fakes import CONTEXT, FakeRegistry, request_of
from ..waiting import eventually

A, B = request_of("a"), request_of("b")


class Silence(asyncio.Event):
    """What an answer waits for that never comes, until whoever asks is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.asking: asyncio.Future[Literal[True]] = asyncio.get_running_loop().create_future()

    async def wait(self) -> Literal[True]:
        return await self.asking


class Opener:
    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self.now = 0.0
        self.made: list[str] = []
        self.closed: list[str] = []
        self.busy: set[str] = set()
        self.registries: dict[str, FakeRegistry] = {}
        self.fails: set[str] = set()
        self.never: set[str] = set()
        self.on_demand = OnDemand(self._open, Clock(monotonic=lambda: self.now), most)

    def _open(self, name: str) -> Opened:
        self.made.append(name)
        folder = self._folder / str(len(self.made))
        folder.mkdir()
        registry = self.registries[name] = FakeRegistry(folder)
        registry.add_manifest(b"{}", "1")
        silence = Silence()
        if name in self.fails:
            registry.failures["tags"] = Unavailable("its name cannot be resolved")
        if name in self.never:
            registry.waits["tags"] = silence

        async def close() -> None:
            self.closed.append(name)
            silence.asking.cancel()

        return Opened(registry, lambda: name not in self.busy, close)

    async def ask(self, name: str, context: RequestContext = CONTEXT) -> None:
        await self.on_demand.tags(context, Repository(name, "app"))


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(tmp_path, most=2)


async def test_a_registry_is_made_once_and_closed_at_the_end(opener: Opener) -> None:
    await opener.ask("quay.io")
    await opener.ask("quay.io")
    await opener.ask("ghcr.io")
    assert opener.made == ["quay.io", "ghcr.io"]
    await opener.on_demand.close()
    assert sorted(opener.closed) == ["ghcr.io", "quay.io"]


async def test_the_longest_unused_is_closed_for_a_new_one(opener: Opener) -> None:
    for name in ("a.io", "b.io", "a.io"):
        await opener.ask(name)
    opener.now = 60
    await opener.ask("c.io")
    assert opener.closed == ["b.io"]
    await opener.ask("b.io")
    assert opener.closed == ["b.io", "a.io"]


async def test_one_in_use_is_not_closed(opener: Opener) -> None:
    await opener.ask("a.io")
    await opener.ask("b.io")
    opener.registries["a.io"].waits["tags"] = asyncio.Event()
    asking = asyncio.create_task(opener.ask("a.io"))
    await eventually(lambda: len(opener.registries["a.io"].asked) == 2)
    opener.busy.add("b.io")  # a fill goes on, though its client left
    opener.now = 60
    with pytest.raises(Unavailable, match="2 registries") as refused:
        await opener.ask("c.io")
    assert refused.value.retry_after
    opener.busy.clear()
    await opener.ask("c.io")
    assert opener.closed == ["b.io"]
    opener.registries["a.io"].waits["tags"].set()
    await asking


async def test_one_used_just_now_is_not_closed(opener: Opener) -> None:
    for name in ("a.io", "b.io"):
        await opener.ask(name)
    with pytest.raises(Unavailable):
        await opener.ask("c.io")
    assert opener.closed == []


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
async def test_f63_f64_names_that_are_not_public_are_denied(opener: Opener, name: str) -> None:
    with pytest.raises(Denied, match="public names only"):
        await opener.ask(name)
    assert opener.made == []


async def test_one_that_never_answered_gives_its_place_at_once(opener: Opener) -> None:
    opener.fails.update({"a.io", "b.io"})
    for name in ("a.io", "b.io"):
        with pytest.raises(Unavailable):
            await opener.ask(name)
    await opener.ask("c.io")
    assert opener.closed == ["a.io"]


async def test_names_that_one_client_makes_up_keep_no_other_from_theirs(opener: Opener) -> None:
    opener.never.update({"a.io", "b.io"})
    asking = [asyncio.create_task(opener.ask(name, A)) for name in ("a.io", "b.io")]
    await eventually(lambda: len(opener.registries) == 2)
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="2 registries"):
        await opener.ask("c.io", A)
    await opener.ask("quay.io", B)
    assert opener.closed == ["a.io"]
    with pytest.raises(Unavailable, match="not answered"):
        await asking[0]
    with pytest.raises(Unavailable, match="2 registries"):
        await opener.ask("ghcr.io", B)  # as many as the other has
    asking[1].cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_one_that_answers_is_not_closed_while_it_is_asked(opener: Opener) -> None:
    for name in ("a.io", "b.io"):
        await opener.ask(name, A)
        opener.registries[name].waits["tags"] = asyncio.Event()
    asking = [asyncio.create_task(opener.ask(name, A)) for name in ("a.io", "b.io")]
    await eventually(lambda: all(len(each.asked) == 2 for each in opener.registries.values()))
    with pytest.raises(Unavailable, match="2 registries"):
        await opener.ask("c.io", B)
    for name in ("a.io", "b.io"):
        opener.registries[name].waits["tags"].set()
    await asyncio.gather(*asking)


async def test_what_is_configured_is_never_made_on_demand(opener: Opener, tmp_path: Path) -> None:
    routed = Routed({"docker.io": FakeRegistry(tmp_path)}, opener.on_demand)
    with pytest.raises(NameUnknown):
        await routed.tags(CONTEXT, Repository("docker.io", "library/redis"))
    await routed.tags(CONTEXT, Repository("quay.io", "app"))
    assert opener.made == ["quay.io"]
