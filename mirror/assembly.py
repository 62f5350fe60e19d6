"""Builds a running mirror from a Config: the one place where the rooms meet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web

from . import __version__
from .cache.download import Patience
from .cache.fills import Fills
from .cache.freshness import Freshness, Rule
from .cache.frozen import Pins
from .cache.gate import FillLimits
from .cache.images import Images, this_platform
from .cache.linked import Linked
from .cache.prefetch import Prefetcher
from .cache.pull_through import PullThrough
from .cache.segments import Parting
from .cache.unvouched import Unvouched
from .config import Address, Config, Credentials, RegistryConfig
from .config import Endpoint as EndpointConfig
from .interfaces import Clock, Meter, NoMeter, Registry, TagStore, Upstream
from .metrics import Metrics
from .oci.digest import Digest
from .oci.patterns import Patterns
from .oci.reference import parse_image
from .server.admin import admin_application
from .server.listening import Listener
from .server.naming import Naming
from .server.sending import Sender
from .server.v2 import V2
from .storage.disk import DiskContent, StorageUnusable
from .storage.links import LinkRecords
from .storage.room import Bounds
from .storage.tag_history import MOST
from .storage.tags_embedded import EmbeddedTags
from .storage.tags_redis import RedisTags
from .storage.upkeep import Habits, Upkeep
from .upstream.addresses import Allowed
from .upstream.endpoint import Credentials as Shown
from .upstream.endpoint import Endpoint, GivenToken, Limits, Login, Trust
from .upstream.offline import Offline
from .upstream.pool import Pool
from .upstream.remote import Remote
from .upstream.retries import Policy, Retries
from .upstream.standing import Member
from .upstream.transport import Transport
from .wrappers.ages import Ages
from .wrappers.guarded import Guarded
from .wrappers.guarded import Rule as AccessRule
from .wrappers.on_demand import OnDemand, Opened
from .wrappers.routed import Routed

log = structlog.get_logger()

GRACE = 25.0
"""Seconds that running answers have to end when the mirror is told to stop: below the 30 s after
which systemd, Docker and Kubernetes kill."""


_TAGS = "tags.db"


class CannotStart(Exception):
    """What the configuration names cannot be had here; the message says what to do."""


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[None]:
    """A mirror in one process: it serves while the context lasts, and drains when it ends.

    Raises CannotStart. It starts with every upstream, and Redis, down.
    """
    metrics = Metrics()
    async with (
        keeping_house(config, metrics),
        serving_admin(config, metrics, lambda: (True, {})),
        serving_pulls(config, metrics),
    ):
        yield


@contextlib.asynccontextmanager
async def serving_pulls(
    config: Config, metrics: Metrics, *, reuse_port: bool = False
) -> AsyncIterator[None]:
    """The mirror's port, and all that answers on it. Raises CannotStart."""
    clock = Clock()
    async with contextlib.AsyncExitStack() as stack:
        store = open_store(config, metrics, clock)
        stack.push_async_callback(store.close)
        registry = _registry(stack, config, store, metrics, clock)
        sender = Sender(window=config.limits.idle)
        sender.start()
        stack.callback(sender.close)
        handler = V2(
            registry,
            sender,
            naming=_naming(config),
            meter=metrics,
            clock=clock,
            patience=config.limits.idle,
        )
        listener = Listener(
            handler,
            config.listen.host,
            config.listen.port,
            reuse_port=reuse_port,
            idle=config.limits.idle,
            patience=config.limits.idle,
            meter=metrics,
        )
        try:
            await listener.start()
        except OSError as error:
            raise _taken("listen", config.listen, error) from error
        stack.push_async_callback(listener.stop, GRACE)
        log.info(
            "serving",
            version=__version__,
            listen=str(config.listen),
            storage=str(config.storage.path),
            registries=sorted(config.registries),
        )
        yield
        log.info("draining", seconds=GRACE)


@contextlib.asynccontextmanager
async def serving_admin(
    config: Config, metrics: Metrics, ready: Callable[[], tuple[bool, Mapping[str, Any]]]
) -> AsyncIterator[None]:
    """The admin port. Raises CannotStart."""
    async with having_images(config.model_copy(update={"offline": True})) as images:

        async def missing(text: str, platform: str | None) -> Sequence[str]:
            image = parse_image(text, config.default_registry)
            wanted = platform or this_platform()
            return await images.missing(image.repository, image.reference, wanted)

        application = admin_application(config.admin.host, metrics.exposition, ready, missing)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, config.admin.host, config.admin.port).start()
            except OSError as error:
                raise _taken("admin", config.admin, error) from error
            yield
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def keeping_house(config: Config, metrics: Metrics) -> AsyncIterator[None]:
    """The store's upkeep, and the count of what it holds. Raises CannotStart."""
    store = open_store(config, metrics, Clock())
    metrics.watch(store.usage)
    habits = Habits(partial_ttl=config.storage.partial_ttl, scrub=config.storage.scrub)
    upkeep = asyncio.create_task(Upkeep(store, habits).run())
    try:
        yield
    finally:
        upkeep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await upkeep
        await store.close()


