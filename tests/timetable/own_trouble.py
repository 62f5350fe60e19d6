"""Troubles that are the mirror's own: its places, its disk, its tag memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NoReturn

from yarl import URL

from mirror.contracts.tags import TagRecord, TagStoreError
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.times import STORES
from mirror.upstream.pool.question import Asked

from ..fakes import REDIS, FakeTags, request_of
from ..jumping import jump
from .stack import CLIENT, Look, Seen, first_byte, manifest, promises, stack_of, tag
from .wire import FOR_EVER, LAYER_DIGEST, Response, says_nothing, well

DIGESTS = [Digest.of(b"another blob: %d" % number) for number in range(1101)]


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


def _hanging_disk(look: Look) -> Callable[[], Seen]:
    """No call of the store comes back."""

    async def hang(*args: object, **kwargs: object) -> NoReturn:
        await asyncio.sleep(FOR_EVER)
        raise AssertionError

    async def scenario() -> Seen:
        async with stack_of(1) as stack:
            promises(stack)
            for name in ("open", "read", "put", "partial"):
                setattr(stack.store, name, hang)
            return await look(stack)

    return lambda: jump(scenario())


def _place_taken(*digests: Digest, by: str) -> Callable[[], Seen]:
    """By one download of this client, for which nothing comes, and for which more wait."""

    async def exchange(method: str, url: URL, headers: Mapping[str, str]) -> Response:
        if any(str(digest) in url.path for digest in digests):
            return await says_nothing(method, url, headers)
        return await well(method, url, headers)

    async def scenario() -> Seen:
        async with stack_of(1, places=1) as stack:
            stack.wires[0].exchange = exchange
            stack.shared.served.name(REDIS.registry, LAYER_DIGEST, *digests)
            others = [
                asyncio.ensure_future(stack.cache.blob(request_of(by), REDIS, digest))
                for digest in digests
            ]
            await asyncio.sleep(0.1)
            try:
                return await first_byte(stack)
            finally:
                for other in others:
                    other.cancel()
                await asyncio.gather(*others, return_exceptions=True)

    return lambda: jump(scenario())


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
    "a tag, the disk hangs": _hanging_disk(tag),
    "a manifest, the disk hangs": _hanging_disk(manifest),
    "a blob, the disk hangs": _hanging_disk(first_byte),
    "a blob, a silent download of another client has the only place": _place_taken(
        DIGESTS[0], by="other"
    ),
    "a blob, a silent download of the same client has the only place": _place_taken(
        DIGESTS[0], by=CLIENT.client
    ),
    "a blob, 1100 downloads of the same client wait already": _place_taken(
        *DIGESTS, by=CLIENT.client
    ),
    "a tag, all connections to the registry are taken": _all_connections_taken(tag),
    "a manifest, all connections to the registry are taken": _all_connections_taken(manifest),
    "a blob, all connections to the registry are taken": _all_connections_taken(first_byte),
}
