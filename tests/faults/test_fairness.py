"""What one client does costs the others nothing: while it misbehaves, a neighbour's pull of a small
image is answered at once where it is cached, and about as soon as the registry answers where not.

What is promised is a bound, with much room above what a quiet machine takes. Each is measured a
few times, and the best counts: others use this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ..e2e.programs import loopback_address, unavailable
from ..redis_server import RedisServer
from . import misbehaving, neighbourhood
from .client import digest_of
from .house import House, Mirror
from .misbehaving import Misbehaves
from .neighbourhood import program
from .servers import asking, name_server

WARM = 0.05  # seconds for a pull of what is cached: a tag, a manifest, a config, a layer
COLD = 2.0  # seconds beside the registry's own time
LATENCY = 0.1  # seconds until a registry answers: what has to be asked for is not warm
PAUSES = (0, 1)  # seconds before each round: at once, and when what was asked for comes
WARM_TRIES = 40  # each is short, and others use this machine, too
COLD_TRIES = 5

# Which a blob of `claims` or an image of `many` would fill.
SMALL_CACHE = {"storage": {"max_size": "64MiB"}}
COOL_DOWN = {"name": "cool-down", "allow": "gated/*", "min_age": "1h"}

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
    """The shortest time of these pulls; no more are tried once one was within the bound. The first
    may wait for a fill that drips until it is given up, which is after 30 s."""
    times = []
    for name in tries:
        async with asyncio.timeout(60):
            times.append(await pull(mirror, name))
        if times[-1] <= within:
            break
    return min(times)


@dataclass(frozen=True)
class Kind:
    """Of client that misbehaves. `does`: what it gets through at least while it is watched, as it
    (see misbehaving.py) or the registries (see neighbourhood.py) count. `keys`: of the mirror's
    configuration."""

    misbehaves: Misbehaves
    does: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)


async def neighbours_are_served(
    house: House,
    kind: Kind,
    *others: str,
    latency: float = LATENCY,
    sources: Sequence[str] = STRANGERS,
    guarded: Sequence[str] = (),
    **keys: Any,
) -> None:
    """Fails when somebody who misbehaves costs the others more than is promised; and when it did
    not get to misbehave. The mirror is one of docker.io, which has an accelerator too, and of two
    others, whose registries answer after `latency` seconds. `others`: URLs that who misbehaves is
    told beside the mirror's."""
    name = kind.misbehaves.__name__
    async with program("neighbourhood", "3", str(latency), *guarded) as registries:
        urls = registries.words
        slow = zip(("slow.example", "slower.example"), urls[1:3], strict=True)
        mirror = await house.mirror(
            {"url": urls[3], "trust": "content"},
            urls[0],
            registries={name: {"endpoints": [{"url": url}]} for name, url in slow},
            **kind.keys,
            **keys,
        )
        await pull(mirror, "small/warm")
        async with program("misbehaving", name, mirror.url, *others, *sources) as client:
            cold = iter(neighbourhood.COLD)
            for pause in PAUSES:
                await asyncio.sleep(pause)
                took = await best(
                    [next(cold) for _ in range(COLD_TRIES)], mirror, COLD + 6 * latency
                )
                assert took <= COLD + 6 * latency
                assert await best(["small/warm"] * WARM_TRIES, mirror, WARM) <= WARM
            done = {**await client.end()}
        mirror.kill()  # what was asked for has no end
        done |= await registries.end()
    least = {what: min(done.get(what, 0), count) for what, count in kind.does.items()}
    assert least == kind.does


KINDS = [
    Kind(misbehaving.nothing),
    Kind(misbehaving.slow_readers, {"requests": 500, "bytes": 20_000}),
    Kind(misbehaving.idle_connections, {"connections": 1000}),
    Kind(misbehaving.new_connections, {"connections": 1000}),
    Kind(misbehaving.leaves, {"requests": 80}),
    Kind(misbehaving.ranges, {"requests": 60, "bytes": 1000}),
    Kind(misbehaving.stays, {"requests": 80, "bytes": 1_000_000}),
    Kind(misbehaving.two_registries, {"requests": 80, "bytes": 1_000_000}),
    Kind(misbehaving.looks_at_an_image, {"requests": 2}),
    Kind(misbehaving.looks_at_an_image, {"requests": 2}, SMALL_CACHE),
    Kind(misbehaving.claims, {"requests": 50, "bytes": 5_000}, SMALL_CACHE),
    Kind(misbehaving.strangers_junk, {"requests": 40, "junk": 5}),
    Kind(misbehaving.asks_in_vain, {"requests": 160}),
    Kind(misbehaving.wrong_requests, {"400": 20, "strict": 20}),
    Kind(misbehaving.odd_manifests, {"502": 5, "200": 5}),
    Kind(misbehaving.words_of_links, {"200": 20, "links": 20}),
    Kind(misbehaving.wide_manifests, {"200": 2}),
    Kind(misbehaving.many_tags, {"200": 100}, {"access": [COOL_DOWN]}),
    Kind(misbehaving.made_up_digests, {"404": 100}),
    Kind(misbehaving.odd_names, {"400": 100}),
    Kind(misbehaving.foreign_pages, {"403": 100}),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.misbehaves.__name__)
