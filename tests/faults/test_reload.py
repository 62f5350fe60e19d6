"""Another configuration under a mirror that serves: no pull is cut, and it counts from then on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ..commands import Done, ran
from ..fakes.hub import Fault, basic, hang, status
from ..redis_server import RedisServer
from ..waiting import eventually
from .house import House, Mirror, digest_of

MIB = 1 << 20
SOON = 20.0  # seconds, on a busy machine
LAYER = b"layer" * 1000

one_and_two = pytest.mark.parametrize("workers", [1, 2])


def write(mirror: Mirror, **keys: Any) -> None:
    """Other values for these keys of its mirror.yaml; None: the key is left out."""
    written = {**json.loads(mirror.config.read_text()), **keys}
    mirror.config.write_text(json.dumps({key: v for key, v in written.items() if v is not None}))


def registry(*urls: str, **more: Any) -> dict[str, Any]:
    return {"endpoints": [{"url": url, "trust": "tags"} for url in urls], **more}


async def reload(mirror: Mirror, *words: str) -> Done:
    return await ran("reload", *words, "--config", mirror.config)


async def reloaded(mirror: Mirror, **keys: Any) -> Done:
    """As `write`, and the mirror goes by it."""
    write(mirror, **keys)
    done = await reload(mirror)
    assert done.status == 0, done.stderr
    return done


async def statuses(mirror: Mirror, reference: str, *, name: str, times: int = 12) -> set[int]:
    """Of as many asks, so that each worker answers some."""
    asks = (mirror.manifest(reference, name=name) for _ in range(times))
    return {answer.status for answer in await asyncio.gather(*asks)}


@one_and_two
async def test_a_transfer_outlives_the_registry_that_it_comes_from(
    house: House, workers: int
) -> None:
    data = os.urandom(24 * MIB)
    digest = house.hub.add_blob(data)
    house.hub.add_image("library/redis", "7", LAYER)
    rest = asyncio.Event()
    house.hub.fail("blobs", hang(rest, data[:MIB], announced=len(data)))
    other = await house.another_hub()
    other.add_image("acme/app", "1", LAYER)
    mirror = await house.mirror(workers=workers)
    async with mirror.connection() as client:
        await client.get(f"/v2/library/redis/blobs/{digest}")
        code, headers = await client.head()
        assert code == 200
        begun = await client.reader.readexactly(1000)
        await reloaded(
            mirror,
            registries={"ghcr.io": registry(other.url)},
            default_registry="ghcr.io",
        )
        assert await statuses(mirror, "1", name="acme/app") == {200}
        assert await statuses(mirror, "7?ns=docker.io", name="library/redis") == {403}
        rest.set()
        left = int(headers["content-length"]) - len(begun)
        assert digest_of(begun + await client.reader.readexactly(left)) == digest


@one_and_two
async def test_a_mistake_leaves_all_as_it_was_and_its_line_is_named(
    house: House, workers: int
) -> None:
    house.hub.add_image("library/redis", "7", LAYER)
    mirror = await house.mirror(workers=workers)
    whole = mirror.config.read_text()
    mirror.config.write_text(f"{whole[:-1]},\n'ofline': 'true'}}\n")
    done = await reload(mirror, "--json")
    mistake = f"{mirror.config}:2: ofline: found a key that is not known, write offline"
    assert done.status == 1
    assert mistake in done.stderr
    told = json.loads(done.stdout)
    assert (told["result"], told["words"]) == ("refused", [mistake])
    assert "goes on with the configuration that it has" in done.stderr
    await eventually(lambda: mirror.events("configuration_mistake"))  # the log is written behind
    assert [line["mistake"] for line in mirror.events("configuration_mistake")] == [mistake]
    assert await mirror.metric("config_reloads_total", result="refused") == 1
    assert await statuses(mirror, "7", name="library/redis") == {200}


async def test_an_empty_file_takes_no_rule_and_no_login_away(house: House) -> None:
    """Editors, and a disk that is full, leave one for a moment or longer."""
    house.hub.add_image("library/redis", "7", LAYER)
    mirror = await house.mirror(access=[{"name": "none", "deny": "redis"}])
    assert await statuses(mirror, "7", name="library/redis") == {403}
    mirror.config.write_text("\n")
    done = await reload(mirror)
    assert done.status == 1
    assert f"{mirror.config}:1: found an empty file" in done.stderr
    assert await statuses(mirror, "7", name="library/redis") == {403}


async def test_a_file_that_is_no_yaml_is_told_by_the_command_and_in_the_log(house: House) -> None:
    mirror = await house.mirror()
    mirror.config.write_text("listen: [\n")
    done = await reload(mirror)
    assert done.status == 1
    assert f"{mirror.config}:2" in done.stderr
    os.kill(mirror.pid, signal.SIGHUP)
    await eventually(lambda: bool(mirror.events("configuration_mistake")), SOON)
    assert (await mirror.ask("/v2/")).status == 200


@one_and_two
async def test_what_is_denied_now_is_denied_at_once(house: House, workers: int) -> None:
    house.hub.add_image("acme/secret", "1", LAYER)
    mirror = await house.mirror(workers=workers)
    assert await statuses(mirror, "1", name="acme/secret") == {200}
    digest = (await mirror.manifest("1", name="acme/secret")).headers["Docker-Content-Digest"]
    assert await statuses(mirror, digest, name="acme/secret") == {200}  # and answered again
    await reloaded(mirror, access=[{"name": "closed", "deny": "acme/*"}])
    assert await statuses(mirror, digest, name="acme/secret") == {403}
    assert await statuses(mirror, "1", name="acme/secret") == {403}
    await reloaded(mirror, access=None)
    assert await statuses(mirror, digest, name="acme/secret") == {200}


@one_and_two
async def test_a_new_registry_and_another_endpoint_are_asked(house: House, workers: int) -> None:
    gone = await house.another_hub()
    mirror = await house.mirror(gone, workers=workers)
    await gone.__aexit__(None, None, None)
    house.hubs.remove(gone)
    for name in ("library/redis", "owner/app"):
        house.hub.add_image(name, "1", LAYER)
    assert await statuses(mirror, "1", name="library/redis", times=2) == {503}
    await reloaded(
        mirror,
        registries={"docker.io": registry(house.hub.url), "ghcr.io": registry(house.hub.url)},
    )
    assert await statuses(mirror, "1", name="library/redis") == {200}
    assert await statuses(mirror, "1", name="ghcr.io/owner/app") == {200}


async def test_what_was_learnt_of_an_endpoint_outlives_a_reload(house: House) -> None:
    """A tag's HEAD needs a token, which is not asked for again; the new endpoint's is."""
    mirror = await house.mirror()
    for number in range(4):
        house.hub.add_image("library/redis", str(number), LAYER)
    assert (await mirror.manifest("0")).status == 200
    tokens = house.hub.count("realm")
    await reloaded(mirror, prefetch=False)
    assert (await mirror.manifest("1")).status == 200
    assert house.hub.count("realm") == tokens
    changed = {"url": house.hub.url, "connections": 7}
    await reloaded(mirror, registries={"docker.io": {"endpoints": [changed]}})
    assert (await mirror.manifest("2")).status == 200
    assert house.hub.count("realm") == tokens + 1


@one_and_two
async def test_a_secret_is_read_again(house: House, tmp_path: Path, workers: int) -> None:
    password = tmp_path / "password"
    password.write_text("old\n")
    house.hub.challenge, house.hub.login = "basic", ("ann", "old")
    house.hub.anonymous = False
    for number in range(40):
        house.hub.add_image("acme/app", str(number), LAYER)
    login = {"username": "ann", "password_file": str(password)}
    mirror = await house.mirror(workers=workers, docker_io={"credentials": login})
    assert (await mirror.manifest("0", name="acme/app")).status == 200
    password.write_text("new\n")
    house.hub.login = ("ann", "new")
    house.hub.requests.clear()
    await reload(mirror)
    answers = [await mirror.manifest(str(number), name="acme/app") for number in range(1, 13)]
    assert {answer.status for answer in answers} == {200}
    shown = {one.headers.get("Authorization") for one in house.hub.requests}
    assert basic("ann", "old") not in shown


@one_and_two
async def test_what_needs_a_restart_is_named_and_stays(house: House, workers: int) -> None:
    house.hub.add_image("library/redis", "7", LAYER)
    mirror = await house.mirror(workers=workers)
    other = f"{mirror.address}:5077"
    keys = {"listen": other, "workers": 3, "storage": {"path": str(mirror.storage), "scrub": "1h"}}
    done = await reloaded(mirror, offline=True, **keys)
    named = ["listen", "workers", "storage.scrub"]
    assert ", ".join(named) in done.stderr
    assert mirror.events("configuration_applied")[-1]["needs_restart"] == named
    assert await statuses(mirror, "7", name="library/redis") == {503}  # offline: that counts
    write(mirror, storage={"path": str(mirror.folder / "elsewhere")})
    os.kill(mirror.pid, signal.SIGHUP)
    await eventually(lambda: len(mirror.events("configuration_applied")) == 2, SOON)
    assert "storage.path" in mirror.events("configuration_applied")[-1]["needs_restart"]
    assert not (mirror.folder / "elsewhere").exists()


@one_and_two
async def test_a_hangup_has_it_read_again(house: House, workers: int) -> None:
    house.hub.add_image("library/redis", "7", LAYER)
    mirror = await house.mirror(workers=workers)
    loaded = await mirror.metric("config_loaded_timestamp_seconds")
    write(mirror, access=[{"name": "none", "deny": "*"}])
    for pid in mirror.processes():  # as a terminal sends it, to the whole group
        os.kill(pid, signal.SIGHUP)
    await eventually(lambda: bool(mirror.events("configuration_applied")), SOON)
    assert await statuses(mirror, "7", name="library/redis") == {403}
    assert await mirror.metric("config_reloads_total", result="applied") == 1
    assert await mirror.metric("config_loaded_timestamp_seconds") > loaded


@one_and_two
async def test_many_reloads_leave_nothing_behind(house: House, workers: int) -> None:
    """Mirrors come to rest with no descriptor more than they had at the start: see House."""
    house.hub.add_image("library/redis", "7", LAYER)
    mirror = await house.mirror(workers=workers)
    assert await statuses(mirror, "7", name="library/redis") == {200}
    for number in range(10):
        endpoint = {"url": house.hub.url, "connections": 5 + number}
        registries = {"docker.io": {"endpoints": [endpoint]}, f"r{number}.example": None}
        await reloaded(mirror, registries=registries)
        assert await statuses(mirror, "7", name="library/redis", times=2) == {200}
    done = await asyncio.gather(*(reload(mirror) for _ in range(10)))
    assert {one.status for one in done} == {0}
    assert await mirror.metric("config_reloads_total", result="applied") == 20
    databases = [_databases(pid) for pid in mirror.processes()]
    assert max(databases) <= 20, databases


def _databases(pid: int) -> int:
    links = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]
    return sum(link.endswith(".db") for link in links)


async def test_a_worker_that_died_meanwhile_begins_with_the_new_configuration(
    house: House,
) -> None:
    house.hub.add_image("library/redis", "7", LAYER)
    mirror = await house.mirror(workers=2)
    write(mirror, access=[{"name": "none", "deny": "*"}])
    victim = mirror.events("worker_started")[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    under_way = asyncio.create_task(reload(mirror))
    await eventually(lambda: bool(mirror.events("worker_started")), SOON)
    os.kill(victim, signal.SIGKILL)
    assert (await under_way).status == 0
    await eventually(mirror.is_ready, SOON)
    assert await statuses(mirror, "7", name="library/redis", times=30) == {403}


async def test_a_reload_needs_no_redis(house: House, tmp_path: Path) -> None:
    house.hub.add_image("library/redis", "7", LAYER)
    with RedisServer(tmp_path / "redis").start() as redis:
        mirror = await house.mirror(tags={"store": redis.url})
        assert (await mirror.manifest("7")).status == 200
        redis.kill()
        await reloaded(mirror, access=[{"name": "none", "deny": "*"}])
        assert (await mirror.manifest("7")).status == 403
    assert await mirror.stop() == 0  # its connections to Redis were not there when it started


async def test_a_mirror_that_does_not_run_is_told_clearly(house: House) -> None:
    mirror = await house.mirror()
    assert await mirror.stop() == 0
    for _ in range(2):
        done = await reload(mirror)
        assert done.status == 1
        assert done.stderr == f"registry-mirror: no mirror runs that serves {mirror.storage}\n"
    await mirror.start()
    mirror.kill()  # which leaves its socket
    assert "no mirror runs" in (await reload(mirror)).stderr
    await mirror.start()
    assert (await reload(mirror)).status == 0


async def test_a_file_that_the_mirror_was_not_started_with_is_not_said_to_count(
    house: House,
) -> None:
    mirror = await house.mirror()
    other, same = mirror.folder / "other.yaml", mirror.folder / "same.yaml"
    other.write_text(mirror.config.read_text())
    same.symlink_to(mirror.config)
    done = await ran("reload", "--config", other)
    assert done.status == 1
    assert f"{mirror.config}, and goes by that as it is now: not by {other}" in done.stderr
    assert (await ran("reload", "--config", same)).status == 0


async def test_the_control_socket_is_for_its_user_alone(house: House) -> None:
    mirror = await house.mirror()
    assert (mirror.storage / "control.sock").stat().st_mode & 0o777 == 0o600


async def test_registries_that_clients_name_come_and_go(house: House) -> None:
    mirror = await house.mirror()
    path = "/v2/owner/app/manifests/1?ns=registry.invalid-mirror.example"
    assert (await mirror.ask(path)).status == 403
    await reloaded(mirror, allow_any_registry=True)
    assert "is not in the configuration" not in (await mirror.ask(path)).message
    await reloaded(mirror, allow_any_registry=None)
    assert (await mirror.ask(path)).status == 403


async def test_a_download_goes_on_with_the_endpoint_that_its_registry_has_by_then(
    house: House,
) -> None:
    """The old endpoint breaks off, and knows nothing more."""
    data = os.urandom(8 * MIB)
    old = await house.another_hub()
    old.redirects = False
    digest = old.add_blob(data)
    assert house.hub.add_blob(data) == digest
    go = asyncio.Event()
    old.fail("registry", hang(go, data[: len(data) // 2], announced=len(data)))
    mirror = await house.mirror(old)
    asked = asyncio.create_task(mirror.blob(digest))
    await eventually(lambda: old.count("registry", path=digest) > 0, SOON)
    await reloaded(mirror, registries={"docker.io": registry(house.hub.url)})
    old.fail("registry", status(500), times=1000)
    go.set()
    assert (await asked).is_whole(digest)


@one_and_two
async def test_other_limits_count_for_what_comes_next(house: House, workers: int) -> None:
    large = house.hub.add_blob(os.urandom(3 * MIB))
    mirror = await house.mirror(workers=workers, limits={"blob": "2MiB"})
    assert (await mirror.blob(large)).status == 403
    await reloaded(mirror, limits={"blob": "4MiB"})
    assert (await mirror.blob(large)).is_whole(large)


async def test_more_downloads_begin_when_more_may(house: House) -> None:
    house.partials = True  # the hub cuts what it had begun
    go = asyncio.Event()
    blobs = [os.urandom(MIB) for _ in range(4)]
    digests = [house.hub.add_blob(data) for data in blobs]
    house.hub.redirects = False
    for data in blobs:
        house.hub.fail("registry", hang(go, data[:1000], announced=len(data)))
    house.hub.challenge = "none"
    mirror = await house.mirror(limits={"fills": 2})

    async def running() -> float:
        return await mirror.metric("fills_running")

    async def are_running(count: int) -> bool:
        return await running() == count

    asks = [asyncio.create_task(mirror.blob(digest)) for digest in digests]
    await eventually(lambda: are_running(2), SOON)
    await reloaded(mirror, limits={"fills": 3})
    await eventually(lambda: are_running(3), SOON)
    go.set()
    answers = await asyncio.gather(*asks)
    assert {answer.status for answer in answers} == {200}


def in_two_parts(go: asyncio.Event, data: bytes) -> Fault:
    """All of the content, of which the second part waits."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:MIB])
        await go.wait()
        await response.write(data[MIB:])
        return response

    return answer


