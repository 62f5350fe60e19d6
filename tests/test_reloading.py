"""A policy that takes another's place within a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mirror.app import policy as policies
from mirror.app.live import Live
from mirror.app.policy import policy_of
from mirror.app.reloading import Reloader
from mirror.app.resources import Process, Resources, resources, sharing_store
from mirror.app.workers.cradle import Cradle, spawned
from mirror.app.workers.parent import Workers
from mirror.config import Config, following, parse
from mirror.contracts.context import RequestContext
from mirror.contracts.events import BreakerSwitched, ConfigReloaded, EndpointLeft, LoginJudged
from mirror.contracts.registry import Reader
from mirror.events import Events
from mirror.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, RegistryError
from mirror.oci.reference import Repository
from mirror.threads import aside
from mirror.upstream.endpoint import Endpoint

from .fakes.hub import Hub
from .waiting import eventually

REDIS = Repository("docker.io", "library/redis")
CONTEXT = RequestContext("id", "192.0.2.1")
MIB = 1 << 20
ELSEWHERE: dict[str, Any] = {"registries": {"ghcr.io": {}}, "default_registry": "ghcr.io"}


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        hub.challenge, hub.redirects = "none", False
        yield hub


class Situation:
    """What a process has open, and configurations for it."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self._folder, self.hub = folder, hub

    def config(self, **keys: Any) -> Config:
        given = {
            "storage": {"path": str(self._folder / "store")},
            "registries": {"docker.io": {"endpoints": [{"url": self.hub.url}]}},
            **keys,
        }
        return parse(json.dumps(given), "mirror.yaml")

    def opened(self) -> Any:
        config = self.config()
        return resources(config, Process(set(config.registries)), sharing_store)


@pytest.fixture
def situation(tmp_path: Path, hub: Hub) -> Situation:
    return Situation(tmp_path, hub)


async def pulled(reader: Reader, digest: str, repository: Repository = REDIS) -> bytes:
    content = await reader.blob(CONTEXT, repository, Digest.parse(digest))
    try:
        there = 0
        while (limit := await content.readable(there)) > there:
            there = limit
        return content.pread(there, 0)
    finally:
        content.close()


async def test_a_policy_asks_nobody_before_it_has_begun(situation: Situation, hub: Hub) -> None:
    digest = hub.add_blob(b"layer")
    async with situation.opened() as opened:
        policy = policy_of(situation.config(), opened)
        with pytest.raises(Denied):
            await pulled(policy.serving.registry, digest)
        assert hub.requests == []
        policy.begin()
        assert await pulled(policy.serving.registry, digest) == b"layer"
        await policy.close()


async def test_a_policy_without_upstreams_asks_nobody_ever(situation: Situation, hub: Hub) -> None:
    digest = hub.add_blob(b"layer")
    async with situation.opened() as opened:
        policy = policy_of(situation.config(), opened.asking_nobody())
        policy.begin()
        with pytest.raises(Denied):
            await pulled(policy.serving.registry, digest)
        assert hub.requests == []
        await policy.close()


async def test_a_download_of_a_registry_that_is_gone_ends_before_its_upstream_does(
    situation: Situation, hub: Hub
) -> None:
    data = b"layer" * MIB
    digest, go = hub.add_blob(data), asyncio.Event()
    hub.fail("registry", lambda request: _through(go, request))
    async with situation.opened() as opened:
        live = Live(situation.config(), opened)
        with live.serving.use() as use:
            asked = asyncio.create_task(pulled(use.value.registry, digest))
            await eventually(lambda: hub.count("registry", path=digest) > 0)
            live.follow(situation.config(**ELSEWHERE))
            with pytest.raises(Denied, match="not served here"):
                await pulled(live.serving.current.registry, digest)
            go.set()
            assert await asked == data
        await eventually(lambda: not _asks(opened, hub))
        await live.close()


async def _through(go: asyncio.Event, request: object) -> None:
    await go.wait()


def _asks(opened: Resources, hub: Hub) -> bool:
    """Whether anything is open that asks this hub."""
    assert opened.upstreams is not None
    return any(hub.url.endswith(name) for name in opened.upstreams.endpoints)


