"""What repositories have shown to the nodes of a fleet, which trust one another.

Each link is signed with the fleet's secret: whoever can write to Redis, and has no secret, opens
nothing by it. Keys tell no names either.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence

from ...clock import Clock
from ...contracts.records import Links
from ...oci.digest import Digest
from ...oci.reference import Repository
from .exchange import Command, Exchange

_PREFIX = b"registry-mirror:1:link:"

# Seconds for which Redis keeps one. What is pulled is noted again after 15 days.
_KEPT = 16 * 86400

_MAC = 16  # bytes
_SEEN = struct.Struct(">Q")


class FleetLinks:
    """Links (see contracts): this node's `own`, and what others of its fleet have noted."""

    def __init__(self, own: Links, exchange: Exchange, secret: bytes, clock: Clock) -> None:
        self._own = own
        self._exchange = exchange
        self._key = hmac.digest(secret, b"registry-mirror links", hashlib.sha256)
        self._clock = clock

    async def add(self, repository: Repository, digests: Sequence[Digest]) -> None:
        await self._own.add(repository, digests)
        now = int(self._clock.wall())
        for digest in digests:
            self._later(repository, digest, now)

    async def seen(self, repository: Repository, digest: Digest) -> float | None:
        return await self._own.seen(repository, digest)

    async def seen_elsewhere(self, repository: Repository, digest: Digest) -> float | None:
        value = await self._exchange.ask("GET", self._name(repository, digest))
        if not isinstance(value, bytes) or len(value) != _SEEN.size + _MAC:
            return None
        seen, mac = value[: _SEEN.size], value[_SEEN.size :]
        if not hmac.compare_digest(mac, self._mac(repository, digest, seen)):
            return None
        return min(float(_SEEN.unpack(seen)[0]), self._clock.wall())

    async def is_shown(self, digest: Digest) -> bool:
        return await self._own.is_shown(digest)

    async def remove(self, repository: Repository, digests: Sequence[Digest]) -> None:
        await self._own.remove(repository, digests)
        for digest in digests:
            self._later(repository, digest, None)

    async def close(self) -> None:
        await self._own.close()

    def _later(self, repository: Repository, digest: Digest, now: int | None) -> None:
        name = self._name(repository, digest)
        command: Command = ("DEL", name)
        if now is not None:
            seen = _SEEN.pack(now)
            command = ("SET", name, seen + self._mac(repository, digest, seen), "EX", _KEPT)
        self._exchange.later(f"{repository}:{digest}", lambda: command)

    def _name(self, repository: Repository, digest: Digest) -> bytes:
        return _PREFIX + self._mac(repository, digest, b"name").hex().encode()

    def _mac(self, repository: Repository, digest: Digest, what: bytes) -> bytes:
        words = b"\0".join((str(repository).encode(), str(digest).encode(), what))
        return hmac.digest(self._key, words, hashlib.sha256)[:_MAC]
