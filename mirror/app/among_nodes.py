"""What the nodes that share a Redis tell one another."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from ..config import Config
from ..contracts.bulletins import Bulletins
from ..contracts.records import Absences, Links
from ..frozen import dataclass
from ..redis_url import RedisAccess
from ..tasks import beside
from .process import Process


@dataclass(frozen=True, slots=True)
class AmongNodes:
    """`links`: of this node's own, those that others of its fleet count too. `bulletins` None: it
    is of none."""

    links: Callable[[Links], Links]
    absences: Absences
    bulletins: Bulletins | None


@contextlib.asynccontextmanager
async def among_nodes(config: Config, process: Process) -> AsyncIterator[AmongNodes | None]:
    """None where the tag memory is embedded: then there is one node."""
    access = redis_access(config)
    if access is None:
        yield None
        return
    # Not before it is needed: see tag_store.
    from ..storage.among_nodes.absences import SharedAbsences
    from ..storage.among_nodes.bulletins import FleetBulletins
    from ..storage.among_nodes.exchange import Exchange
    from ..storage.among_nodes.links import FleetLinks

    exchange = Exchange(access, process.events)
    fleet, clock = config.fleet, process.clock

    def links(own: Links) -> Links:
        return own if fleet is None else FleetLinks(own, exchange, fleet.secret, clock)

    bulletins = None if fleet is None else FleetBulletins(exchange, fleet.secret)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(exchange.close)
        await stack.enter_async_context(beside(exchange.run(), "among nodes"))
        yield AmongNodes(links, SharedAbsences(exchange, clock), bulletins)


def redis_access(config: Config) -> RedisAccess | None:
    """To the Redis of `tags.store`; None where that is embedded."""
    tags = config.tags
    if tags.store is None:
        return None
    return RedisAccess(
        tags.store.get_secret_value(),
        tags.password.get_secret_value() if tags.password else None,
        tags.ca_file,
        tags.sentinel_password_file.get_secret_value() if tags.sentinel_password_file else None,
    )
