"""Mirrors that fetch together: what a process has open for them.

What only they need is imported here, and only where there is a section `fleet`.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..config import DnsName, FleetConfig
from ..frozen import dataclass
from ..peering import Proof
from ..pullthrough.fills.table import Fills
from ..pullthrough.fleet.fetches import Fetches
from ..pullthrough.fleet.following import Following
from ..pullthrough.giving import Giving
from ..redis_url import RedisAccess
from ..server.http.accepting import Port
from ..server.http.listening import Listener
from ..server.http.response_cache import ResponseCache
from ..server.http.sending import Sender
from ..server.peers.handler import PeerPort
from ..server.peers.uploads import PeerUploads
from ..storage.disk.store import DiskContent
from ..storage.fleet.leases import RedisLeases
from ..storage.redis_client import redis_client
from ..tasks import beside
from ..times import EXCHANGES, STORES
from ..tls import serving_context, verifying_context
from ..upstream.http.resolver import Resolver
from ..upstream.peers.client import HttpPeers
from ..upstream.peers.nodes import Find, FleetNodes, by_dns, listed
from .process import Process

_GRACE = 1.0
"""Seconds that nodes have to read on, when the mirror has stopped: they go on elsewhere."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The other nodes: which there are, what they give, and which of them fetches what. `proof`:
    how all of them know one another. `following`: whom this process follows, and what it fetches
    for them."""

    config: FleetConfig
    process: Process
    proof: Proof
    nodes: FleetNodes
    peers: HttpPeers
    leases: RedisLeases
    following: Following

    def giving(self, store: DiskContent, fills: Fills, processes: bool) -> Giving:
        """What this node gives to them. `processes`: there are others of this node."""
        process = self.process
        return Giving(
            store,
            fills,
            self.following.fetches,
            process.events,
            process.clock,
            processes=processes,
        )


@contextlib.asynccontextmanager
async def neighbours(
    fleet: FleetConfig, access: RedisAccess, process: Process
) -> AsyncIterator[Neighbours]:
    """Raises nothing where Redis, DNS or other nodes are away."""
    async with contextlib.AsyncExitStack() as stack:
        resolver = Resolver(EXCHANGES.dns)
        stack.push_async_callback(resolver.close)
        find = await naming(fleet, access, process, resolver, stack, enters=True)
        nodes = FleetNodes(fleet.own_url, find, process.events)
        await stack.enter_async_context(beside(nodes.run(), "nodes of the fleet"))
        proof = Proof(fleet.secret, fleet.own_url, process.clock.wall)
        peers = HttpPeers(
            nodes, proof, process.events, process.clock, resolver, peers_context(fleet)
        )
        stack.push_async_callback(peers.close)
        client = redis_client(access, 2 * STORES.redis)
        leases = RedisLeases(client, fleet.own_url, fleet.secret, process.events)
        stack.push_async_callback(leases.close)
        fetches = Fetches(leases, process.events)
        stack.push_async_callback(fetches.close)
        following = Following(fetches, peers, nodes, process.events, process.clock)
        yield Neighbours(fleet, process, proof, nodes, peers, leases, following)


async def naming(
    fleet: FleetConfig,
    access: RedisAccess,
    process: Process,
    resolver: Resolver,
    stack: contextlib.AsyncExitStack,
    *,
    enters: bool,
) -> Find:
    """Who names the nodes. In Redis, this one `enters` itself, where it serves."""
    if isinstance(fleet.nodes, DnsName):
        scheme = urlsplit(fleet.own_url).scheme
        return by_dns(scheme, fleet.nodes.name, fleet.nodes.port, resolver)
    if fleet.nodes != "redis":
        return listed(fleet.nodes)
    from ..storage.fleet.nodes import RedisNodes

    client = redis_client(access, STORES.redis)
    nodes = RedisNodes(client, fleet.own_url, fleet.secret, process.clock, 4 * STORES.redis)
    stack.push_async_callback(nodes.close)
    if enters:
        await stack.enter_async_context(beside(nodes.stay(), "entered among the nodes"))
    return nodes.find


def peers_context(fleet: FleetConfig) -> ssl.SSLContext | None:
    """By what other nodes are verified; None where none speaks TLS."""
    if fleet.tls is None:
        return None
    authorities = fleet.ca_file.text.get_secret_value() if fleet.ca_file else ""
    return verifying_context(authorities, fleet.client_pem)


def store_mark(path: Path) -> str:
    """By which a node tells itself from another one that was given the same URL: of its host's name
    and of its store's path, which says neither."""
    words = f"{socket.gethostname()}:{path.resolve()}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


@contextlib.asynccontextmanager
async def serving_peers(
    known: Neighbours,
    giving: Giving,
    uploads: PeerUploads | None,
    ports: Sequence[Port],
    sender: Sender,
    unused: ResponseCache,
    store_path: Path,
) -> AsyncIterator[Listener]:
    """The peer port, and what answers there. `unused`: nothing is answered from it."""
    process, tls = known.process, known.config.tls
    authorities = tls.client_ca.text.get_secret_value() if tls and tls.client_ca else None
    listener = Listener(
        PeerPort(
            giving,
            uploads,
            known.proof,
            sender,
            process.events,
            process.clock,
            store_mark(store_path),
        ),
        ports,
        response_cache=unused,
        events=process.events,
        tls=serving_context(tls.pem, authorities) if tls else None,
    )
    listener.start()
    try:
        yield listener
    finally:
        await listener.stop(_GRACE)
        await giving.close()