@one_and_two
async def test_a_body_that_comes_is_not_cut_when_its_endpoint_is_replaced(
    house: House, workers: int
) -> None:
    """The new endpoint lacks it."""
    data = os.urandom(8 * MIB)
    old, go = await house.another_hub(), asyncio.Event()
    digest = old.add_blob(data)
    old.fail("blobs", in_two_parts(go, data))
    mirror = await house.mirror(old, workers=workers)
    async with mirror.connection() as client:
        await client.get(f"/v2/library/redis/blobs/{digest}")
        _, headers = await client.head()
        begun = await client.reader.readexactly(1000)
        await reloaded(mirror, registries={"docker.io": registry(house.hub.url)})
        old.fail("registry", status(500), times=1000)
        go.set()
        left = int(headers["content-length"]) - len(begun)
        assert digest_of(begun + await client.reader.readexactly(left)) == digest


async def test_a_download_whose_client_has_left_outlives_its_registry(house: House) -> None:
    """It belongs to the mirror, and not to the request that began it."""
    data = os.urandom(8 * MIB)
    digest, go = house.hub.add_blob(data), asyncio.Event()
    house.hub.fail("blobs", hang(go, data[:MIB], announced=len(data)))
    mirror = await house.mirror()
    async with mirror.connection() as client:
        await client.get(f"/v2/library/redis/blobs/{digest}")
        await client.head()
        await client.reader.readexactly(1000)
    await eventually(lambda: bool(mirror.events("request")[1:]), SOON)
    gone = {"registries": {"ghcr.io": registry(house.hub.url)}, "default_registry": "ghcr.io"}
    await reloaded(mirror, **gone)
    for _ in range(3):  # nothing that was kept back is let go by more of them
        await reloaded(mirror)
    go.set()
    await eventually(lambda: bool(mirror.events("filled")), SOON)