async def test_endpoints_are_there_once_and_as_long_as_they_are_named(
    situation: Situation, hub: Hub
) -> None:
    config = situation.config()
    async with situation.opened() as opened:
        live = Live(config, opened)
        assert len(opened.upstreams.endpoints) == 1
        for _ in range(20):
            live.follow(situation.config(prefetch=False))
        assert len(opened.upstreams.endpoints) == 1
        live.follow(situation.config(**ELSEWHERE))
        await eventually(lambda: opened.upstreams.endpoints == ("ghcr.io",))
        await live.close()
    assert hub.requests == []


async def test_what_was_said_of_an_endpoint_that_left_is_shown_no_more() -> None:
    events = Events()
    metrics = Metrics(events, {"docker.io"})
    for endpoint in ("near", "far"):
        events.emit(BreakerSwitched("docker.io", endpoint, "fault", True))
        events.emit(LoginJudged("docker.io", endpoint, "ann", True))
    events.emit(EndpointLeft("docker.io", "near"))
    lines = metrics.exposition().decode().splitlines()
    values = {
        (name, endpoint): next(
            line.rpartition(" ")[2] for line in lines if name in line and f'"{endpoint}"' in line
        )
        for name in ("upstream_breaker_open{", "upstream_login_refused{")
        for endpoint in ("near", "far")
    }
    assert [values[key] for key in values] == ["0.0", "1.0", "0.0", "1.0"]


@pytest.mark.parametrize("stays", [True, False])
async def test_a_download_of_a_registry_that_a_client_named_is_not_cut(
    situation: Situation, hub: Hub, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    endpoint = Endpoint(name="unconfigured", url=hub.url, registry="quay.example")
    monkeypatch.setattr(policies, "unconfigured_endpoint", lambda name, workers: endpoint)
    data, go = b"layer" * MIB, asyncio.Event()
    digest = hub.add_blob(data)
    named = Repository("quay.example", "owner/app")
    async with situation.opened() as opened:
        live = Live(situation.config(allow_any_registry=True), opened)
        hub.fail("registry", lambda request: _through(go, request), times=100)
        with live.serving.use() as use:
            asked = asyncio.create_task(pulled(use.value.registry, digest, named))
            await eventually(lambda: hub.count("registry", path=digest) > 0)
            live.follow(situation.config(allow_any_registry=stays))
            await asyncio.sleep(0)
            go.set()
            assert await asked == data
        await eventually(lambda: "unconfigured" not in opened.upstreams.endpoints)
        if stays:
            assert await pulled(live.serving.current.registry, digest, named) == data
        else:
            with pytest.raises(Denied, match="not served here"):
                await pulled(live.serving.current.registry, digest, named)
        await live.close()


async def test_a_tag_is_frozen_and_free_again(situation: Situation, hub: Hub) -> None:
    first = hub.add_image("library/redis", "7", b"one")
    async with situation.opened() as opened:
        live = Live(situation.config(), opened)

        async def points_to() -> str:
            registry = live.serving.current.registry
            return str((await registry.resolve(CONTEXT, REDIS, "7")).descriptor.digest)

        assert await points_to() == first
        other = hub.add_image("library/redis", "8", b"two")
        live.follow(situation.config(pin={"redis:7": other}))
        assert await points_to() == other
        live.follow(situation.config())
        assert await points_to() == first
        await live.close()


async def test_a_reload_that_fails_is_told_and_the_next_one_is_tried(tmp_path: Path) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text("offline: true\n")
    process, told, applied = Process(set()), list[str](), list[Config]()
    process.events.listen(ConfigReloaded, lambda event: told.append(event.result))

    async def apply(config: Config) -> Sequence[str]:
        if not applied:
            applied.append(config)
            raise RuntimeError
        applied.append(config)
        return ()

    reloader = Reloader(file, parse("", "mirror.yaml"), process, apply)
    first, second = await asyncio.gather(reloader.reload(), reloader.reload())
    assert (first.result, second.result) == ("failed", "applied")
    assert "has to be restarted" in first.words[0]
    assert applied[1].offline
    file.write_text("offline: perhaps\n")
    assert (await reloader.reload()).words == (
        f"{file}:1: offline: found 'perhaps', write true or false",
    )
    assert told == ["failed", "applied", "refused"]


async def test_hangups_that_come_together_are_one_reload(tmp_path: Path) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text("offline: true\n")
    applied = list[Config]()

    async def apply(config: Config) -> Sequence[str]:
        applied.append(config)
        return ()

    reloader = Reloader(file, parse("", "mirror.yaml"), Process(set()), apply)
    following = asyncio.create_task(reloader.follow_hangups())
    for _ in range(50):
        reloader.hang_up()
    await eventually(lambda: bool(applied))
    reloader.hang_up()
    await eventually(lambda: len(applied) == 2)
    following.cancel()


async def test_a_file_that_cannot_be_read_holds_up_no_later_reload(tmp_path: Path) -> None:
    """A FIFO that nobody writes to: as a share whose server has gone."""
    file = tmp_path / "mirror.yaml"
    os.mkfifo(file)

    async def apply(config: Config) -> Sequence[str]:
        return ()

    reloader = Reloader(file, parse("", "mirror.yaml"), Process(set()), apply, 0.2)
    try:
        assert (await reloader.reload()).result == "refused"
    finally:
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))  # the thread that reads is let go
    file.unlink()
    file.write_text("offline: true\n")
    assert (await reloader.reload()).result == "applied"


