"""Who did what: written behind, in order, and told to the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from ..contracts.context import RequestContext
from ..contracts.identity import AuditEntry, IdentityRecords
from ..oci.errors import RegistryError

log = structlog.get_logger()

K = TypeVar("K")
V = TypeVar("V")

LOGIN = "login"

_BEHIND = 1.0  # seconds for which entries are collected
_MOST = 10_000  # that wait; beyond, the oldest go, and are counted
_AT_ONCE = 500
_AGAIN = 3600.0  # seconds for which a login that went well is not written again
_WINDOW = 60.0  # seconds
_REFUSED = 20  # of one client, that are written in that time; the others are counted
_MOST_REMEMBERED = 4096
_LONGEST = 512  # characters of what a client has chosen


class HostedAudit:
    """An AuditLog by the records. Logins are thinned: one that goes well is written once an hour
    for each account and client. Of what is refused to one client some is written, and the number of
    the rest. `run` writes; what waits when it is cancelled is written then."""

    def __init__(
        self,
        records: IdentityRecords,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._records = records
        self._wall = wall
        self._monotonic = monotonic
        self._waiting: deque[AuditEntry] = deque()
        self._lost = 0
        self._went_well: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._refused: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._writing = asyncio.Lock()

    def note(
        self,
        context: RequestContext,
        action: str,
        target: str,
        outcome: str = "done",
        detail: str = "",
    ) -> None:
        entry = AuditEntry(
            self._wall(),
            context.principal.name,
            context.client,
            action[:_LONGEST],
            target[:_LONGEST],
            outcome,
            detail[:_LONGEST],
        )
        if outcome == "done":
            self._add(entry)
        else:
            self._add_refused(entry)

    def note_login(self, name: str, client: str, refused: str) -> None:
        """Of this name, from this client; `refused`: why, "" when it went well."""
        name = ascii(name[:_LONGEST])[1:-1]
        if refused:
            entry = AuditEntry(self._wall(), name, client, LOGIN, name, "refused", refused)
            self._add_refused(entry)
            return
        now = self._monotonic()
        if now < self._went_well.get((name, client), 0.0):
            return
        _remember(self._went_well, (name, client), now + _AGAIN)
        self._add(AuditEntry(self._wall(), name, client, LOGIN, name))

    def _add_refused(self, entry: AuditEntry) -> None:
        now = self._monotonic()
        until, count = self._refused.get(entry.client, (0.0, 0))
        if now >= until:
            until, more, count = now + _WINDOW, max(0, count - _REFUSED), 0
            if more:
                words = f"{more} more before it"
                entry = replace(entry, detail=f"{entry.detail}; {words}" if entry.detail else words)
        count += 1
        _remember(self._refused, entry.client, (until, count))
        if count <= _REFUSED:
            self._add(entry)

    def _add(self, entry: AuditEntry) -> None:
        log.info(
            "audit",
            actor=entry.actor,
            client=entry.client,
            action=entry.action,
            target=entry.target,
            outcome=entry.outcome,
            detail=entry.detail,
        )
        self._waiting.append(entry)
        if len(self._waiting) > _MOST:
            self._waiting.popleft()
            self._lost += 1

    async def entries(
        self, count: int = 100, before: float | None = None, actor: str = "", target: str = ""
    ) -> Sequence[AuditEntry]:
        await self.flush()
        return await self._records.audit(count, before, actor, target)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                await asyncio.sleep(_BEHIND)
                await self.flush()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await self.flush()

    async def flush(self) -> None:
        """Writes what waits, as far as the records take it; the rest waits for the next time."""
        async with self._writing:
            while self._waiting:
                some = [self._waiting[at] for at in range(min(_AT_ONCE, len(self._waiting)))]
                try:
                    await self._records.note_audit(some)
                except RegistryError as error:
                    log.warning("audit_waits", entries=len(self._waiting), reason=str(error))
                    return
                for entry in some:  # what was lost meanwhile is not there any more
                    if self._waiting and self._waiting[0] is entry:
                        self._waiting.popleft()
            if self._lost:
                log.warning("audit_entries_lost", entries=self._lost)
                self._lost = 0


def _remember(table: OrderedDict[K, V], key: K, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _MOST_REMEMBERED:
        table.popitem(last=False)
