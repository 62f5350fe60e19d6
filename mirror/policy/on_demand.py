"""Registries that nobody configured, where the configuration lets clients name any."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import structlog

from ..clock import Clock
from ..contracts.context import RequestContext
from ..contracts.registry import Reader
from ..frozen import dataclass
from ..oci.errors import Denied, Unavailable, Unknown, quoted
from ..oci.reference import Repository
from ..oci.registries import is_registry, parse_registry
from .forwarding import Forwarding

log = structlog.get_logger()

T = TypeVar("T")

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

    registry: Reader
    is_idle: Callable[[], bool]
    close: Callable[[], Awaitable[object]]


@dataclass(slots=True)
class _Entry:
    """`client`: who asked it last."""

    opened: Opened
    client: str = ""
    users: int = 0
    used_at: float = 0.0
    has_answered: bool = False
    is_closed: bool = False

    @property
    def is_idle(self) -> bool:
        return self.users == 0 and self.opened.is_idle()


class OnDemand(Forwarding):
    """A Reader of all registries with a public name, each made by `open` when it is first asked.

    At most `most` are there at a time: the longest unused is closed for a new one. One that has
    never answered is closed before its time, and where one client has asked more of them than
    another, even while it is asked. A name is no proof of anything: that its address is public is
    for the connection to check.
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

    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        async with self._using(context, repository) as registry:
            return await ask(registry)

    @contextlib.asynccontextmanager
    async def _using(
        self, context: RequestContext, repository: Repository
    ) -> AsyncIterator[Reader]:
        name = repository.registry
        refuse_private(name)
        gone = None
        entry = self._entries.get(name)
        client = context.client
        if entry is None:
            gone = self._make_room(client)
            entry = self._entries[name] = _Entry(self._open(name))
            log.info("registry_opened_on_demand", registry=name, request_id=context.request_id)
        entry.client = client
        entry.users += 1
        self._entries.move_to_end(name)
        try:
            if gone is not None:
                await gone.opened.close()
            yield entry.opened.registry
            entry.has_answered = True
        except Unknown:
            entry.has_answered = True
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if entry.is_closed and task is not None and not task.cancelling():
                raise Unavailable(
                    f"{name} has not answered, and others wait", retry_after=_REST
                ) from None
            raise
        finally:
            entry.users -= 1
            entry.used_at = self._clock.monotonic()

    def _make_room(self, client: str) -> _Entry | None:
        """The one to be closed for a new one of this client's, None where there is room. Raises
        Unavailable."""
        if len(self._entries) < self._most:
            return None
        name = self._to_close() or self._to_close_of_others(client)
        if name is None:
            raise Unavailable(
                f"{self._most} registries that are not in the configuration are in use at once, "
                "which is the most there may be",
                retry_after=_REST,
            )
        log.info("registry_closed", registry=name)
        entry = self._entries.pop(name)
        entry.is_closed = True
        return entry

    def _to_close(self) -> str | None:
        """The longest unused of those that nobody will miss."""
        now = self._clock.monotonic()
        for name, entry in self._entries.items():
            has_rested = now - entry.used_at >= _REST or not entry.has_answered
            if has_rested and entry.is_idle:
                return name
        return None

    def _to_close_of_others(self, client: str) -> str | None:
        """One of the client's who has most, if it has more than this one would then have."""
        counts = Counter(entry.client for entry in self._entries.values())
        [(richest, most)] = counts.most_common(1)
        if most < counts[client] + 2:
            return None
        for name, entry in self._entries.items():
            if entry.client == richest and (entry.is_idle or not entry.has_answered):
                return name
        return None


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