async def test_files_that_cannot_be_read_hold_none_of_the_threads_that_pulls_need(
    tmp_path: Path,
) -> None:
    """Somebody has the file read again every minute, on a share whose server has gone."""
    file = tmp_path / "mirror.yaml"
    os.mkfifo(file)

    async def apply(config: Config) -> Sequence[str]:
        return ()

    reloader = Reloader(file, parse("", "mirror.yaml"), Process(set()), apply, 0.01)
    try:
        before = threading.active_count()
        for _ in range(40):
            assert (await reloader.reload()).result == "refused"
        assert threading.active_count() - before <= 5
        async with asyncio.timeout(10.0):
            assert await aside(os.getpid) == os.getpid()
    finally:
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))  # all that read it are let go
        reloader.close()


async def test_a_worker_that_is_started_while_a_configuration_comes_is_sent_it(
    situation: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": 2}
    config, process = situation.config(**ports), Process({"docker.io"})
    metrics, cradle = Metrics(process.events, process.registries), Cradle(spawned())
    workers = Workers(config, cradle, [[]] * 4, metrics, process.events)
    opens, reloads = asyncio.open_unix_connection, list[asyncio.Task[Sequence[str]]]()

    async def comes(**arguments: Any) -> Any:
        if not reloads:
            closed = situation.config(**ports, access=[{"name": "none", "deny": "*"}])
            reloads.append(asyncio.create_task(workers.follow(closed)))
            await asyncio.sleep(0)
        return await opens(**arguments)

    monkeypatch.setattr(asyncio, "open_unix_connection", comes)
    stop = asyncio.Event()
    running = asyncio.create_task(workers.run(stop))
    await eventually(lambda: bool(reloads))
    assert await reloads[0] == []
    stop.set()
    await running
    cradle.close()


async def test_a_request_of_before_takes_no_registry_from_the_configuration_of_now(
    situation: Situation, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names a registry when another configuration, which has it, counts."""
    stranger = Endpoint(name="unconfigured", url="http://127.0.0.1:9", registry="quay.example")
    monkeypatch.setattr(policies, "unconfigured_endpoint", lambda name, workers: stranger)
    digest, other = hub.add_blob(b"layer"), hub.add_blob(b"other")
    named = Repository("quay.example", "owner/app")
    async with situation.opened() as opened:
        live = Live(situation.config(allow_any_registry=True), opened)
        configured = {"quay.example": {"endpoints": [{"url": hub.url}]}}
        with live.serving.use() as use:
            live.follow(situation.config(registries=configured, default_registry="quay.example"))
            with contextlib.suppress(RegistryError):
                await pulled(use.value.registry, digest, named)
            assert await pulled(live.serving.current.registry, digest, named) == b"layer"
        await eventually(lambda: len(opened.upstreams.endpoints) == 1)
        assert await pulled(live.serving.current.registry, other, named) == b"other"
        await live.close()


def test_the_admin_port_opens_for_changes_by_a_reload():
    followed, kept = following(Config(), parse("admin: {write: true}", "mirror.yaml"))
    assert followed.admin.write
    assert kept == []


def test_the_admin_port_opens_to_nobody_who_was_kept_out_where_it_is(tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef")
    token = f"token_file: '{tmp_path / 'token'}'"
    running = parse(f"admin: {{listen: ':9', write: true, {token}}}", "mirror.yaml")
    followed, kept = following(running, parse("admin: {write: true}", "mirror.yaml"))
    assert followed.admin == running.admin
    assert kept == ["admin.listen"]
