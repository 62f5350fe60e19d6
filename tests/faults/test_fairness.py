"""What one client does costs the others nothing: while it misbehaves, a neighbour's pull of a small
image is answered at once where it is cached, and about as soon as the registry answers where not.

What is promised is a bound, with much room above what a quiet machine takes. Each is measured a
few times, and the best counts: others use this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from . import neighbourhood
from .client import digest_of
from .house import House, Mirror
from .neighbourhood import Misbehaves, process

WARM = 0.05  # seconds for a pull of what is cached: a tag, a manifest, a config, a layer
COLD = 2.0  # seconds beside the registry's own time
WARM_TRIES = 40  # each is short, and others use this machine, too
COLD_TRIES = 5

VICTIM = "127.0.0.1"
STRANGERS = ("127.0.0.2", "127.0.0.3")


@contextlib.asynccontextmanager
async def connected(mirror: Mirror) -> AsyncIterator[Callable[[str, str], object]]:
    """A neighbour's client: asks over one connection, and fails when it is not answered with 200
    and the right bytes."""
    reader, writer = await asyncio.open_connection(mirror.address, 5000, local_addr=(VICTIM, 0))

    async def ask(method: str, path: str) -> bytes:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: m\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in head.partition("\r\n")[0], f"{method} {path}: {head}"
        length = int(head.partition("content-length: ")[2].split("\r\n")[0])
        return await reader.readexactly(length) if method == "GET" else b""

    try:
        yield ask
    finally:
        writer.close()


async def pull(mirror: Mirror, name: str) -> float:
    """Pulls an image as a client does; how many seconds that took."""
    began = time.monotonic()
    async with connected(mirror) as ask:
        await ask("HEAD", f"/v2/{name}/manifests/1")
        manifest = json.loads(await ask("GET", f"/v2/{name}/manifests/1"))
        for blob in (manifest["config"], *manifest["layers"]):
            data = await ask("GET", f"/v2/{name}/blobs/{blob['digest']}")
            assert digest_of(data) == blob["digest"]
    return time.monotonic() - began


async def best(tries: Sequence[str], mirror: Mirror, within: float) -> float:
    """The shortest time of these pulls; no more are tried once one was within the bound."""
    times = []
    for name in tries:
        async with asyncio.timeout(30):
            times.append(await pull(mirror, name))
        if times[-1] <= within:
            break
    return min(times)


async def neighbours_are_served(
    mirror: Mirror, latency: float, misbehaves: Misbehaves, sources: Sequence[str] = STRANGERS
) -> None:
    """Fails when somebody who `misbehaves` costs the others more than is promised."""
    for name in ("small/warm", "many/warm"):
        await pull(mirror, name)
    async with process("client", misbehaves.__name__, mirror.url, *sources):
        cold = (f"small/cold-{number}" for number in itertools.count())
        for _ in range(3):  # at once, and when what was asked for has begun to come
            took = await best([next(cold) for _ in range(COLD_TRIES)], mirror, COLD + 6 * latency)
            assert took <= COLD + 6 * latency
            assert await best(["small/warm"] * WARM_TRIES, mirror, WARM) <= WARM
            await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def neighbourhood_of(house: House, latency: float, **keys: object) -> AsyncIterator[Mirror]:
    """A mirror of docker.io and two others, whose registries answer after `latency` seconds."""
    async with process("registries", "3", str(latency)) as urls:
        others = {
            name: {"endpoints": [{"url": url}]}
            for name, url in zip(("slow.example", "slower.example"), urls[1:], strict=True)
        }
        mirror = await house.mirror(urls[0], registries=others, **keys)
        yield mirror
        mirror.kill()  # what was asked for has no end


@pytest.mark.parametrize(
    "misbehaves",
    [
        neighbourhood.nothing,
        neighbourhood.slow_readers,
        neighbourhood.idle_connections,
        neighbourhood.leaves,
        neighbourhood.ranges,
        neighbourhood.stays,
        neighbourhood.two_registries,
        neighbourhood.looks_at_an_image,
        neighbourhood.asks_in_vain,
    ],
    ids=lambda misbehaves: misbehaves.__name__,
)
async def test_a_client_that_misbehaves_costs_its_neighbours_nothing(
    house: House, misbehaves: Misbehaves
) -> None:
    async with neighbourhood_of(house, 0.0) as mirror:
        await neighbours_are_served(mirror, 0.0, misbehaves)


async def test_a_flood_of_questions_is_answered_in_turn(house: House) -> None:
    async with neighbourhood_of(house, 0.5) as mirror:
        await neighbours_are_served(mirror, 0.5, neighbourhood.made_up_tags)


async def test_one_registry_s_trouble_is_not_another_s_behind_a_shared_address(
    house: House,
) -> None:
    async with neighbourhood_of(house, 0.0) as mirror:
        await neighbours_are_served(mirror, 0.0, neighbourhood.one_registry, [VICTIM])


@contextlib.asynccontextmanager
async def guarded(house: House, login: str = "", workers: int = 1) -> AsyncIterator[Mirror]:
    """A mirror of a registry that wants tokens, whose realm is silent about some repositories."""
    docker_io: dict[str, object] = {}
    if login:
        password = house.folder / "password"
        password.write_text("right")
        docker_io["credentials"] = {"username": login, "password_file": str(password)}
    async with process("guarded", "1", "0.0") as (url,):
        mirror = await house.mirror(url, docker_io=docker_io, workers=workers)
        yield mirror
        mirror.kill()


@pytest.mark.parametrize("login", ["", "ann"], ids=["anonymous", "login"])
async def test_a_realm_s_silence_for_one_client_costs_its_neighbours_nothing(
    house: House, login: str
) -> None:
    async with guarded(house, login) as mirror:
        await neighbours_are_served(mirror, 0.0, neighbourhood.asks_in_vain)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_realm_s_silence_right_after_a_start_costs_its_neighbours_little(
    house: House, workers: int
) -> None:
    """Then the login is not known to be good, and few may show it."""
    async with guarded(house, "ann", workers) as mirror:
        asks = neighbourhood.asks_in_vain.__name__
        async with process("client", asks, mirror.url, STRANGERS[0]):
            names = [f"small/cold-{number}" for number in range(4)]
            async with asyncio.timeout(20):
                assert max([await pull(mirror, name) for name in names]) <= COLD + 2.0
