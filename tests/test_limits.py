"""What is never more than an upstream bears: connections to its host, and manifests it grants."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mirror import app as assembly
from mirror import config
from mirror.activity.watching import Watch
from mirror.metrics import Metrics
from mirror.server.http.networks import network_of

from .fakes.hub import Hub
from .waiting import eventually


class Node:
    """Mirrors in this process that share a store, as workers do, before one hub."""

    def __init__(self, folder: Path, hub: Hub, running: AsyncExitStack) -> None:
        self._folder, self.hub, self._running = folder, hub, running

    async def mirror(self, keys: str, **docker_io: object) -> aiohttp.ClientSession:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        registry = json.dumps({"endpoints": [{"url": self.hub.url}], **docker_io})
        text = (
            f"listen: {port}\nadmin: 0\nstorage: {{path: '{self._folder / 'store'}'}}\n"
            f"registries: {{docker.io: {registry}, ghcr.io: {registry}}}\n"
        )
        given = config.parse(text + keys, "mirror.yaml")
        process = assembly.Process(set(given.registries))
        watch = Watch(process.events)
        opened = await self._running.enter_async_context(
            assembly.resources(given, process, assembly.sharing_store)
        )
        alone = given.but({"workers": 1})  # on a port of its own
        [ports] = await self._running.enter_async_context(
            assembly.pull_ports(alone, assembly.ServiceManager().given)
        )
        watch = Watch(process.events, process.clock, network_of)
        pulls = await self._running.enter_async_context(
            assembly.serving_pulls(given, opened, Metrics(process.events), watch, ports)
        )
        await self._running.enter_async_context(pulls.answering())
        client = aiohttp.ClientSession(f"http://127.0.0.1:{port}")
        self._running.push_async_callback(client.close)
        return client


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Hub() as hub, AsyncExitStack() as running:
        yield Node(tmp_path, hub, running)


async def get(client: aiohttp.ClientSession, path: str) -> tuple[int, str, str]:
    async with client.get(f"/v2/{path}") as answer:
        return answer.status, await answer.text(), answer.headers.get("Retry-After", "")


# Blobs leave a few connections to small asks: of three, they take two.
@pytest.mark.parametrize(("connections", "workers"), [(3, 1), (12, 4), (15, 4)])
async def test_all_endpoints_and_workers_share_the_connections_to_a_host(
    node: Node, connections: int, workers: int
) -> None:
    endpoint = {"url": node.hub.url, "connections": connections}
    client = await node.mirror(f"workers: {workers}", endpoints=[endpoint])
    go, running, most = asyncio.Event(), 0, 0

    async def hold(request: web.Request) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1

    node.hub.redirects, node.hub.challenge = False, "none"
    node.hub.fail("registry", hold, times=6)  # type: ignore[arg-type]
    blobs = [node.hub.add_blob(b"%d" % number) for number in range(6)]
    asks = [
        asyncio.create_task(get(client, f"{registry}/a/b/blobs/{digest}"))
        for registry, digest in zip(("docker.io", "ghcr.io") * 3, blobs, strict=True)
    ]
    await eventually(lambda: running == 2)
    go.set()
    assert [(await ask)[0] for ask in asks] == [200] * 6
    assert most == 2
