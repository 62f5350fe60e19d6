"""Builds a running mirror from a Config: the one place where the rooms meet."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import structlog
from aiohttp import web

from . import __version__
from .cache.fills import Fills
from .cache.freshness import Freshness
from .cache.pull_through import PullThrough
from .config import Config, Credentials, RegistryConfig
from .interfaces import Clock, ContentStore, Meter, Registry, TagStore
from .metrics import Metrics
from .server.admin import admin_application
from .server.listening import Listener
from .server.sending import Sender
from .server.v2 import V2
from .storage.disk import DiskContent, StorageUnusable
from .storage.room import Bounds
from .storage.tags_embedded import EmbeddedTags
from .storage.tags_redis import RedisTags
from .upstream.addresses import Allowed
from .upstream.endpoint import Credentials as Shown
from .upstream.endpoint import Endpoint, GivenToken, Login, Trust
from .upstream.pool import Member, Pool
from .upstream.remote import Remote
from .upstream.retries import Policy, Retries
from .upstream.transport import Transport
from .wrappers.routed import Routed

log = structlog.get_logger()

GRACE = 25.0
"""Seconds that running answers have to end when the mirror is told to stop: below the 30 s after
which systemd, Docker and Kubernetes kill."""


class CannotStart(Exception):
    """What the configuration names cannot be had here; the message says what to do."""


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[None]:
    """A mirror that serves while the context lasts, and drains when it ends.

    Raises CannotStart. It starts with every upstream, and
    Redis, down.
    """
    clock, metrics = Clock(), Metrics()
    async with contextlib.AsyncExitStack() as stack:
        store = _store(config, clock)
        stack.push_async_callback(store.close)
        metrics.watch(store.usage)
        tags = tag_store(config, clock, metrics)
        stack.push_async_callback(tags.close)
        fills = Fills(store, metrics, clock)
        stack.push_async_callback(fills.close)
        registries: dict[str, Registry] = {}
        tls = ssl.create_default_context()
        for name, registry in config.registries.items():
            registries[name] = await _registry(
                stack, name, registry, store, tags, fills, metrics, clock, tls
            )
        sender = Sender()
        sender.start()
        stack.callback(sender.close)
        handler = V2(
            Routed(registries),
            sender,
            default_registry=config.default_registry,
            meter=metrics,
            clock=clock,
        )
        await _serve_admin(stack, config, metrics)
        await _serve(stack, config, handler, metrics)
        log.info(
            "serving",
            version=__version__,
            listen=str(config.listen),
            admin=str(config.admin),
            storage=str(config.storage.path),
            registries=sorted(registries),
        )
        yield
        log.info("draining", grace=GRACE)


def tag_store(config: Config, clock: Clock, meter: Meter) -> TagStore:
    """The configured tag memory."""
    if config.tags.store is None:
        return EmbeddedTags.open(config.storage.path / "tags.db", clock, meter)
    password = config.tags.password
    return RedisTags(
        config.tags.store.get_secret_value(),
        password.get_secret_value() if password else None,
        meter,
        clock,
        ca_file=config.tags.ca_file,
    )


def _store(config: Config, clock: Clock) -> DiskContent:
    try:
        return DiskContent(
            config.storage.path,
            Bounds(config.storage.max_size),
            sync=config.storage.durability == "full",
            clock=clock,
        )
    except StorageUnusable as error:
        raise CannotStart(str(error)) from error


async def _registry(
    stack: contextlib.AsyncExitStack,
    name: str,
    config: RegistryConfig,
    store: ContentStore,
    tags: TagStore,
    fills: Fills,
    meter: Meter,
    clock: Clock,
    tls: ssl.SSLContext,
) -> PullThrough:
    """The cache in front of the pool of one registry's endpoints."""
    members = []
    for endpoint in _endpoints(name, config):
        remote = Remote(
            endpoint,
            Transport(endpoint, meter, tls=tls),
            Retries(Policy(), clock),
            meter,
            clock,
        )
        stack.push_async_callback(remote.close)
        members.append(Member(endpoint.name, remote, endpoint.trust))
    freshness = Freshness(
        config.freshness.ttl, config.freshness.stale, config.freshness.negative_ttl
    )
    cache = PullThrough(Pool(members, clock), store, tags, fills, freshness, clock=clock)
    stack.push_async_callback(cache.close)
    return cache


def _endpoints(name: str, config: RegistryConfig) -> list[Endpoint]:
    allowed = Allowed.parse(map(str, config.allow_private))
    return [
        Endpoint(
            name=endpoint.url.partition("://")[2],
            url=endpoint.url,
            trust=Trust(endpoint.trust),
            # The login is the registry's: an accelerator that only passes its content on has no
            # business with it.
            credentials=_shown(config.credentials) if endpoint.trust == "tags" else None,
            realm=config.realm,
            allowed=allowed,
        )
        for endpoint in config.endpoints
    ]


def _shown(credentials: Credentials | None) -> Shown:
    if credentials is None:
        return None
    if credentials.username is None:
        return GivenToken(credentials.secret)
    return Login(credentials.username, credentials.secret)


async def _serve(
    stack: contextlib.AsyncExitStack, config: Config, handler: V2, meter: Meter
) -> None:
    listener = Listener(handler, config.listen.host, config.listen.port, meter=meter)
    try:
        await listener.start()
    except OSError as error:
        raise _taken("listen", str(config.listen), error) from error
    stack.push_async_callback(listener.stop, GRACE)


async def _serve_admin(stack: contextlib.AsyncExitStack, config: Config, metrics: Metrics) -> None:
    def ready() -> tuple[bool, Mapping[str, Any]]:
        return True, {"version": __version__}

    runner = web.AppRunner(
        admin_application(config.admin.host, metrics.exposition, ready), access_log=None
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, config.admin.host, config.admin.port).start()
    except OSError as error:
        raise _taken("admin", str(config.admin), error) from error


def _taken(key: str, address: str, error: OSError) -> CannotStart:
    return CannotStart(
        f"{key}: {address} cannot be listened on ({error.strerror or error}); "
        "stop whatever uses it, or write another port"
    )
