"""What a process has open: its content, its records, its downloads; each of them once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import structlog

from ..clock import Clock
from ..config import Config
from ..config.model import StorageConfig
from ..contracts.hosted import HOSTED
from ..contracts.records import Links
from ..contracts.second_tier import FarContent, SecondTier, Turn
from ..contracts.tags import TagStore
from ..events import Events
from ..frozen import dataclass
from ..pullthrough.far_uploads import FarNotes
from ..pullthrough.fills.parallel import ParallelPolicy
from ..pullthrough.fills.patience import DownloadPatience
from ..pullthrough.fills.queue import FillLimits
from ..pullthrough.fills.table import Fills
from ..pullthrough.redirects import RedirectPolicy, Redirects
from ..pullthrough.second_tier import OF_A_BUCKET, TierPatience, TierState
from ..pullthrough.shared import Shared
from ..storage.claims import Claims
from ..storage.disk.service import bounds_of, serving
from ..storage.disk.shortages import shortages
from ..storage.disk.space import Bounds
from ..storage.disk.store import DiskContent, StorageUnusable
from ..storage.records.accounts import AccountRecords
from ..storage.records.catalogue import CatalogueRecords
from ..storage.records.links import LinkRecords
from ..storage.records.referrers import ReferrerRecords
from ..storage.second_tier.folder import FolderTier
from ..storage.tags.embedded import EmbeddedTags
from ..storage.turns import OwnTurn
from ..tasks import beside
from ..threads import aside
from .among_nodes import among_nodes, redis_access
from .cannot_start import CannotStart as CannotStart
from .catalogue import CatalogueListener
from .endpoints import routes_of
from .far import FarKeeping, renewed_after, sweep_policy
from .process import Process as Process
from .upstreams import Upstreams

if TYPE_CHECKING:
    from .fleet import Neighbours
    from .hosted import Hosted

log = structlog.get_logger()

_TAGS = "tags.db"
_ANY = 1 << 62  # bytes


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that a process has open, whatever its configuration makes of it.

    `catalogue` is what is here, in pages; `listener` notes in it what happens in this process.
    `upstreams` and `tier` are None where nobody is to be asked. `far_keeping`: what one process of
    the node does for the tier. `redirects`: which clients are sent there. `links` tell which of the
    configured registries' repositories have shown what, `other_links` those of registries that
    only clients have named. `shared` is what the registries' caches are built on. `hosted` None:
    nothing is pushed here.
    `fleet` None: there are no other nodes.
    """

    process: Process
    store: DiskContent
    tags: TagStore
    links: Links
    other_links: Links
    upstreams: Upstreams | None
    tier: TierState | None
    far_keeping: FarKeeping | None
    redirects: Redirects | None
    fills: Fills
    shared: Shared
    catalogue: CatalogueRecords
    listener: CatalogueListener
    hosted: Hosted | None
    fleet: Neighbours | None

    def asking_nobody(self) -> Resources:
        """The same, for answers out of what is here."""
        return dataclasses.replace(self, upstreams=None, tier=None, redirects=None)

    def follow(self, config: Config) -> None:
        """From now on this is the configuration, and nothing is remembered in memory of what is
        here."""
        self.process.registries.clear()
        self.process.registries.update(config.registries)
        self.fills.limit(*_fill_limits(config))
        self.shared.forget_content()


def _fill_limits(config: Config) -> tuple[DownloadPatience, FillLimits, ParallelPolicy]:
    return (
        DownloadPatience(largest=config.limits.blob),
        FillLimits(config.limits.fills, config.limits.fills_per_registry),
        ParallelPolicy(over=config.limits.parted_over, connections=config.limits.parts),
    )


StoreOpener = Callable[[Config, Process], contextlib.AbstractAsyncContextManager[DiskContent]]
"""`holding_store`, `sharing_store` or `store_beside`."""


