"""All that answers for images, as the configuration describes it: the rooms stacked."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import ssl
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from ..clock import Clock
from ..config import Config, Credentials, EndpointConfig, RegistryConfig
from ..contracts.registry import Reader
from ..contracts.upstream import Upstream
from ..events import Events
from ..oci.patterns import Patterns
from ..oci.reference import parse_image
from ..oci.registries import url_of
from ..policy.access import AccessGuard, AccessRule
from ..policy.on_demand import OnDemand, Opened
from ..policy.routed import Routed
from ..policy.tag_age import TagAges
from ..policy.unconfigured import UnconfiguredGuard
from ..policy.visibility import RepositoryVisibility
from ..pullthrough.cache import PullThrough
from ..pullthrough.freshness import Freshness, FreshnessRule, Rules
from ..pullthrough.policy import CachePolicy, Pins
from ..pullthrough.prefetch import Prefetcher
from ..pullthrough.second_tier import Tiered, TierState
from ..pullthrough.shared import Shared
from ..server.v2.naming import Naming
from ..storage.records.accounts import AccountRecords
from ..storage.tags.history_bounds import MOST
from ..tls import verifying_context
from ..upstream.client.remote import Remote
from ..upstream.egress import Allowed
from ..upstream.endpoint import CONNECTIONS, Endpoint, EndpointLimits, GivenToken, Login, Trust
from ..upstream.endpoint import Credentials as Shown
from ..upstream.http.transport import Transport
from ..upstream.offline import Offline
from ..upstream.pool.connections import Slots
from ..upstream.pool.endpoint_state import EndpointState, Member
from ..upstream.pool.line import Line
from ..upstream.pool.pool import Pool
from ..upstream.retries import Policy, Retries
from .logins import SecretFile, name_of
from .resources import Resources


def registry_of(
    stack: contextlib.AsyncExitStack, config: Config, opened: Resources, *, asking: bool
) -> Reader:
    """All that answers for images, by what is open; closed with the stack. Not `asking`: for no
    upstream, and for what the configured mirror would answer without any."""
    events, clock, store, fills = (
        opened.process.events,
        opened.process.clock,
        opened.store,
        opened.fills,
    )
    kept = Patterns(config.storage.pin)
    pins = _pins(config)
    tls = functools.cache(verifying_context)  # 20 ms: not where no upstream is asked
    slots = _slots(config)
    line = Line(clock)
    tier = opened.tier if asking else None

    def cached(
        stack: contextlib.AsyncExitStack,
        registry: RegistryConfig,
        endpoints: Sequence[Endpoint],
        shared: Shared,
        tier: TierState | None,
    ) -> tuple[PullThrough, Upstream]:
        upstream: Upstream = Offline()
        prefetcher = None
        if asking and not config.offline:
            upstream = _pool(stack, endpoints, events, clock, tls, opened.accounts, slots, line)
        content = upstream if tier is None else Tiered(upstream, tier)
        if asking and not config.offline and config.prefetch:
            prefetcher = Prefetcher(content, shared)
        policy = CachePolicy(_freshness(registry, config.offline), pins, kept)
        cache = PullThrough(content, shared, policy, prefetcher)
        stack.push_async_callback(cache.close)
        return cache, upstream

    registries: dict[str, Reader] = {}
    for name, registry in config.registries.items():
        cache, upstream = cached(
            stack, registry, _endpoints(name, registry, slots), opened.shared, tier
        )
        has_strangers = tier is not None or any(
            endpoint.trust != "tags" for endpoint in registry.endpoints
        )
        linked = RepositoryVisibility(
            cache,
            upstream,
            opened.links,
            clock,
            has_strangers=has_strangers,
            promised=cache.has_promised,
        )
        stack.push_async_callback(linked.close)
        registries[name] = linked
    others = None
    if config.allow_any_registry:
        guests = dataclasses.replace(opened.shared, links=opened.other_links)

        def named(name: str) -> Opened:
            within = contextlib.AsyncExitStack()
            endpoint = _unconfigured(name, config.workers)
            within.callback(opened.shared.forget, name)
            cache, upstream = cached(within, RegistryConfig(endpoints=()), [endpoint], guests, None)
            unvouched = UnconfiguredGuard(
                cache,
                upstream,
                store,
                opened.links,
                opened.other_links,
                promised=cache.has_promised,
                largest=config.limits.blob,
            )
            within.push_async_callback(unvouched.close)
            return Opened(unvouched, lambda: fills.is_idle(name), within.aclose)

        others = OnDemand(named, clock)
        stack.push_async_callback(others.close)
    routed = Routed(registries, others)
    if not config.access:
        return routed
    rules = [
        AccessRule(rule.name, Patterns(rule.allow or rule.deny), bool(rule.allow), rule.min_age)
        for rule in config.access
    ]
    return AccessGuard(routed, rules, TagAges(routed, opened.tags, MOST, clock))


def _pool(
    stack: contextlib.AsyncExitStack,
    endpoints: Sequence[Endpoint],
    events: Events,
    clock: Clock,
    tls: Callable[[], ssl.SSLContext],
    accounts: AccountRecords,
    slots: Mapping[str, Slots],
    line: Line,
) -> Pool:
    """One registry's endpoints, as one upstream. `slots`: of each configured host."""
    states = []
    for endpoint in endpoints:
        transport = Transport(endpoint, events, tls=tls())
        # Of those that clients name there may be any number: no files for them.
        notes = accounts if endpoint.configured else None
        remote = Remote(endpoint, transport, Retries(Policy(), clock), events, clock, notes)
        stack.push_async_callback(remote.close)
        state = EndpointState(
            Member(
                endpoint.name,
                remote,
                endpoint.trust,
                endpoint.limits.connections,
                slots.get(_host(endpoint.url)),
                remote.ping,
            ),
            clock,
            events,
        )
        stack.push_async_callback(state.close)
        states.append(state)
    return Pool(states, clock, events=events, line=line)


