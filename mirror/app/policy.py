"""What a configuration makes of what is open: the rooms stacked, so that they answer for images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from ..config import Config, RegistryConfig
from ..contracts.registry import Reader
from ..contracts.upstream import Upstream
from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.patterns import Patterns
from ..oci.reference import Repository, parse_image
from ..policy.access import AccessGuard, AccessRule
from ..policy.hosted_first import HostedFirst, Unchallenged
from ..policy.on_demand import OnDemand, Opened
from ..policy.probe import Probed
from ..policy.redirecting import Redirecting
from ..policy.routed import Routed
from ..policy.tag_age import TagAges
from ..policy.unconfigured import Shown, UnconfiguredGuard
from ..policy.visibility import RepositoryVisibility, anybody, nobody
from ..pullthrough.cache import PullThrough
from ..pullthrough.fleet.together import Together
from ..pullthrough.freshness import Freshness, FreshnessRule, Rules
from ..pullthrough.policy import CachePolicy, Pins
from ..pullthrough.prefetch import Prefetcher
from ..pullthrough.second_tier import Tiered, TierState
from ..pullthrough.shared import Shared
from ..server.v2.naming import Naming
from ..server.v2.serving import Serving
from ..storage.tags.history_bounds import MOST
from ..upstream.endpoint import Endpoint
from ..upstream.offline import Offline
from ..upstream.pool.pool import Pool
from .endpoints import configured_endpoints, unconfigured_endpoint
from .resources import Resources
from .upstreams import Upstreams


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are answered, and the pools that are asked for it, by registry: once it has
    begun. Closed with `closing`."""

    serving: Serving
    upstreams: Upstreams | None
    pools: dict[str, Pool]
    closing: contextlib.AsyncExitStack

    def begin(self) -> None:
        """From now on its pools are asked, by what others have begun, too."""
        for registry, pool in self.pools.items():
            if self.upstreams is not None:
                self.upstreams.begin(registry, pool)

    def last_asked(self) -> Sequence[str]:
        """The registries of which no other policy has a pool by now."""
        if self.upstreams is None:
            return ()
        return [name for name, pool in self.pools.items() if self.upstreams.is_current(name, pool)]

    async def close(self) -> None:
        """Ends what goes on behind its answers, and the pools that no other has replaced."""
        await self.closing.aclose()
        for registry, pool in list(self.pools.items()):
            if self.upstreams is not None:
                await self.upstreams.end(registry, pool)


def policy_of(config: Config, opened: Resources) -> Policy:
    """Opens nothing, and asks nobody. Where there are no `upstreams`, nobody is asked later either:
    it answers for what the mirror could answer without any."""
    return _Stacking(config, opened).policy()


