"""Running mirrors: the ports, and what goes on behind them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from .. import __version__
from ..activity.board import Board
from ..activity.watching import Watch
from ..clock import Clock
from ..config import Config
from ..contracts.events import CertificateShown
from ..contracts.registry import Reader
from ..contracts.tracing import Tracer
from ..logs import LogSettings, log_as, settings
from ..metrics import Metrics
from ..oci.digest import Digest
from ..oci.reference import parse_image
from ..pullthrough.images import Images, this_platform
from ..server.admin.console import Admission, Console
from ..server.control import CommandFailed, Parameters, one
from ..server.door import by_host
from ..server.http.accepting import Port
from ..server.http.browsers import is_loopback
from ..server.http.listening import Handler, Listener, Listeners
from ..server.http.networks import network_of
from ..server.http.reserved_port import SparePort
from ..server.http.response_cache import ResponseCache
from ..server.http.sending import Sender
from ..server.v2.access_log import AccessLog
from ..server.v2.handler import V2
from ..storage.disk.upkeep import Upkeep, UpkeepPolicy
from ..tasks import beside
from ..threads import aside
from ..tls import serving_context
from .activity import ConfigWatch, Surroundings, seeing, under_way, watching
from .ahead import ahead
from .catalogue import CatalogueUpkeep
from .forewarned import certificates_of
from .live import Live
from .log_control import LogSwitch, lines_of, narrate, tell_pull
from .logins import hindrances
from .operations import Operations, operating
from .reloading import Reloader
from .resources import CannotStart, Process, Resources, holding_store, resources, store_beside
from .service_manager import ServiceManager
from .sockets import (
    ADMIN,
    FLEET,
    HOSTED,
    LISTEN,
    Given,
    address_of,
    cannot_listen,
    facts,
    pull_ports,
)

if TYPE_CHECKING:
    from ..server.hosted.handler import HostedNames
    from .hosted import Hosted

log = structlog.get_logger()

Retire = Callable[[asyncio.Event], Awaitable[None]]

Follow = Callable[[Config], None]
"""Has what runs go on by another configuration."""

GRACE = 25.0
"""Seconds that running answers have to end when the mirror is told to stop: below the 30 s after
which systemd, Docker and Kubernetes kill."""


@contextlib.asynccontextmanager
async def running(
    config: Config, path: Path | None = None, manager: ServiceManager | None = None
) -> AsyncIterator[None]:
    """A mirror in one process: it serves while the context lasts, and drains when it ends. `path`
    is where the configuration was read, and is read again.

    Raises CannotStart. It starts with every upstream, and Redis, down.
    """
    process, listening = Process(set(config.registries)), asyncio.Event()
    manager = manager or ServiceManager()
    notifier = manager.notifier
    metrics = Metrics(process.events, process.registries)
    watch = Watch(process.events, process.clock, network_of)
    board = Board(process.clock, network_of, tell_pull)
    log_switch = LogSwitch(config, process.clock, lambda settings: pulls.log(settings))
    surroundings = Surroundings(
        ConfigWatch(path, process), log_switch, lambda: ((os.getpid(),), int(listening.is_set()))
    )

    async def exposition() -> bytes:
        return metrics.exposition()

    async with (
        resources(config, process, holding_store) as opened,
        keeping_house(config, opened, metrics),
        ahead(config, opened) as brought_ahead,
        watching(watch, board),
        seeing(config, opened, board, surroundings) as activity,
    ):

        async def apply(config: Config) -> Sequence[str]:
            opened.follow(config)
            operations.follow(config)
            follow_for_admin(config)
            pulls.follow(config)
            return ()

        operations = Operations(
            config,
            opened,
            Reloader(path, config, process, apply, notifier=notifier),
            brought_ahead,
            activity,
            log_switch,
            one(_alone),
        )
        async with (
            pull_ports(config, manager.given) as [ports],
            serving_pulls(config, opened, metrics, watch, ports) as pulls,
            serving_admin(
                config,
                opened,
                exposition,
                lambda: (listening.is_set(), {}),
                operations.console,
                manager.given,
            ) as follow_for_admin,
            notifier.watched(),
            operating(operations),
            # Last, and the first to end: whoever has waited for the ports to answer gives commands.
            pulls.answering(),
        ):
            listening.set()
            notifier.ready(f"serves on {', '.join(map(str, config.listen))}")
            try:
                yield
            finally:
                listening.clear()
                notifier.stopping(f"lets running answers end, for {GRACE:g} s at most")


async def _alone(_: Parameters) -> Mapping[str, Any]:
    """The command `restart`, where there are no workers."""
    raise CommandFailed(
        "it serves by one process (workers: 1), in whose place no other can be: with workers: 2 "
        "each is replaced by itself; with a socket unit of systemd, connections wait while the "
        "service is restarted"
    )


@dataclass(frozen=True, slots=True)
class PullServer:
    """What answers on the mirror's ports while the context of `answering` lasts, at whose end
    running answers are let end. `log`: has this process log so from now on. `retire`: for one that
    another process replaces on the same ports; it returns when nobody is connected any more, in
    some seconds, or when the event is set."""

    answering: Callable[[], AbstractAsyncContextManager[None]]
    follow: Follow
    log: Callable[[LogSettings], None]
    retire: Retire


@contextlib.asynccontextmanager
async def serving_pulls(
    config: Config, opened: Resources, metrics: Metrics, watch: Watch, ports: Sequence[Port]
) -> AsyncIterator[PullServer]:
    """All that answers on the mirror's ports. Raises CannotStart."""
    events, clock = opened.process.events, opened.process.clock
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))  # each client takes some
    async with contextlib.AsyncExitStack() as stack:
        live = Live(config, opened)
        stack.push_async_callback(live.close)
        sender = Sender(window=config.limits.idle)
        stack.callback(sender.close)
        try:
            sender.start()
        except RuntimeError as error:
            raise CannotStart(
                "no thread can be started; raise the limit of tasks "
                "(systemd: TasksMax, Docker: --pids-limit)"
            ) from error
        access = AccessLog(structlog.get_config()["logger_factory"]().msg, events, clock)
        access.tell(**lines_of(settings()))
        stack.callback(access.flush)  # behind the last answers
        watch.follow(under_way(access, opened))
        narrate(events)
        tracer = _tracer(config, clock, stack, metrics)
        response_cache = ResponseCache(access, clock, is_traced=tracer is not None)
        handler: Handler = V2(
            live.serving,
            sender,
            log=access,
            response_cache=response_cache,
            events=events,
            clock=clock,
            tracer=tracer,
        )
        names: list[HostedNames] = []  # imported where something is hosted

        def hosted_names(hosted: Hosted, response_cache: ResponseCache) -> HostedNames:
            from ..server.hosted.handler import HostedNames

            serving = hosted.serving(config.limits.idle)
            stack.push_async_callback(serving.receiver.close)
            names.append(
                HostedNames(
                    serving,
                    sender,
                    log=access,
                    response_cache=response_cache,
                    clock=clock,
                    tracer=tracer,
                )
            )
            return names[-1]

        def listening(
            handler: Handler, ports: Sequence[Port], response_cache: ResponseCache
        ) -> Listener:
            return Listener(
                handler,
                ports,
                response_cache=response_cache,
                idle=config.limits.idle,
                patience=config.limits.idle,
                events=events,
                tls=_shown(config),
            )

        own = [port for port in ports if port.section == LISTEN]
        others = [port for port in ports if port.section == HOSTED]
        hosted = opened.hosted
        if hosted is not None and hosted.config.hosts:
            at_hosts = hosted_names(hosted, response_cache)
            handler = by_host(handler, at_hosts, frozenset(hosted.config.hosts))
        listeners = Listeners([listening(handler, own, response_cache)])
        if hosted is not None and others:
            # Whatever the Host says there: so it has a table of its own.
            hosted_cache = ResponseCache(access, clock, is_traced=tracer is not None)
            listeners.add(listening(hosted_names(hosted, hosted_cache), others, hosted_cache))
        retire: Retire = listeners.retire
        if opened.fleet is not None:
            from .fleet import serving_peers

            at_peers = [port for port in ports if port.section == FLEET]
            uploads = None if opened.hosted is None else opened.hosted.for_peers(opened.store)
            giving = opened.fleet.giving(opened.store, opened.fills, config.workers > 1)
            unused = ResponseCache(access, clock)
            peers = await stack.enter_async_context(
                serving_peers(
                    opened.fleet, giving, uploads, at_peers, sender, unused, config.storage.path
                )
            )
            retire = _at_once(retire, peers.retire)
        if opened.upstreams is not None:
            ready = opened.upstreams.get_ready()
            await stack.enter_async_context(beside(ready, "authorities"))
        metrics.watch_connections(lambda: listeners.connections)
        events.emit(CertificateShown(_expires(config)))

        def log_so(settings: LogSettings) -> None:
            log_as(settings)
            access.tell(**lines_of(settings))

        def follow(config: Config) -> None:
            live.follow(config)
            response_cache.clear()
            events.emit(CertificateShown(_expires(config)))
            sender.limit(config.limits.idle)
            listeners.limit(config.limits.idle, config.limits.idle)
            listeners.show(_shown(config))
            for each in names:
                each.limit(config.limits.idle)

        @contextlib.asynccontextmanager
        async def answering() -> AsyncIterator[None]:
            listeners.start()
            log.info(
                "serving",
                version=__version__,
                listen=[address_of(port.socket) for port in ports],
                storage=str(config.storage.path),
                workers=config.workers,
                registries=sorted(config.registries),
                **facts(config),
            )
            try:
                yield
            finally:
                log.info("draining", seconds=GRACE)
                await listeners.stop(GRACE)

        yield PullServer(answering, follow, log_so, retire)