@contextlib.asynccontextmanager
async def resources(
    config: Config, process: Process, open_store: StoreOpener
) -> AsyncIterator[Resources]:
    """Opens everything, and closes it. Raises CannotStart."""
    events, clock, folder = process.events, process.clock, config.storage.path
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(config, process))
        catalogue = CatalogueRecords(folder / "catalogue.db", clock)
        stack.push_async_callback(catalogue.close)
        listener = CatalogueListener(catalogue, events, clock)
        stack.push_async_callback(listener.flush)
        await stack.enter_async_context(beside(listener.run(), "catalogue"))
        tags = tag_store(config, clock, events)
        stack.push_async_callback(tags.close)
        links: Links = LinkRecords(folder / "links.db", clock, store.is_here)
        stack.push_async_callback(links.close)
        other_links = LinkRecords(folder / "links-others.db", clock, store.is_here)
        stack.push_async_callback(other_links.close)
        referrers = ReferrerRecords(folder / "referrers.db", clock)
        stack.push_async_callback(referrers.close)
        among = await stack.enter_async_context(among_nodes(config, process))
        if among is not None:
            links = among.links(links)
        accounts = AccountRecords(folder)
        stack.push_async_callback(aside, accounts.close)
        bulletins = None if among is None else among.bulletins
        upstreams = Upstreams(events, clock, accounts, routes_of(process.proxies), bulletins)
        stack.push_async_callback(upstreams.close)
        tier = _second_tier(stack, config, store, process)
        fleet = await _fleet(stack, config, process)
        far_keeping = None
        if tier is not None:
            far_keeping = FarKeeping(
                tier,
                store.far,
                sweep_policy(config.storage.s3),
                _turn(config, process),
                process,
                None if fleet is None else fleet.leases,
            )
            stack.push_async_callback(far_keeping.close)
        claims = None
        if config.workers > 1:
            claims = Claims(folder / "claims")
            stack.callback(claims.close)
        fills = Fills(store, events, clock, *_fill_limits(config), claims=claims)
        stack.push_async_callback(fills.close)
        absences = None if among is None else among.absences
        shared = Shared.over(store, tags, fills, links, referrers, clock, absences)
        hosted = None
        if config.hosted is not None:
            # Not before it is needed: see tag_store.
            from .hosted import hosting

            hosted = await stack.enter_async_context(hosting(config, store, fills, process, fleet))
        redirects = _redirects(config, tier, store)
        if redirects is not None:
            stack.push_async_callback(redirects.close)
        yield Resources(
            process,
            store,
            tags,
            links,
            other_links,
            upstreams,
            tier,
            far_keeping,
            redirects,
            fills,
            shared,
            catalogue,
            listener,
            hosted,
            fleet,
        )


@contextlib.asynccontextmanager
async def holding_store(config: Config, process: Process) -> AsyncIterator[DiskContent]:
    """The store, for the one process of a service that holds its lock; says what the store lacks.
    Raises CannotStart, also when another service has it."""
    async with sharing_store(config, process) as store:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(serving(store.root, store.space.bounds))
            except StorageUnusable as error:
                raise CannotStart(str(error)) from error
            for lack in shortages(store.root, store.space.bounds, store.usage()):
                log.error("storage_is_short_of_room", path=str(store.root), reason=lack)
            yield store


@contextlib.asynccontextmanager
async def sharing_store(config: Config, process: Process) -> AsyncIterator[DiskContent]:
    """The store, for a process whose service holds its lock. Raises CannotStart."""
    store = _opened(config, bounds_in(config), process)
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def store_beside(config: Config, process: Process) -> AsyncIterator[DiskContent]:
    """The store, for a command. What may be in it is for the service to say that serves it, or did
    last: not for this configuration, which may be another's. Raises CannotStart."""
    bounds = bounds_of(config.storage.path)
    if bounds is None:
        bounds = bounds_in(config)
        if "max_size" not in config.storage.written:  # nobody has said how much may be
            bounds = dataclasses.replace(bounds, max_size=_ANY, evicts=False)
    store = _opened(config, bounds, process)
    try:
        yield store
    finally:
        await store.close()


def bounds_in(config: Config) -> Bounds:
    return Bounds(config.storage.max_size, config.storage.min_free)


def _opened(config: Config, bounds: Bounds, process: Process) -> DiskContent:
    try:
        return DiskContent(
            config.storage.path,
            bounds,
            sync=config.storage.durability == "full",
            clock=process.clock,
            events=process.events,
            is_guest=lambda source: source not in process.registries and source != HOSTED,
        )
    except StorageUnusable as error:
        raise CannotStart(str(error)) from error