def naming_of(config: Config) -> Naming:
    return Naming(
        default=config.default_registry,
        configured=frozenset(config.registries),
        hosts={host: name for name, each in config.registries.items() for host in each.hosts},
        any_registry=config.allow_any_registry,
    )


def _freshness(config: RegistryConfig, offline: bool) -> Rules:
    rules = []
    for given in config.freshness:
        periods = Freshness(
            ttl=given.ttl,
            stale_while_revalidate=given.stale_while_revalidate,
            stale=given.stale,
            negative_ttl=given.negative_ttl,
            keeps_gone=given.on_404 == "keep",
            immutable=given.immutable,
        )
        rules.append(
            FreshnessRule(Patterns(given.match), periods.offline() if offline else periods)
        )
    return Rules(rules, Freshness().offline() if offline else Freshness())


def _pins(config: Config) -> Pins:
    images = ((parse_image(given, config.default_registry), to) for given, to in config.pin.items())
    return {(image.repository, str(image.reference)): to for image, to in images}


def _slots(config: Config) -> Mapping[str, Slots]:
    """Of each host that has endpoints: the least that one of them says, and of that this worker's
    part."""
    limits: dict[str, int] = {}
    for registry in config.registries.values():
        for endpoint in registry.endpoints:
            host = _host(endpoint.url)
            limits[host] = min(limits.get(host, endpoint.connections), endpoint.connections)
    return {host: Slots(host, _part(limit, config.workers)) for host, limit in limits.items()}


def _part(connections: int, workers: int) -> int:
    return max(1, connections // workers)


def _host(url: str) -> str:
    """`host:port`, in lower case."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _endpoints(name: str, config: RegistryConfig, slots: Mapping[str, Slots]) -> list[Endpoint]:
    allowed = Allowed.parse(map(str, config.allow_private))
    return [
        Endpoint(
            name=name_of(endpoint),
            url=endpoint.url,
            registry=name,
            trust=Trust(endpoint.trust),
            credentials=tuple(map(_shown, _credentials(config, endpoint))),
            realm=config.realm,
            quota_low=config.quota.low,
            allowed=allowed,
            limits=EndpointLimits(connections=slots[_host(endpoint.url)].limit),
        )
        for endpoint in config.endpoints
    ]


def _unconfigured(name: str, workers: int) -> Endpoint:
    """The endpoint of a registry that a client named. All of them count as one: a metric's labels
    are from a bounded set."""
    return Endpoint(
        name="unconfigured",
        url=url_of(name),
        registry=name,
        configured=False,
        limits=EndpointLimits(connections=_part(CONNECTIONS, workers)),
    )


def _credentials(config: RegistryConfig, endpoint: EndpointConfig) -> Sequence[Credentials]:
    """The endpoint's own, else the registry's. An accelerator that only passes the registry's
    content on has no business with those."""
    if endpoint.credentials or endpoint.trust != "tags":
        return endpoint.credentials
    return config.credentials


def _shown(credentials: Credentials) -> Shown:
    secret, source = credentials.secret, SecretFile(credentials.secret)
    if credentials.username is None:
        return GivenToken(secret, source)
    return Login(credentials.username, secret, source)