def _at_once(*ends: Retire) -> Retire:
    """All of these, at once."""

    async def retire(stop: asyncio.Event) -> None:
        await asyncio.gather(*(end(stop) for end in ends))

    return retire


@contextlib.asynccontextmanager
async def serving_admin(
    config: Config,
    opened: Resources,
    exposition: Callable[[], Awaitable[bytes]],
    ready: Callable[[], tuple[bool, Mapping[str, Any]]],
    console: Console,
    given: Given,
) -> AsyncIterator[Follow]:
    """The admin port. Raises CannotStart."""
    # Here, since the page's templates take memory, and workers import this module too.
    from ..server.admin.application import admin_application, admin_runner

    async with contextlib.AsyncExitStack() as stack:
        live = Live(config, opened.asking_nobody())
        stack.push_async_callback(live.close)
        now = config

        def follow(config: Config) -> None:
            nonlocal now
            now = config
            live.follow(config)

        async def missing(text: str, platform: str | None) -> Sequence[str]:
            image = parse_image(text, now.default_registry)
            wanted = platform or this_platform()
            with live.serving.use() as use:
                images = _images(use.value.registry, opened, now)
                return await images.missing(image.repository, image.reference, wanted)

        passed = given.of(config).admin
        host = _widest([each.getsockname()[0] for each in passed] or [config.admin.listen.host])

        def admission() -> Admission:
            token = now.admin.token_file
            may_write = now.admin.write and (token is not None or is_loopback(host))
            return Admission(token.get_secret_value() if token else None, may_write)

        if config.admin.write and not admission().write:
            raise CannotStart(
                f"admin.write: true at {host}, which systemd passed on and is not a loopback one; "
                "write token_file: too, with the path of a file that holds a secret"
            )
        application = admin_application(host, exposition, ready, missing, console, admission)
        runner = await admin_runner(application, config.limits.idle)
        assert runner.server is not None  # noqa: S101 - it has been set up
        port = SparePort(runner.server)
        try:
            if passed:
                port.take(passed)
            else:
                try:
                    await port.listen(config.admin.listen.host, config.admin.listen.port)
                except OSError as error:
                    raise cannot_listen(ADMIN, config.admin.listen, error) from error
            yield follow
        finally:
            port.close()
            await runner.cleanup()