def tag_store(config: Config, clock: Clock, events: Events) -> TagStore:
    """The configured tag memory."""
    access = redis_access(config)
    if access is None:
        return EmbeddedTags(config.storage.path / _TAGS, clock, events)
    # Not before it is needed: what it is made of takes 5 MB and a tenth of the time to start.
    from ..storage.tags.redis import RedisTags

    return RedisTags(access, events, clock)


async def _fleet(
    stack: contextlib.AsyncExitStack, config: Config, process: Process
) -> Neighbours | None:
    """The other nodes, as long as the stack lasts."""
    access = redis_access(config)
    if config.fleet is None or access is None:
        return None
    from .fleet import neighbours

    return await stack.enter_async_context(neighbours(config.fleet, access, process))


def _second_tier(
    stack: contextlib.AsyncExitStack, config: Config, store: DiskContent, process: Process
) -> TierState | None:
    """What is behind the store, if anything; closed with the stack."""
    found = _tier(config.storage, process)
    if found is None:
        return None
    tier, far = found
    stack.push_async_callback(tier.close)
    s3 = config.storage.s3
    state = TierState(
        tier,
        process.events,
        process.clock,
        TierPatience() if far is None else OF_A_BUCKET,
        far,
        renewed_after=None if s3 is None else renewed_after(s3),
    )
    stack.push_async_callback(state.close)
    stack.push_async_callback(FarNotes(state, store.far).close)
    return state


def _tier(storage: StorageConfig, process: Process) -> tuple[SecondTier, FarContent | None] | None:
    if storage.second_tier is not None:
        return FolderTier(storage.second_tier), None
    if storage.s3 is None:
        return None
    # Not before it is needed: it is an extra, and of 16 MB.
    from ..storage.second_tier.s3 import S3Tier
    from ..storage.second_tier.s3_content import S3Content
    from .buckets import bucket_in

    bucket = bucket_in(storage.s3)
    redirect = storage.s3.redirect
    for_clients = None if redirect is None else redirect.endpoint
    return S3Tier(bucket, process.events, process.clock), S3Content(bucket, for_clients)


def _redirects(config: Config, tier: TierState | None, store: DiskContent) -> Redirects | None:
    s3 = config.storage.s3
    if s3 is None or s3.redirect is None or tier is None or tier.far is None:
        return None
    policy = RedirectPolicy(s3.redirect.networks, s3.redirect.over)
    return Redirects(tier, tier.far, policy, store.size)


def _turn(config: Config, process: Process) -> Turn:
    """To sweep what is behind the disk: of this node, or of all that share a Redis."""
    access = redis_access(config)
    if access is None or config.storage.s3 is None:
        return OwnTurn(process.clock)
    # Not before it is needed: see tag_store.
    from ..storage.redis_turns import RedisTurn

    bucket = config.storage.s3
    return RedisTurn(access, f"sweep:{bucket.endpoint or ''}/{bucket.bucket}/{bucket.prefix}")


@contextlib.asynccontextmanager
async def tag_memory(config: Config) -> AsyncIterator[TagStore]:
    """The tag memory of a mirror that may be serving meanwhile. Raises CannotStart where there is
    none to share."""
    path = config.storage.path / _TAGS
    if config.tags.store is None:
        try:
            path.stat()
        except FileNotFoundError:
            # Not made here: this user may not be the one who runs the mirror.
            made = "a mirror makes it when it first serves from there"
            raise CannotStart(f"there is no {path}: {made}") from None
        except OSError as error:
            advice = "try as the user who runs the mirror"
            raise CannotStart(f"{path} cannot be opened ({error.strerror}); {advice}") from None
    store = tag_store(config, Clock(), Events())
    try:
        if isinstance(store, EmbeddedTags) and store.fault is not None:
            reason = getattr(store.fault, "strerror", None) or str(store.fault)
            is_others = path.exists() and path.stat().st_uid != os.geteuid()
            advice = "; try as the user who runs the mirror" if is_others else ""
            raise CannotStart(f"{path} cannot be opened to be written to ({reason}){advice}")
        yield store
    finally:
        await store.close()
