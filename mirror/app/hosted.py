"""Repositories of one's own: what a process has open for them, joined.

What only they need (SQLAlchemy, bcrypt, PyJWT, the page's templates) is imported here, and only
where there are any.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..config import Config, HostedConfig
from ..config.model import StorageConfig
from ..contracts.administration import Administration
from ..contracts.hosted import HOSTED
from ..contracts.uploads import Bring, Uploads
from ..frozen import dataclass
from ..hosted.far import BucketShelf, HeldHere
from ..hosted.registry import Far, HostedRegistry, Shelves
from ..identity.guard import Guard
from ..pullthrough.fills.table import Fills
from ..pullthrough.hosted_content import HostedContent, ObjectStore
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
    from ..server.peers.uploads import PeerUploads
    from ..storage.records.hosted.accounts import AccountRecords
    from ..storage.records.hosted.copying import RecordsCopy
    from ..storage.records.hosted.database import Database
    from ..storage.records.hosted.marking import MarkingRecords
    from ..storage.records.hosted.webhooks import HookRecords
    from .fleet import Neighbours


_PREFIX = "hosted/"
"""Below that of the mirror's content, whose sweep leaves alone what is none of its own."""


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
    which repositories have changed. `page`: for people, and its API. `held_here` and `bring`: where
    an object store keeps what is pushed."""

    config: HostedConfig
    records: Records
    identity: Identity
    registry: Guard
    marks: ChangeMarks
    collecting: Collecting
    administration: Administration
    backups: Backups
    page: Page
    held_here: HeldHere | None
    bring: Bring | None

    async def has(self, repository: str) -> bool:
        """Whether there is one of this name."""
        return await self.records.repositories.repository(repository) is not None

    def for_peers(self, store: DiskContent) -> PeerUploads:
        """What other nodes ask of uploads that were begun here."""
        from ..server.peers.uploads import PeerUploads

        return PeerUploads(store.uploads, self.bring)

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


@dataclass(frozen=True, slots=True)
class _Bucket:
    shelf: BucketShelf
    content: HostedContent

    def far(self) -> Far:
        return Far(self.shelf, self.content)


@contextlib.asynccontextmanager
async def hosting(
    config: Config,
    store: DiskContent,
    fills: Fills,
    process: Process,
    fleet: Neighbours | None = None,
) -> AsyncIterator[Hosted | None]:
    """Opens what is configured: None where nothing is. `fleet`: other nodes, which host the same.
    Raises CannotStart."""
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
        is_far = config.storage.s3 is not None
        records = _records(config.hosted, database, marks, is_far)
        identity = Identity(
            records.accounts,
            records.repositories,
            config.hosted.url or HOSTED,
            clock,
            marks.still,
        )
        await stack.enter_async_context(identity.running())
        await stack.enter_async_context(telling_of_fills(records.webhooks, process))
        bucket = _bucket(stack, config.storage, store, fills, records, process)
        far = None if bucket is None else bucket.far()
        registry = HostedRegistry(
            HOSTED,
            records.repositories,
            Shelves(
                store,
                store.held,
                store.uploads if fleet is None else _relayed(store, fleet),
                config.limits.blob,
                far,
            ),
            identity.rights,
            events,
            clock,
        )
        collecting = Collecting(
            HOSTED,
            records.repositories,
            store.held if bucket is None else bucket.shelf,
            config.hosted.gc,
            events,
            clock,
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
            Backups(records.copies, records.repositories, store, clock, far),
            _page(config.hosted, records, identity, administration, process),
            None
            if bucket is None
            else HeldHere(bucket.shelf, store.held, records.repositories, clock, collecting.grace),
            None if bucket is None else bucket.shelf.bring_file,
        )


@contextlib.asynccontextmanager
async def keeping_hosted(hosted: Hosted, process: Process) -> AsyncIterator[None]:
    """What goes on behind, in the process that holds the store: collections, and webhooks."""
    async with (
        beside(hosted.collecting.run(), "collections"),
        sending_webhooks(hosted.config, hosted.records.webhooks, process),
        contextlib.nullcontext()
        if hosted.held_here is None
        else beside(hosted.held_here.run(), "hosted content brought far"),
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


def _relayed(store: DiskContent, fleet: Neighbours) -> Uploads:
    from ..hosted.relaying import RelayedUploads
    from ..upstream.peers.uploads import PeersUploads

    return RelayedUploads(store.uploads, PeersUploads(fleet.peers), fleet.nodes)


def _bucket(
    stack: contextlib.AsyncExitStack,
    config: StorageConfig,
    store: DiskContent,
    fills: Fills,
    records: Records,
    process: Process,
) -> _Bucket | None:
    """Where content is kept for all nodes, beside what the mirror's side has there."""
    if config.s3 is None:
        return None
    from ..storage.second_tier.s3 import S3Tier, name_of
    from ..storage.second_tier.s3_content import S3Content
    from .buckets import bucket_in

    cache = bucket_in(config.s3)
    own = dataclasses.replace(cache, prefix=f"{cache.prefix}{_PREFIX}")
    tier, content = S3Tier(own, process.events, process.clock), S3Content(own)
    stack.push_async_callback(tier.close)
    objects = ObjectStore(tier, content, process.events, name_of)
    stack.push_async_callback(objects.close)
    shelf = BucketShelf(tier, content, records.repositories, store, process.clock, name_of)
    return _Bucket(shelf, HostedContent(HOSTED, objects, store, fills, process.clock))


def _records(config: HostedConfig, database: Database, marks: ChangeMarks, is_far: bool) -> Records:
    from ..storage.records.hosted.accounts import AccountRecords
    from ..storage.records.hosted.copying import RecordsCopy
    from ..storage.records.hosted.far import rely_on, rely_on_nothing
    from ..storage.records.hosted.marking import MarkingRecords
    from ..storage.records.hosted.webhooks import HookRecords

    return Records(
        MarkingRecords(
            database, marks.changed, late(config.gc), rely_on if is_far else rely_on_nothing
        ),
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
