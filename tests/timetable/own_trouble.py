"""Troubles that are the mirror's own: its places, its disk, its tag memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from yarl import URL

from mirror.contracts.tags import TagRecord, TagStoreError
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.times import STORES
from mirror.upstream.pool.question import Asked

from ..fakes import REDIS, FakeTags, request_of
from ..jumping import jump
from .stack import Look, Seen, first_byte, manifest, promises, stack_of, tag
from .wire import CONFIG, LAYER_DIGEST, Response, says_nothing, well


class SilentTags(FakeTags):
    """Redis, which says nothing: each question ends by its bound."""

    async def get(self, repository: Repository, tag: str) -> TagRecord | None:
        await self._ask()
        return None

    async def put(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        await self._ask()

    async def frozen(self, repository: Repository, tag: str) -> Digest | None:
        await self._ask()
        return None

    async def _ask(self) -> None:
        await asyncio.sleep(STORES.redis)
        raise TagStoreError("it says nothing")


def _silent_tags() -> Seen:
    async def scenario() -> Seen:
        async with stack_of(1, SilentTags()) as stack:
            return await tag(stack)

    return jump(scenario())


def _full_disk(look: Look) -> Callable[[], Seen]:
    async def scenario() -> Seen:
        async with stack_of(1, room=0) as stack:
            return await look(stack)

    return lambda: jump(scenario())


def _place_taken() -> Seen:
    """By a download of another client, for which nothing comes."""
    other = Digest.of(CONFIG)

    async def exchange(method: str, url: URL, headers: Mapping[str, str]) -> Response:
        if str(other) in url.path:
            return await says_nothing(method, url, headers)
        return await well(method, url, headers)

    async def scenario() -> Seen:
        async with stack_of(1, places=1) as stack:
            stack.wires[0].exchange = exchange
            stack.shared.served.name(REDIS.registry, other, LAYER_DIGEST)
            first = asyncio.ensure_future(stack.cache.blob(request_of("other"), REDIS, other))
            await asyncio.sleep(0.1)
            try:
                return await first_byte(stack)
            finally:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)

    return jump(scenario())


def _all_connections_taken(look: Look) -> Callable[[], Seen]:
    async def scenario() -> Seen:
        async with stack_of(1, connections=1) as stack:
            promises(stack)
            await stack.slots[0].take(request_of("other"), Asked.TAG)
            return await look(stack)

    return lambda: jump(scenario())


OWN: Mapping[str, Callable[[], Seen]] = {
    "a tag, Redis says nothing": _silent_tags,
    "a manifest, the disk is full": _full_disk(manifest),
    "a blob, a silent download of another client has the only place": _place_taken,
    "a tag, all connections to the registry are taken": _all_connections_taken(tag),
    "a manifest, all connections to the registry are taken": _all_connections_taken(manifest),
    "a blob, all connections to the registry are taken": _all_connections_taken(first_byte),
}