class _Stacking:
    def __init__(self, config: Config, opened: Resources) -> None:
        self._config = config
        self._opened = opened
        self._clock = opened.process.clock
        self._upstreams = None if config.offline else opened.upstreams
        self._generation = opened.upstreams.generation() if opened.upstreams is not None else 0
        self._pins = pins_of(config)
        self._kept = Patterns(config.storage.pin)
        self._pools: dict[str, Pool] = {}
        self._closing = contextlib.AsyncExitStack()

    def policy(self) -> Policy:
        config, opened = self._config, self._opened
        endpoints = configured_endpoints(config)
        registries = {
            name: self._configured(name, registry, endpoints[name])
            for name, registry in config.registries.items()
        }
        reader: Reader = Routed(registries, self._others())
        if config.access:
            reader = AccessGuard(
                reader, _rules(config), TagAges(reader, opened.tags, MOST, self._clock)
            )
        reader = Probed(reader, frozenset(config.registries))
        serving = Serving(reader, _naming(config), config.limits.idle, self._still(config))
        return Policy(serving, self._upstreams, self._pools, self._closing)

    def _still(self, config: Config) -> Callable[[Repository], Callable[[], bool] | None]:
        """Of repositories of one's own, what tells of their changes: what is private from now on,
        or deleted, is given to nobody by the mirror's names either."""
        hosted = self._opened.hosted
        own = {name for name, registry in config.registries.items() if registry.hosted}
        if hosted is None:
            return lambda _: None
        marks = hosted.marks
        return lambda each: marks.still(each.name) if each.registry in own else None

    def _configured(
        self, name: str, registry: RegistryConfig, endpoints: Sequence[Endpoint]
    ) -> Reader:
        hosted = self._opened.hosted
        if not registry.hosted or hosted is None:
            return self._mirrored(name, registry, endpoints)
        own = Unchallenged(hosted.registry)
        if not endpoints:
            return own
        return HostedFirst(own, hosted.has, self._mirrored(name, registry, endpoints))

    def _mirrored(
        self, name: str, registry: RegistryConfig, endpoints: Sequence[Endpoint]
    ) -> Reader:
        tier = self._opened.tier
        upstream: Upstream = Offline()
        if self._upstreams is not None:
            self._pools[name] = self._upstreams.pool(endpoints, self._generation)
            upstream = self._upstreams.upstream(name)
        fleet = None if self._upstreams is None else self._opened.fleet
        content = upstream if fleet is None else Together(upstream, fleet.following)
        content = content if tier is None else Tiered(content, tier)
        cache = self._cache(self._closing, registry, content, self._opened.shared)
        redirects = self._opened.redirects
        visible = RepositoryVisibility(
            cache if redirects is None else Redirecting(cache, redirects.find),
            upstream,
            self._opened.links,
            self._clock,
            strangers=_strangers(tier, endpoints, fleet is not None),
            promised=cache.has_promised,
        )
        self._closing.push_async_callback(visible.close)
        return visible

    def _others(self) -> Reader | None:
        """The registries that only clients name, where they may."""
        if not self._config.allow_any_registry:
            return None
        others = OnDemand(self._named, self._clock)
        self._closing.push_async_callback(others.close)
        return others

    def _named(self, name: str) -> Opened:
        opened, closing = self._opened, contextlib.AsyncExitStack()
        upstream: Upstream = Offline()
        if self._upstreams is not None:
            endpoint = unconfigured_endpoint(name, self._config.workers)
            pool = self._upstreams.pool([endpoint], self._generation)
            self._pools[name] = pool
            self._upstreams.begin(name, pool)
            closing.push_async_callback(self._forget, name, pool)
            upstream = self._upstreams.upstream(name)
        guests = dataclasses.replace(opened.shared, links=opened.other_links)
        cache = self._cache(closing, RegistryConfig(endpoints=()), upstream, guests)
        guard = UnconfiguredGuard(
            cache,
            upstream,
            opened.store,
            Shown(opened.links, opened.other_links),
            promised=cache.has_promised,
            largest=self._config.limits.blob,
        )
        closing.push_async_callback(guard.close)
        return Opened(guard, lambda: opened.fills.is_idle(name), closing.aclose)

    async def _forget(self, name: str, pool: Pool) -> None:
        """Nobody asks this registry any more, by this policy."""
        self._pools.pop(name, None)
        if self._upstreams is not None and self._upstreams.is_current(name, pool):
            self._opened.shared.forget(name)
            await self._upstreams.end(name, pool)

    def _cache(
        self,
        closing: contextlib.AsyncExitStack,
        registry: RegistryConfig,
        content: Upstream,
        shared: Shared,
    ) -> PullThrough:
        offline = self._config.offline
        is_ahead = self._upstreams is not None and self._config.prefetch
        cache = PullThrough(
            content,
            shared,
            CachePolicy(freshness_of(registry, offline), self._pins, self._kept),
            Prefetcher(content, shared) if is_ahead else None,
        )
        closing.push_async_callback(cache.close)
        return cache


def _strangers(
    tier: TierState | None, endpoints: Sequence[Endpoint], has_nodes: bool
) -> Callable[[Digest], Awaitable[bool]]:
    """Whether anybody but the registry may deliver a digest (see RepositoryVisibility)."""
    if has_nodes or any(one.trust != "tags" for one in endpoints):
        return anybody
    return nobody if tier is None else tier.has


def _rules(config: Config) -> list[AccessRule]:
    return [
        AccessRule(rule.name, Patterns(rule.allow or rule.deny), bool(rule.allow), rule.min_age)
        for rule in config.access
    ]


def _naming(config: Config) -> Naming:
    return Naming(
        default=config.default_registry,
        configured=frozenset(config.registries),
        hosts={host: name for name, each in config.registries.items() for host in each.hosts},
        any_registry=config.allow_any_registry,
    )


def freshness_of(config: RegistryConfig, offline: bool) -> Rules:
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


def pins_of(config: Config) -> Pins:
    images = ((parse_image(given, config.default_registry), to) for given, to in config.pin.items())
    return {(image.repository, str(image.reference)): to for image, to in images}
