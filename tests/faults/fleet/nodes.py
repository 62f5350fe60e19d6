"""Three nodes of one fleet, over a Redis and an object store, behind one address.

    async with Fleet(folder) as fleet:
        digest = fleet.origin.blob(90 * MIB, "seed")
        pulls = await fleet.pulls(digest, clients=2)

Every node reaches Redis and the object store over a line of its own, and is reached by the others
over one: each of them can be cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...e2e.programs import loopback_address
from ...redis_sentinels import Guarded, guarded
from ...redis_server import RedisServer
from ...seaweed import KEY, SECRET, Seaweed
from ...waiting import eventually
from ..disk.mounts import Mounts
from ..house import Mirror
from .front import Front
from .lines import Line
from .origin import Origin
from .pulls import Pull, pull

PEERS = 5002  # the port at which nodes ask one another


class Node(Mirror):
    """One of the fleet. `peers`: the line by which the others reach it."""

    peers: Line
    redis: Line
    far: Line

    def freeze(self) -> None:
        """SIGSTOP, with all its workers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)


class Fleet:
    """See the module. Use as a context: leaving ends all of it.

    `far`: whether there is an object store. `sentinels`: Redis is three that fail over, `guarded`,
    and no line leads to them. `disk`: bytes of a file system of each node's own, to be filled up;
    that needs root. `listed`: nodes know one another from the start, not by Redis. `keys` are added
    to each node's mirror.yaml.
    """

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 3,
        far: bool = True,
        sentinels: bool = False,
        disk: int = 0,
        listed: bool = False,
        speed: float = 30e6,
        **keys: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.origin = Origin(speed)
        self.redis = RedisServer(folder / "redis")
        self.guarded: Guarded | None = None
        self.far: Seaweed | None = None
        self.bucket = "bucket0"  # the first that is made
        self._has_far = far
        self._sentinels = sentinels
        self._disk = disk
        self._listed = listed
        self._mounts = Mounts(folder)
        self.nodes: list[Node] = []
        self.front: Front
        self._count = count
        self._keys = keys
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with self._stack as stack:
            await stack.enter_async_context(self.origin)
            stack.enter_context(self._mounts)
            stack.enter_context(self.redis)
            if self._has_far:
                its = stack.enter_context(tempfile.TemporaryDirectory(prefix="weed"))
                self.far = Seaweed(Path(its))  # a socket's path is short
                stack.callback(self.far.kill)
                starts = asyncio.create_task(asyncio.to_thread(self.far.start))
            self.redis.start()
            if self._sentinels:
                servers = guarded(self.folder, password=SECRET, sentinel_password=SECRET)
                self.guarded = await asyncio.to_thread(stack.enter_context, servers)
            (self.folder / "secret").write_text(f"{'5ec4e7' * 8}\n")
            (self.folder / "password").write_text(SECRET)
            peers = [
                stack.enter_context(Line(self.folder, (loopback_address(), PEERS)))
                for _ in range(self._count)
            ]
            for each in peers:
                self.nodes.append(self._node(each, peers, await self.origin.for_node(), stack))
            if self.far is not None:  # it takes longest: the rest came up meanwhile
                await starts
                assert self.far.bucket() == self.bucket
            await asyncio.gather(*(node.start() for node in self.nodes))
            await eventually(self._know_one_another, 30)
            self.front = stack.enter_context(Front(self.folder, list(self.nodes)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def _node(
        self, peers: Line, all_peers: Sequence[Line], url: str, stack: contextlib.AsyncExitStack
    ) -> Node:
        def line(host: str, port: int) -> Line:
            return stack.enter_context(Line(self.folder, (host, port)))

        redis = line(self.redis.host, self.redis.port)
        keys = dict(self._keys)
        storage = {"max_size": "4GiB", **keys.pop("storage", {})}
        if self._disk:
            storage["path"] = str(self._mounts.tmpfs(self._disk))
        endpoints = [{"url": url, "trust": "tags"}]
        if self.far is not None:
            far = line(*self.far.place)
            endpoint = f"http://{far.host}:{far.port}"
            storage["s3"] = self.far.storage(self.bucket, endpoint=endpoint)["s3"]
        node = Node(
            self.folder / f"node{len(self.nodes)}",
            {
                "registries": {"docker.io": {"endpoints": endpoints}},
                "tags": self._tags(redis),
                "fleet": {
                    "listen": f"{peers.to[0]}:{PEERS}",
                    "url": _url(peers),
                    "secret_file": str(self.folder / "secret"),
                    "nodes": [_url(each) for each in all_peers] if self._listed else "redis",
                },
                "storage": storage,
                **keys,
            },
        )
        node.peers, node.redis = peers, redis
        if self.far is not None:
            node.far = far
        stack.callback(node.kill)
        return node

    def _tags(self, redis: Line) -> dict[str, str]:
        if self.guarded is None:
            return {"store": f"redis://{redis.host}:{redis.port}/0"}
        secret = str(self.folder / "password")
        url = self.guarded.url
        return {"store": url, "password_file": secret, "sentinel_password_file": secret}

    def _know_one_another(self) -> bool:
        told = [node.events("fleet_nodes") for node in self.nodes]
        return all(each and each[-1]["known"] == self._count for each in told)

    # What happens to it.

    async def holder(self, digest: str, came: int = 1 << 20) -> Node:
        """The node that fetches it now, as soon as so many bytes have come to it."""
        await eventually(lambda: self.origin.bytes_of[digest] >= came, 30)
        return self.nodes[self.origin.asked_by[digest][-1]]

    async def pulls(
        self, digest: str, nodes: Sequence[Node] | None = None, clients: int = 1
    ) -> list[Pull]:
        """So many clients of each of these nodes, by its own address, all at once."""
        return await asyncio.gather(
            *(pull(node.url, digest) for node in nodes or self.nodes for _ in range(clients))
        )

    async def everywhere(self, tag: str) -> None:
        """The manifest is known to every node: pulls of what it names have begun."""
        for node in self.nodes:
            answer = await node.manifest(tag, name="library/app")
            assert answer.status == 200, answer.body

    async def at_rest(self) -> None:
        """All nodes are ready, and ask Redis who fetches what."""
        await asyncio.gather(*(eventually(node.is_ready, 60) for node in self.nodes))
        for node in self.nodes:
            await eventually(lambda node=node: node.metric("fleet_leases_up"), 60)

    # What must hold.

    def _bucket(self) -> Any:
        from obstore.store import S3Store

        assert self.far is not None
        return S3Store(
            self.bucket,
            endpoint=self.far.endpoint,
            region="us-east-1",
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )

    async def far_names(self) -> set[str]:
        """The digests of which the object store has something."""
        return {digest for digest, _ in await self._far_objects()}

    async def far_content(self) -> dict[str, bool]:
        """Whether what the object store has by a digest's name is right, by digest."""
        found: dict[str, bool] = {}
        bucket = self._bucket()
        for digest, name in await self._far_objects():
            data = bytes(await (await bucket.get_async(name)).bytes_async())
            found[digest] = hashlib.sha256(data).hexdigest() == digest.removeprefix("sha256:")
        return found

    async def _far_objects(self) -> list[tuple[str, str]]:
        """Digests and names of all content: what is beside it, such as `used/`, is passed over."""
        names = [meta["path"] async for page in self._bucket().list() for meta in page]
        found = [(re.fullmatch(r"sha256/../([0-9a-f]{64})", name), name) for name in names]
        return [(f"sha256:{match[1]}", name) for match, name in found if match]

    def near_content_is_right(self) -> bool:
        return not any(node.rotten() for node in self.nodes)

    def words(self) -> str:
        return "\n".join(f"--- {node.folder.name}\n{node.words()[-8000:]}" for node in self.nodes)


def _url(line: Line) -> str:
    return f"http://{line.host}:{line.port}"
