"""Registries that nobody configured, where the configuration lets clients name any."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import structlog

from ..interfaces import BytesContent, Clock, FileContent, Registry, Resolved, TagPage
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, Unavailable, quoted
from ..oci.reference import Repository
from ..oci.registries import is_registry, parse_registry

log = structlog.get_logger()

# Seconds for which an unused registry stays at least: a client's next request comes within that.
_REST = 30.0

_TOP = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")  # a domain with registries: no number

# Names for use within a network, or a host: RFC 6761, 6762, 7686, 8375; `internal` by ICANN.
_PRIVATE = frozenset(
    {
        *("localhost", "local", "internal", "arpa", "test", "invalid", "onion"),
        *("lan", "home", "corp", "intranet", "private", "localdomain"),
    }
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A registry made on demand. `is_idle`: whether it can be closed with nobody noticing."""

    registry: Registry
    is_idle: Callable[[], bool]
    close: Callable[[], Awaitable[object]]


@dataclass(slots=True)
class _Entry:
    opened: Opened
    users: int = 0
    used_at: float = 0.0


class OnDemand:
    """A Registry of all registries with a public name, each made by `open` when it is first asked.

    At most `most` are there at a time: the longest unused is closed for a new one. A name is no
    proof of anything: that its address is public is for the connection to check.
    """

    def __init__(self, open: Callable[[str], Opened], clock: Clock, most: int = 32) -> None:
        self._open = open
        self._clock = clock
        self._most = most
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def close(self) -> None:
        entries = list(self._entries.values())
        self._entries.clear()
        await asyncio.gather(*(entry.opened.close() for entry in entries))

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        async with self._using(repository) as registry:
            return await registry.resolve(repository, tag)

    async def manifest(self, repository: Repository, digest: Digest) -> BytesContent:
        async with self._using(repository) as registry:
            return await registry.manifest(repository, digest)

    async def stat(self, repository: Repository, digest: Digest) -> Descriptor:
        async with self._using(repository) as registry:
            return await registry.stat(repository, digest)

    async def blob(self, repository: Repository, digest: Digest, start: int = 0) -> FileContent:
        async with self._using(repository) as registry:
            return await registry.blob(repository, digest, start)

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None = None
    ) -> BytesContent:
        async with self._using(repository) as registry:
            return await registry.referrers(repository, digest, artifact_type)

    async def tags(
        self, repository: Repository, count: int | None = None, last: str | None = None
    ) -> TagPage:
        async with self._using(repository) as registry:
            return await registry.tags(repository, count, last)

    @contextlib.asynccontextmanager
    async def _using(self, repository: Repository) -> AsyncIterator[Registry]:
        name = repository.registry
        refuse_private(name)
        gone = None
        entry = self._entries.get(name)
        if entry is None:
            gone = self._make_room()
            entry = self._entries[name] = _Entry(self._open(name))
            log.info("registry opened on demand", registry=name)
        entry.users += 1
        self._entries.move_to_end(name)
        try:
            if gone is not None:
                await gone.close()
            yield entry.opened.registry
        finally:
            entry.users -= 1
            entry.used_at = self._clock.monotonic()

    def _make_room(self) -> Opened | None:
        """The one to be closed for a new one, None where there is room. Raises Unavailable."""
        if len(self._entries) < self._most:
            return None
        now = self._clock.monotonic()
        for name, entry in self._entries.items():
            if entry.users == 0 and now - entry.used_at >= _REST and entry.opened.is_idle():
                log.info("registry closed", registry=name)
                return self._entries.pop(name).opened
        raise Unavailable(
            f"{self._most} registries that are not in the configuration are in use at once, which "
            "is the most there may be",
            retry_after=_REST,
        )


def refuse_private(name: str) -> None:
    """Raises Denied for a registry's name that cannot be public: an address, a name without a dot,
    one for use within a network; and for what is no name in its one form."""
    _, dot, top = name.partition(":")[0].rpartition(".")
    is_public = bool(dot and _TOP.fullmatch(top)) and top not in _PRIVATE
    if not is_public or not is_registry(name) or parse_registry(name) != name:
        raise Denied(
            f"registry {quoted(name)} is not in the configuration of this mirror, and others are "
            "served by public names only, as in quay.io"
        )
