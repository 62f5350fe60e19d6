"""Administration over records in memory, with the rights that count where a mirror runs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mirror.contracts.administration import RetentionPlan
from mirror.contracts.context import OPERATOR, Principal, PrincipalKind, RequestContext
from mirror.contracts.identity import AuditEntry, IdentityRecords, Role
from mirror.hosted.administration import Gate, HostedAdministration, Hosting
from mirror.hosted.registry import HostedRegistry, Shelves
from mirror.identity.accounts import Accounts
from mirror.identity.passwords import imported_hash
from mirror.identity.rights import HostedRights

from ...fakes import (
    HandClock,
    MemoryContent,
    MemoryHeld,
    MemoryIdentity,
    MemoryRecords,
    MemoryWebhooks,
    Recorder,
)

BY_COMMAND = RequestContext("1", "control socket", OPERATOR)


class PlainPasswords:
    """Hashes that take no time."""

    async def hash(self, password: str) -> str:
        return f"hash of {password}"

    async def matches(self, password: str, hash: str) -> bool:
        return hash == f"hash of {password}"

    def imported(self, hash: str) -> str:
        return imported_hash(hash)


class DirectAudit:
    def __init__(self, clock: HandClock, records: IdentityRecords) -> None:
        self._clock = clock
        self._records = records
        self.noted: list[AuditEntry] = []

    def note(
        self,
        context: RequestContext,
        action: str,
        target: str,
        outcome: str = "done",
        detail: str = "",
    ) -> None:
        actor, client = context.principal.name, context.client
        self.noted.append(
            AuditEntry(self._clock.wall, actor, client, action, target, outcome, detail)
        )

    async def entries(self, count: int = 100, before=None, actor: str = "", target: str = ""):
        return self.noted[::-1][:count]


@dataclass
class World:
    administration: HostedAdministration
    identity: MemoryIdentity
    records: MemoryRecords
    audit: DirectAudit
    events: Recorder
    clock: HandClock
    content: MemoryContent

    def by(self, name: str, kind: PrincipalKind = PrincipalKind.USER, **how) -> RequestContext:
        return RequestContext("2", "192.0.2.7", Principal(name, kind, **how))


@pytest.fixture
def world() -> World:
    clock, identity, records, events = HandClock(), MemoryIdentity(), MemoryRecords(), Recorder()
    accounts = Accounts(identity, wall=lambda: clock.wall, monotonic=clock)
    rights = HostedRights(accounts, identity, records, monotonic=clock)
    audit = DirectAudit(clock, identity)
    content = MemoryContent()
    shelves = Shelves(content, MemoryHeld(lambda: clock.wall), None)  # type: ignore[arg-type]
    registry = HostedRegistry("hosted", records, shelves, rights, events, clock.clock())

    async def retention(name: str, is_trial: bool) -> RetentionPlan:
        return RetentionPlan(name, (), (), is_trial)

    administration = HostedAdministration(
        Gate(records, identity, rights, audit, clock.clock()),
        Hosting("hosted", registry, registry, events, retention),
        PlainPasswords(),
        MemoryWebhooks(),
        lambda url: "it is a private address" if "10.0.0.1" in url else None,
    )
    return World(administration, identity, records, audit, events, clock, content)


@pytest.fixture
async def team(world: World) -> World:
    """An administrator, root; an organisation, acme, with one member of each role; and mallory, who
    is of none."""
    users, organisations = world.administration.users, world.administration.organisations
    for name in ("reader", "writer", "maintainer", "mallory"):
        await users.add(BY_COMMAND, name, f"password of {name}")
    await users.add(BY_COMMAND, "root", "password of root", administrator=True)
    await organisations.add(BY_COMMAND, "acme")
    for role in Role:
        await organisations.set_member(BY_COMMAND, "acme", role.value, role)
    world.audit.noted.clear()
    return world