@contextlib.asynccontextmanager
async def having_images(config: Config) -> AsyncIterator[Images]:
    """Images as a whole, on the configured store, beside a mirror that may be serving. What is not
    here is fetched, unless the configuration is offline. Raises CannotStart."""
    clock, metrics = Clock(), Metrics()
    async with contextlib.AsyncExitStack() as stack:
        store = open_store(config, metrics, clock)
        stack.push_async_callback(store.close)
        yield Images(_registry(stack, config, store, metrics, clock), store)


async def verify(config: Config) -> AsyncIterator[tuple[Digest, bool]]:
    """Rehashes all content, as fast as the disk gives it; tells of each piece whether it was sound.
    What was not is set aside, and filled again when it is asked for. A mirror may be serving
    meanwhile. Raises CannotStart."""
    store = open_store(config, NoMeter(), Clock())
    upkeep = Upkeep(store, Habits(scrub_speed=float("inf")))
    try:
        async for found in upkeep.scrub():
            yield found
        await upkeep.mend()
    finally:
        await store.close()


def open_store(config: Config, meter: Meter, clock: Clock) -> DiskContent:
    """The configured store. Raises CannotStart."""
    try:
        return DiskContent(
            config.storage.path,
            Bounds(config.storage.max_size, config.storage.min_free),
            sync=config.storage.durability == "full",
            clock=clock,
            meter=meter,
        )
    except StorageUnusable as error:
        raise CannotStart(str(error)) from error


def probe_port(key: str, address: Address) -> None:
    """Raises CannotStart when somebody else has this port: those who share a port (SO_REUSEPORT)
    would not be told."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen()
        except OSError as error:
            raise _taken(key, address, error) from error


def tag_store(config: Config, clock: Clock, meter: Meter) -> TagStore:
    """The configured tag memory."""
    if config.tags.store is None:
        return EmbeddedTags.open(config.storage.path / _TAGS, clock, meter)
    password = config.tags.password
    return RedisTags(
        config.tags.store.get_secret_value(),
        password.get_secret_value() if password else None,
        meter,
        clock,
        ca_file=config.tags.ca_file,
    )


@contextlib.asynccontextmanager
async def tag_memory(config: Config) -> AsyncIterator[TagStore]:
    """The tag memory of a mirror that may be serving meanwhile. Raises CannotStart where there is
    none to share."""
    path = config.storage.path / _TAGS
    if config.tags.store is None and not path.exists():
        # Not made here: this user may not be the one who runs the mirror.
        raise CannotStart(f"there is no {path}: a mirror makes it when it first serves from there")
    store = tag_store(config, Clock(), NoMeter())
    try:
        if isinstance(store, EmbeddedTags) and not store.is_shared:
            raise CannotStart(f"{path} cannot be opened; try as the user who runs the mirror")
        yield store
    finally:
        await store.close()


def _registry(
    stack: contextlib.AsyncExitStack,
    config: Config,
    store: DiskContent,
    metrics: Metrics,
    clock: Clock,
) -> Registry:
    """All that answers for images, on this store; closed with the stack."""
    tags = tag_store(config, clock, metrics)
    stack.push_async_callback(tags.close)
    links = LinkRecords.open(config.storage.path / "links.db", clock)
    stack.push_async_callback(links.close)
    fills = Fills(
        store,
        metrics,
        clock,
        Patience(largest=config.limits.blob),
        FillLimits(config.limits.fills, config.limits.fills_per_registry),
        Parting(over=config.limits.parted_over, connections=config.limits.parts),
    )
    stack.push_async_callback(fills.close)
    pinned = Patterns(config.storage.pin)
    pins = _pins(config)
    tls = ssl.create_default_context()

    def cached(
        stack: contextlib.AsyncExitStack, registry: RegistryConfig, endpoints: Sequence[Endpoint]
    ) -> tuple[PullThrough, Upstream]:
        upstream: Upstream = Offline()
        scarce = _never
        if not config.offline:
            upstream = pool = _pool(stack, endpoints, metrics, clock, tls)
            scarce = pool.scarce
        prefetcher = None
        if config.prefetch and not config.offline:
            prefetcher = Prefetcher(upstream, store, fills, clock, scarce)
        cache = PullThrough(
            upstream,
            store,
            tags,
            fills,
            Freshness(),
            rules=_freshness(registry),
            pins=pins,
            scarce=scarce,
            pinned=pinned,
            clock=clock,
            prefetcher=prefetcher,
        )
        stack.push_async_callback(cache.close)
        return cache, upstream

    registries: dict[str, Registry] = {}
    for name, registry in config.registries.items():
        cache, upstream = cached(stack, registry, _endpoints(registry))
        linked = Linked(cache, upstream, links, clock)
        stack.push_async_callback(linked.close)
        registries[name] = linked
    others = None
    if config.allow_any_registry:
        own = LinkRecords.open(config.storage.path / "links-others.db", clock)
        stack.push_async_callback(own.close)

        def opened(name: str) -> Opened:
            within = contextlib.AsyncExitStack()
            unvouched = Unvouched(
                *cached(within, RegistryConfig(endpoints=()), [_unconfigured(name)]),
                store,
                links,
                own,
            )
            within.push_async_callback(unvouched.close)
            return Opened(unvouched, lambda: fills.is_idle(name), within.aclose)

        others = OnDemand(opened, clock)
        stack.push_async_callback(others.close)
    routed = Routed(registries, others)
    if not config.access:
        return routed
    rules = [
        AccessRule(rule.name, Patterns(rule.allow or rule.deny), bool(rule.allow), rule.min_age)
        for rule in config.access
    ]
    return Guarded(routed, rules, Ages(routed, tags.history, MOST, clock))


def _pool(
    stack: contextlib.AsyncExitStack,
    endpoints: Sequence[Endpoint],
    meter: Meter,
    clock: Clock,
    tls: ssl.SSLContext,
) -> Pool:
    """One registry's endpoints, as one upstream."""
    members = []
    for endpoint in endpoints:
        transport = Transport(endpoint, meter, tls=tls)
        remote = Remote(endpoint, transport, Retries(Policy(), clock), meter, clock)
        stack.push_async_callback(remote.close)
        members.append(
            Member(
                endpoint.name,
                remote,
                endpoint.trust,
                endpoint.limits.connections,
                remote.scarce,
            )
        )
    return Pool(members, clock, meter)


