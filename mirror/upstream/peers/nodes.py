"""The nodes of the fleet, as a list, DNS or Redis names them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Collection
from ipaddress import IPv6Address, ip_address

import structlog

from ...contracts.events import FleetNodesCounted
from ...contracts.fleet import mark_of
from ...events import Events
from ...times import FLEET
from ..http.resolver import Resolver

log = structlog.get_logger()

MOST = 10_000
"""Nodes that are known."""

_AT_A_TIME = 50
"""Nodes whose naming is read a second, at most: of a large fleet it is read less often, so that who
names them bears all who read it."""

_FIRST = 1.0
"""Seconds between two looks of a node that has just started and knows nobody: so long it fetches
for itself."""

_SOONER = 0.2
"""Of the time between two readings: then it is read where one was asked for that is not known."""

Find = Callable[[], Awaitable[Collection[str]]]
"""Who is named now. Raises OSError, also where that cannot be said."""


class FleetNodes:
    """See Nodes. Who was named last is known for as long as nobody can say. Its own URL is known
    always."""

    def __init__(self, own: str, find: Find, events: Events, every: float = FLEET.look) -> None:
        self._own = own
        self._find = find
        self._events = events
        self._every = every
        self._urls: Collection[str] = ()
        self._marks: dict[str, str] = {}
        self._is_failing = False
        self._unknown = asyncio.Event()  # a node was asked for that is not known
        self._take(())

    @property
    def own(self) -> str:
        return self._own

    @property
    def all(self) -> Collection[str]:
        """With its own."""
        return self._urls

    def knows(self, url: str) -> bool:
        if url in self._urls:
            return True
        self._unknown.set()  # it may have come just now
        return False

    def url_of(self, mark: str) -> str | None:
        return self._marks.get(mark)

    async def run(self) -> None:
        """Keeps up with who is named, without an end."""
        while True:
            self._unknown.clear()
            await self.look()
            knows_nobody = self._is_failing and len(self._urls) == 1
            every = min(_FIRST, self._every) if knows_nobody else self._every
            pause = max(every, len(self._urls) / _AT_A_TIME)
            await asyncio.sleep(pause * _SOONER)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * (1 - _SOONER)):
                    await self._unknown.wait()

    async def look(self) -> None:
        """Reads once who is named."""
        try:
            found = await self._find()
        except OSError as error:
            if not self._is_failing:
                log.warning("fleet_nodes_unknown", reason=str(error), known=len(self._urls))
            self._is_failing = True
            return
        if self._is_failing:
            log.info("fleet_nodes_known_again", known=len(found))
        self._is_failing = False
        self._take(found)

    def _take(self, found: Collection[str]) -> None:
        before = self._urls
        self._urls = frozenset({self._own, *sorted(found)[: MOST - 1]})
        if self._urls != before:
            self._marks = {mark_of(url): url for url in self._urls}
            log.info("fleet_nodes", known=len(self._urls), nodes=sorted(self._urls)[:10])
            self._events.emit(FleetNodesCounted(len(self._urls)))


def listed(urls: Collection[str]) -> Find:
    """Those that the configuration lists."""

    async def find() -> Collection[str]:
        return urls

    return find


def by_dns(scheme: str, name: str, port: int, resolver: Resolver) -> Find:
    """Each address of this name, IPv4 and IPv6."""

    async def find() -> Collection[str]:
        found = await resolver.resolve(name, port, socket.AF_UNSPEC)
        addresses = [ip_address(each["host"].partition("%")[0]) for each in found]
        return {
            f"{scheme}://[{each}]:{port}"
            if isinstance(each, IPv6Address)
            else f"{scheme}://{each}:{port}"
            for each in addresses
        }

    return find