def _widest(hosts: Sequence[str]) -> str:
    """The one by which most may come: of several, one that is not a loopback address."""
    return next((host for host in hosts if not is_loopback(host)), hosts[0])


@contextlib.asynccontextmanager
async def keeping_house(config: Config, opened: Resources, metrics: Metrics) -> AsyncIterator[None]:
    """The upkeep of the store and of the catalogue, and the count of what is here."""
    store, process = opened.store, opened.process
    metrics.watch(store.usage, store.space.disk)
    policy = UpkeepPolicy(partial_ttl=config.storage.partial_ttl, scrub=config.storage.scrub)
    catalogue = CatalogueUpkeep(opened.catalogue, store, opened.tags, process.events, process.clock)
    async with contextlib.AsyncExitStack() as stack:
        upkeep = Upkeep(store, policy, process.events).run()
        await stack.enter_async_context(beside(upkeep, "upkeep"))
        await stack.enter_async_context(beside(catalogue.run(), "upkeep of the catalogue"))
        if opened.far_keeping is not None:
            await stack.enter_async_context(beside(opened.far_keeping.run(), "second tier"))
        yield
    await opened.listener.flush()
    await catalogue.end()


def _images(registry: Reader, opened: Resources, config: Config) -> Images:
    return Images(registry, opened.store, lambda image: hindrances(config, image))


