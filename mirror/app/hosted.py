"""Repositories of one's own: what a process has open for them, joined.

What only they need (SQLAlchemy, bcrypt, PyJWT, the page's templates) is imported here, and only
where there are any.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import Config, HostedConfig
from ..contracts.administration import Administration
from ..contracts.hosted import HOSTED
from ..hosted.registry import HostedRegistry, Shelves
from ..identity.guard import Guard
from ..server.hosted.challenge import REALM, bearer
from ..server.hosted.realm import Realm
from ..server.hosted.search import Search
from ..server.hosted.serving import HostedServing, Page
from ..storage.change_marks import ChangeMarks
from ..storage.disk.store import DiskContent
from ..tasks import beside
from ..threads import aside
from ..upstream.egress import Allowed
from ..upstream.http.posting import refusal
from .backups import Backups
from .cannot_start import CannotStart
from .collecting import Collecting, late
from .process import Process
from .webhooks import sending_webhooks, telling_of_fills

if TYPE_CHECKING:
    from ..identity.identity import Identity
    from ..storage.records.hosted.accounts import AccountRecords
    from ..storage.records.hosted.copying import RecordsCopy
    from ..storage.records.hosted.database import Database
    from ..storage.records.hosted.marking import MarkingRecords
    from ..storage.records.hosted.webhooks import HookRecords


@dataclass(frozen=True, slots=True)
class Records:
    """Of one database, by their subjects."""

    repositories: MarkingRecords
    accounts: AccountRecords
    webhooks: HookRecords
    copies: RecordsCopy


@dataclass(frozen=True, slots=True)
class Hosted:
    """`registry`: for requests whose principal is known, each method for who may do it. `marks`:
    which repositories have changed. `page`: for people, and its API."""

    config: HostedConfig
    records: Records
    identity: Identity
    registry: Guard
    marks: ChangeMarks
    collecting: Collecting
    administration: Administration
    backups: Backups
    page: Page

    async def has(self, repository: str) -> bool:
        """Whether there is one of this name."""
        return await self.records.repositories.repository(repository) is not None

    def serving(self, patience: float) -> HostedServing:
        """By what requests at hosted names are answered."""
        return HostedServing(
            HOSTED,
            self.registry,
            self.identity.authenticator,
            bearer(self.identity.realm.service),
            self.marks,
            self.config.url,
            {
                "v1": Search(self.records.repositories, self.identity.rights),
                REALM: Realm(self.identity.realm),
            },
            self.page,
            patience,
        )


@contextlib.asynccontextmanager
async def hosting(
    config: Config, store: DiskContent, process: Process
) -> AsyncIterator[Hosted | None]:
    """Opens what is configured: None where nothing is. Raises CannotStart."""
    if config.hosted is None:
        yield None
        return
    from ..identity.identity import Identity

    events, clock, folder = process.events, process.clock, config.storage.path
    async with contextlib.AsyncExitStack() as stack:
        try:
            marks = ChangeMarks(folder / "hosted.marks")
        except OSError as error:
            raise CannotStart(f"{folder}/hosted.marks: {error.strerror or error}") from error
        stack.callback(marks.close)
        database = await aside(_opened, config, config.hosted, process)
        stack.push_async_callback(database.close)
        records = _records(config.hosted, database, marks)
        identity = Identity(
            records.accounts,
            records.repositories,
            config.hosted.url or HOSTED,
            clock,
            marks.still,
        )
        await stack.enter_async_context(identity.running())
        await stack.enter_async_context(telling_of_fills(records.webhooks, process))
        registry = HostedRegistry(
            HOSTED,
            records.repositories,
            Shelves(store, store.held, store.uploads, config.limits.blob),
            identity.rights,
            events,
            clock,
        )
        collecting = Collecting(
            HOSTED, records.repositories, store.held, config.hosted.gc, events, clock
        )
        administration = _administration(
            config.hosted, records, identity, registry, collecting, process
        )
        yield Hosted(
            config.hosted,
            records,
            identity,
            identity.guard(registry),
            marks,
            collecting,
            administration,
            Backups(records.copies, records.repositories, store, clock),
            _page(config.hosted, records, identity, administration, process),
        )


@contextlib.asynccontextmanager
async def keeping_hosted(hosted: Hosted | None, process: Process) -> AsyncIterator[None]:
    """What goes on behind, in the process that holds the store: collections, and webhooks."""
    if hosted is None:
        yield
        return
    async with (
        beside(hosted.collecting.run(), "collections"),
        sending_webhooks(hosted.config, hosted.records.webhooks, process),
    ):
        yield


def _opened(config: Config, hosted: HostedConfig, process: Process) -> Database:
    """Raises CannotStart. Blocking."""
    from ..storage.records.hosted.opening import RecordsUnusable, open_at, open_in

    try:
        if hosted.records is None:
            sync = config.storage.durability == "full"
            return open_in(config.storage.path, process.clock, sync=sync)
        password = hosted.records_password
        return open_at(
            hosted.records.get_secret_value(),
            password.get_secret_value() if password else None,
            process.clock,
        )
    except RecordsUnusable as error:
        raise CannotStart(str(error)) from error


def _records(config: HostedConfig, database: Database, marks: ChangeMarks) -> Records:
    from ..storage.records.hosted.accounts import AccountRecords
    from ..storage.records.hosted.copying import RecordsCopy
    from ..storage.records.hosted.marking import MarkingRecords
    from ..storage.records.hosted.webhooks import HookRecords

    return Records(
        MarkingRecords(database, marks.changed, late(config.gc)),
        AccountRecords(database),
        HookRecords(database),
        RecordsCopy(database),
    )


def _administration(
    config: HostedConfig,
    records: Records,
    identity: Identity,
    registry: HostedRegistry,
    collecting: Collecting,
    process: Process,
) -> Administration:
    from ..hosted.administration import Gate, HostedAdministration, Hosting

    gate = Gate(
        records.repositories, records.accounts, identity.rights, identity.audit, process.clock
    )
    hosting = Hosting(HOSTED, registry, registry, process.events, collecting.follow_rules)
    allowed = Allowed.parse(map(str, config.webhooks.allow_private))
    return HostedAdministration(
        gate,
        hosting,
        identity.passwords,
        records.webhooks,
        lambda url: refusal(url, allowed),
    )


def _page(
    config: HostedConfig,
    records: Records,
    identity: Identity,
    administration: Administration,
    process: Process,
) -> Page:
    from ..server.hosted.page.application import HostedPage
    from ..server.hosted.page.sessions import Sessions

    sessions = Sessions(records.accounts, records.accounts, process.clock)
    return HostedPage(
        administration, identity.authenticator, sessions, process.clock, config.url or ""
    )
