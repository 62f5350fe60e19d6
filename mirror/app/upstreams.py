"""The upstreams of a process: they outlive the configuration that named them, as far as the next
one names them too."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from ..clock import Clock
from ..contracts.bulletins import Bulletins
from ..contracts.events import EndpointJoined, EndpointLeft
from ..contracts.upstream import Upstream
from ..events import Events
from ..frozen import dataclass
from ..storage.records.accounts import AccountRecords
from ..switch import Switch
from ..threads import aside
from ..tls import verifying_context
from ..upstream.client.logins import name_of
from ..upstream.client.remote import Remote
from ..upstream.endpoint import Endpoint, HelperLogin
from ..upstream.http.proxying import ProxyLogins, Ways
from ..upstream.http.transport import Transport
from ..upstream.offline import Offline
from ..upstream.pool.bandwidth import Bandwidth
from ..upstream.pool.connections import Slots
from ..upstream.pool.endpoint_state import EndpointState, Member
from ..upstream.pool.pool import Pool
from ..upstream.proxies import Routes
from ..upstream.replaceable import ReplaceableUpstream
from ..upstream.retries import SOON, Retries
from .endpoints import host_of

_CONTEXTS = 32  # of different `ca_file`s
_Key = tuple[Endpoint, tuple[str, ...]]


@dataclass(eq=False, slots=True)
class _Kept:
    """An endpoint, with what was learnt of it, its connections and its tokens."""

    state: EndpointState
    remote: Remote
    pools: int = 0

    async def close(self) -> None:
        await self.state.close()
        await self.remote.close()


@dataclass(frozen=True, slots=True)
class _Pooled:
    """The endpoints of a pool, and the generation of the configuration that has made it."""

    generation: int
    keys: Sequence[_Key]


class Upstreams:
    """Of each registry its current pool. An endpoint is there once, however many pools have it, and
    as long as one has."""

    def __init__(
        self,
        events: Events,
        clock: Clock,
        accounts: AccountRecords,
        routes: Routes,
        bulletins: Bulletins | None = None,
    ) -> None:
        """`routes` are the environment's, for endpoints that have none of their own. `bulletins`
        are the fleet's, where there is one."""
        self._bulletins = bulletins
        self._events = events
        self._clock = clock
        self._accounts = accounts
        self._bandwidth = Bandwidth(clock)
        self._ways = Ways(routes, ProxyLogins(clock))
        # 20 ms each: not where no upstream is asked.
        self._tls = functools.lru_cache(_CONTEXTS)(verifying_context)
        self._kept: dict[_Key, _Kept] = {}
        self._slots: WeakValueDictionary[tuple[str, int], Slots] = WeakValueDictionary()
        self._pools: dict[Pool, _Pooled] = {}
        self._generations = itertools.count()
        self._switches: dict[str, Switch[Upstream]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def endpoints(self) -> Sequence[str]:
        """The names of those that are open."""
        return tuple(endpoint.name for endpoint, _ in self._kept)

    def generation(self) -> int:
        """Of one more configuration: larger than those before."""
        return next(self._generations)

    def pool(self, endpoints: Sequence[Endpoint], generation: int) -> Pool:
        """A pool of these endpoints, as they are known by now, to be begun with or given back."""
        keys = [_key(endpoint) for endpoint in endpoints]
        kept = [self._endpoint(key) for key in keys]
        pool = Pool(
            [one.state for one in kept], self._clock, events=self._events, bandwidth=self._bandwidth
        )
        for one in kept:
            one.pools += 1
        self._pools[pool] = _Pooled(generation, keys)
        return pool

    def upstream(self, registry: str) -> Upstream:
        """What asks the current pool of this registry: nobody, until there is one."""
        switch: Switch[Upstream] = self._switches.setdefault(registry, Switch(Offline()))
        return ReplaceableUpstream(switch)

    def begin(self, registry: str, pool: Pool) -> None:
        """From now on this pool is asked. The one before is closed when nothing uses it. A later
        configuration's stays: requests of one that was replaced may still name registries."""
        switch: Switch[Upstream] = self._switches.setdefault(registry, Switch(Offline()))
        old, new = switch.current, self._pools[pool]
        if isinstance(old, Pool) and self._pools[old].generation > new.generation:
            self._close_later(self.give_back(pool))
            return
        if isinstance(old, Pool):
            self._tell_left(key for key in self._pools[old].keys if key not in new.keys)
            self._close_later(self._close_unused(old, switch.replace(pool)))
        else:
            switch.replace(pool)
        self._tell_joined(new.keys)

    def is_current(self, registry: str, pool: Pool) -> bool:
        switch = self._switches.get(registry)
        return switch is not None and switch.current is pool

    async def end(self, registry: str, pool: Pool) -> None:
        """The registry is asked no more, if this is its current pool, which is then closed with
        whatever uses it."""
        if self.is_current(registry, pool):
            self._switches.pop(registry).replace(Offline())
            await self.give_back(pool)

    async def give_back(self, pool: Pool) -> None:
        """Closes those of its endpoints that no other pool has."""
        given = self._pools.pop(pool, None)
        for key in given.keys if given is not None else ():
            kept = self._kept[key]
            kept.pools -= 1
            if not kept.pools:
                del self._kept[key]
                name = key[0].name
                if all(other.name != name for other, _ in self._kept):
                    self._tell_left([key])
                await kept.close()

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        self._pools.clear()
        while self._kept:
            await self._kept.popitem()[1].close()

    async def _close_unused(self, pool: Pool, unused: Callable[[], Awaitable[object]]) -> None:
        await unused()
        await self.give_back(pool)

    def _close_later(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _tell_left(self, keys: Iterable[_Key]) -> None:
        for endpoint, _ in keys:
            self._events.emit(EndpointLeft(endpoint.registry, endpoint.name))

    def _tell_joined(self, keys: Iterable[_Key]) -> None:
        for endpoint, _ in keys:
            if endpoint.addresses.configured:
                self._events.emit(EndpointJoined(endpoint.registry, endpoint.name))

    def _endpoint(self, key: _Key) -> _Kept:
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = self._opened(key[0])
        else:
            kept.remote.look_again()
        return kept

    async def get_ready(self) -> None:
        """Reads the authorities before anybody waits for it."""
        for authorities in {endpoint.connecting.authorities for endpoint, _ in self._kept}:
            await aside(self._tls, authorities)

    def remote(self, endpoint: Endpoint) -> Remote:
        """The endpoint alone, outside of any pool. The caller closes it."""
        tls = functools.partial(self._tls, endpoint.connecting.authorities)
        transport = Transport(endpoint, self._events, tls=tls, ways=self._ways)
        # Of those that clients name there may be any number: no files for them.
        notes = self._accounts if endpoint.addresses.configured else None
        retries = Retries(SOON, self._clock)
        return Remote(endpoint, transport, retries, self._events, self._clock, notes)

    def _opened(self, endpoint: Endpoint) -> _Kept:
        remote = self.remote(endpoint)
        member = Member(
            endpoint.name,
            remote,
            endpoint.trust,
            endpoint.limits.connections,
            self._slots_of(endpoint),
            remote.ping,
            endpoint.registry,
        )
        state = EndpointState(member, self._clock, self._events)
        if self._bulletins is not None and endpoint.addresses.configured:
            remote.share(self._bulletins)
            state.share(self._bulletins, _subject(endpoint))
        return _Kept(state, remote)

    def _slots_of(self, endpoint: Endpoint) -> Slots:
        """All endpoints at a host share its connections; those of one that clients name too, also
        at a host that the configuration names."""
        host, limit = host_of(endpoint.url), endpoint.limits.connections
        slots = self._slots.get((host, limit))
        if slots is None and not endpoint.addresses.configured:
            slots = next((one for at, one in list(self._slots.items()) if at[0] == host), None)
        if slots is None:
            slots = self._slots[host, limit] = Slots(host, limit)
        return slots


def _subject(endpoint: Endpoint) -> str:
    """What an endpoint is to all nodes: another login may be limited apart."""
    names = " ".join(name_of(login) for login in endpoint.logins.credentials)
    return f"endpoint {endpoint.registry} {endpoint.url} {names}"


def _key(endpoint: Endpoint) -> _Key:
    """What makes an endpoint the same: all that the configuration says of it, what its certificates
    are included, and the files of its secrets, from which they are read again."""
    sources = (
        None if isinstance(login, HelperLogin) else login.source
        for login in endpoint.logins.credentials
    )
    return endpoint, tuple(source.place() for source in sources if source is not None)