async def verify(config: Config) -> AsyncIterator[tuple[Digest, bool]]:
    """Rehashes all content, as fast as the disk gives it; tells of each piece whether it was sound.
    What was not is set aside, and filled again when it is asked for. A mirror may be serving
    meanwhile. Raises CannotStart."""
    async with store_beside(config, Process(set(config.registries))) as store:
        upkeep = Upkeep(store, UpkeepPolicy(scrub_speed=float("inf")))
        async for found in upkeep.scrub():
            yield found
        await upkeep.mend()


def settle() -> None:
    """To be called once, when all that lives as long as the process has been built: the garbage
    collector, which may have been disabled until then, does not look at it again. Nor for garbage
    among it: looking takes as long as a tenth of the start, and finds less than a megabyte."""
    gc.freeze()
    gc.enable()


def _tracer(
    config: Config, clock: Clock, stack: contextlib.AsyncExitStack, metrics: Metrics
) -> Tracer | None:
    """None where none is configured: then OpenTelemetry is not imported."""
    if config.tracing is None:
        return None
    from ..tracing.spans import OtelTracer

    # One mirror at a time has the folder, all its processes together.
    mirror = str(config.storage.path.resolve())
    tracer = OtelTracer(config.tracing.otlp, config.tracing.sample, clock, mirror)
    stack.push_async_callback(aside, tracer.close)
    exporter = tracer.exporter
    metrics.watch_spans(lambda: exporter.sent, lambda: exporter.dropped)
    return tracer


def _expires(config: Config) -> float:
    """See CertificateShown."""
    ends = [tls.facts.ends.timestamp() for tls in certificates_of(config).values()]
    return min(ends, default=0.0)


def _shown(config: Config) -> ssl.SSLContext | None:
    """To clients, at the ports that speak TLS."""
    if config.tls is None:
        return None
    authorities = config.tls.client_ca
    return serving_context(
        config.tls.pem, authorities.text.get_secret_value() if authorities else None
    )