async def test_a_client_that_misbehaves_costs_its_neighbours_nothing(
    house: House, kind: Kind
) -> None:
    await neighbours_are_served(house, kind)


async def test_a_flood_of_questions_is_answered_in_turn(house: House) -> None:
    kind = Kind(misbehaving.made_up_tags, {"requests": 300, "absent": 10})
    await neighbours_are_served(house, kind, latency=0.5)


async def test_one_registry_s_trouble_is_not_another_s_behind_a_shared_address(
    house: House,
) -> None:
    kind = Kind(misbehaving.one_registry, {"requests": 40, "bytes": 1_000_000})
    await neighbours_are_served(house, kind, sources=[VICTIM])


async def test_who_writes_to_a_shared_redis_costs_its_neighbours_nothing(
    house: House, tmp_path: Path
) -> None:
    kind = Kind(misbehaving.writes_records, {"records": 200, "public": 20})
    with RedisServer(tmp_path / "redis") as redis:
        redis.start()
        await neighbours_are_served(house, kind, redis.url, tags={"store": redis.url})


async def test_made_up_registries_cost_the_others_nothing(house: House) -> None:
    if os.geteuid() != 0:
        unavailable("to run this test: be root, for a name server of its own")
    kind = Kind(misbehaving.made_up_registries, {"requests": 64})
    address = loopback_address()
    async with name_server(address) as names:
        names.mute = True
        wrap = asking(address, house.folder)
        await neighbours_are_served(house, kind, allow_any_registry=True, wrap=wrap)
        assert names.asked >= 8


async def test_what_another_client_has_asked_for_before_is_not_waited_for_in_its_turn(
    house: House,
) -> None:
    """It waits behind all else that this client has asked for."""
    asks = misbehaving.asks_before_others.__name__
    async with program("neighbourhood", "1", "0.0") as registries:
        mirror = await house.mirror(*registries.words[:1])
        async with program("misbehaving", asks, mirror.url, STRANGERS[0]):
            last = neighbourhood.COLD[: -COLD_TRIES - 1 : -1]
            assert await best(last, mirror, 2 * COLD) <= 2 * COLD
        mirror.kill()


async def test_what_another_client_has_begun_to_fetch_is_not_waited_for_in_its_turn(
    house: House,
) -> None:
    takes = misbehaving.takes_layers_before_others.__name__
    async with program("neighbourhood", "1", "0.0") as registries:
        mirror = await house.mirror(*registries.words[:1])
        async with connected(mirror) as ask:  # it makes the registry know their layers
            for name in neighbourhood.COLD:
                await ask("GET", f"/v2/{name}/manifests/1")
        async with program("misbehaving", takes, mirror.url, STRANGERS[0]):
            assert await pull(mirror, neighbourhood.COLD[-1]) <= 2 * COLD
        mirror.kill()


def login(house: House) -> Mapping[str, object]:
    """Of docker.io's, with a password that nobody has shown yet."""
    password = house.folder / "password"
    password.write_text("right")
    return {"credentials": {"username": "ann", "password_file": str(password)}}


@pytest.mark.parametrize("has_login", [False, True], ids=["anonymous", "login"])
async def test_a_realm_s_silence_for_one_client_costs_its_neighbours_nothing(
    house: House, has_login: bool
) -> None:
    kind = Kind(misbehaving.asks_in_vain, {"requests": 160, "mute": 3})
    docker_io = login(house) if has_login else {}
    await neighbours_are_served(house, kind, guarded=["guarded"], docker_io=docker_io)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_realm_s_silence_right_after_a_start_costs_its_neighbours_little(
    house: House, workers: int
) -> None:
    """Then the login is not known to be good, and few may show it."""
    asks = misbehaving.asks_in_vain.__name__
    async with program("neighbourhood", "1", "0.0", "guarded") as registries:
        mirror = await house.mirror(registries.words[0], docker_io=login(house), workers=workers)
        async with program("misbehaving", asks, mirror.url, STRANGERS[0]):
            names = [f"small/cold-{number}" for number in range(4)]
            async with asyncio.timeout(20):
                assert max([await pull(mirror, name) for name in names]) <= COLD + 2.0
        mirror.kill()  # what was asked for has no end
