"""The other nodes of a fleet: whether they are named, answer, and go by the same clock."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Collection

from ...clock import Clock
from ...config import Config, FleetConfig
from ...peering import SKEW, Proof
from ...times import EXCHANGES
from ...upstream.http.resolver import Resolver
from ...upstream.peers.checkup import Greeting, greeting
from ..among_nodes import redis_access
from ..fleet import naming, peers_context, store_mark
from ..process import Process
from .findings import Diagnosis, bad, good, warn

_MOST = 32  # of the others are asked, any of them where there are more
_WORTH_TELLING = 5.0  # seconds


async def nodes(config: Config) -> AsyncGenerator[Diagnosis, None]:
    """Nothing, where there is no fleet."""
    fleet, process = config.fleet, Process(set())
    access = redis_access(config)
    if fleet is None or access is None:
        return
    proof, tls = Proof(fleet.secret, fleet.own_url, process.clock.wall), peers_context(fleet)
    own = fleet.own_url
    here = store_mark(config.storage.path)
    yield _own(fleet, await greeting(own, proof, tls, Clock().wall), here)
    async with contextlib.AsyncExitStack() as stack:
        resolver = Resolver(EXCHANGES.dns)
        stack.push_async_callback(resolver.close)
        find = await naming(fleet, access, process, resolver, stack, enters=False)
        try:
            found = set(await find())
        except OSError as error:
            mend = "until then each node fetches for itself"
            yield bad("fleet.nodes", f"nobody says which nodes there are: {error}", mend)
            return
    yield _named(fleet, found)
    others = sorted(found - {own})
    asked = random.sample(others, min(len(others), _MOST))
    answers = await asyncio.gather(*(greeting(url, proof, tls, Clock().wall) for url in asked))
    for url, answer in zip(asked, answers, strict=True):
        yield _other(url, answer)


def _own(fleet: FleetConfig, answer: Greeting, here: str) -> Diagnosis:
    url = fleet.own_url
    if answer.store not in ("", here):
        words = f"{url} leads to another mirror, with a store of its own"
        return bad(
            "fleet.url", words, "give each node its own url: by it the others reach this one"
        )
    if not answer.fault:
        return good("fleet.url", f"{url} leads to this node")
    if not answer.is_there:
        mend = f"the others reach it no more than this: a mirror has to serve, at {fleet.listen}"
        return warn("fleet.url", f"{url} is not reached from here: {answer.fault}", mend)
    mend = "write the URL by which others reach this node: it leads to something else"
    return bad("fleet.url", f"{url}: {answer.fault}", mend)


def _named(fleet: FleetConfig, found: Collection[str]) -> Diagnosis:
    where = "Redis" if fleet.nodes == "redis" else "DNS"
    if where == "Redis" and set(found) == {fleet.own_url}:
        mend = "others that serve have another secret, or another Redis, if there are to be any"
        return warn("fleet.nodes", "this node alone is named", mend)
    if fleet.own_url in found:
        return good("fleet.nodes", f"{len(found)} are named, this one among them")
    words = f"{len(found)} are named, and {fleet.own_url} is not: no other asks it"
    if where == "Redis":
        return warn("fleet.nodes", words, "a mirror enters itself while it serves")
    return warn("fleet.nodes", words, "its url is to be an address of that name, and ready there")


def _other(url: str, answer: Greeting) -> Diagnosis:
    if answer.fault:
        mend = "each node fetches for itself what it cannot have from there"
        tell = bad if answer.is_there else warn
        return tell(url, answer.fault, mend)
    skew = round(answer.skew)
    if abs(skew) > _WORTH_TELLING:
        words = f"its clock is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} this one"
        return warn(url, words, f"set both by NTP: beyond {SKEW:g} s they refuse one another")
    return good(url, "answers, and goes by the same clock")