def _naming(config: Config) -> Naming:
    return Naming(
        default=config.default_registry,
        configured=frozenset(config.registries),
        hosts={host: name for name, each in config.registries.items() for host in each.hosts},
        any_registry=config.allow_any_registry,
    )


def _never() -> bool:
    return False


def _freshness(config: RegistryConfig) -> list[Rule]:
    return [
        Rule(
            Patterns(periods.match),
            Freshness(
                ttl=periods.ttl,
                stale_while_revalidate=periods.stale_while_revalidate,
                stale=periods.stale,
                negative_ttl=periods.negative_ttl,
                keeps_gone=periods.on_404 == "keep",
                immutable=periods.immutable,
            ),
        )
        for periods in config.freshness
    ]


def _pins(config: Config) -> Pins:
    images = ((parse_image(given, config.default_registry), to) for given, to in config.pin.items())
    return {(image.repository, str(image.reference)): to for image, to in images}


def _endpoints(config: RegistryConfig) -> list[Endpoint]:
    allowed = Allowed.parse(map(str, config.allow_private))
    return [
        Endpoint(
            name=endpoint.url.partition("://")[2],
            url=endpoint.url,
            trust=Trust(endpoint.trust),
            credentials=tuple(map(_shown, _credentials(config, endpoint))),
            realm=config.realm,
            allowed=allowed,
            limits=Limits(connections=endpoint.connections),
        )
        for endpoint in config.endpoints
    ]


def _unconfigured(name: str) -> Endpoint:
    """The endpoint of a registry that a client named. All of them count as one: a metric's labels
    are from a bounded set."""
    return Endpoint(name="unconfigured", url=f"https://{name}", configured=False)


def _credentials(config: RegistryConfig, endpoint: EndpointConfig) -> Sequence[Credentials]:
    """The endpoint's own, else the registry's. An accelerator that only passes the registry's
    content on has no business with those."""
    if endpoint.credentials or endpoint.trust != "tags":
        return endpoint.credentials
    return config.credentials


def _shown(credentials: Credentials) -> Shown:
    if credentials.username is None:
        return GivenToken(credentials.secret)
    return Login(credentials.username, credentials.secret)


def _taken(key: str, address: Address, error: OSError) -> CannotStart:
    return CannotStart(
        f"{key}: {address} cannot be listened on ({error.strerror or error}); "
        "stop whatever uses it, or write another port"
    )
