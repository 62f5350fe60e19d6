"""What a mirror reaches: its endpoints, what its tags are kept in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Sequence

from ...config import Config
from ...oci.reference import ImageReference
from ...redis_url import parse_redis_url
from ...threads import aside
from ...upstream.client.checkup import Mark as Step
from ..among_nodes import redis_access
from ..checking import Checked, checked_endpoints
from ..endpoints import configured_endpoints, host_of, routes_of
from ..logins import refusals
from ..resources import Process
from .findings import Diagnosis, Mark, bad, good, warn

_CONNECTED_WITHIN = 5.0  # seconds
_AT_ONCE = 16
_ANSWERED_WITHIN = 5.0  # seconds, each step of the tag memory
_MARKS = {Step.GOOD: Mark.GOOD, Step.NOTE: Mark.WARN, Step.BAD: Mark.BAD}


async def endpoints(
    config: Config, names: Sequence[str], images: Sequence[ImageReference], *, whole: bool
) -> AsyncGenerator[Diagnosis, None]:
    """Of these registries, by what pulls ask. `whole`: each step, else only what is not well."""
    if config.offline:
        yield good("endpoints", "offline: true, so that none is asked")
        return
    asked = config.but({"registries": {n: config.registries[n] for n in names}})
    async for checked in checked_endpoints(asked, images):
        for found in _of(checked, whole=whole):
            yield found


def _of(checked: Checked, *, whole: bool) -> Iterator[Diagnosis]:
    subject = f"{checked.endpoint.registry} {checked.endpoint.name}"
    for finding in checked.findings:
        mark = _MARKS[finding.mark]
        if whole or mark is not Mark.GOOD:
            words, _, mend = finding.words.partition("; ")
            yield Diagnosis(mark, subject, f"{finding.step}: {words}", mend)
    if not whole and checked.is_good:
        steps = ", ".join(dict.fromkeys(str(each.step) for each in checked.findings))
        yield good(subject, f"answers as a registry ({steps})")


async def connections(config: Config) -> AsyncGenerator[Diagnosis, None]:
    """Whether each endpoint's host, or the proxy on the way to it, takes a connection: nothing is
    asked there."""
    if config.offline:
        return
    environment = routes_of(Process(set()).proxies)
    wanted: dict[str, str] = {}
    for group in configured_endpoints(config).values():
        for endpoint in group:
            proxy = (endpoint.connecting.routes or environment).proxy_for(endpoint.url)
            way = f"{endpoint.url} (by the proxy {proxy.url})" if proxy else endpoint.url
            wanted.setdefault(host_of(proxy.url if proxy else endpoint.url), way)
    places = asyncio.Semaphore(_AT_ONCE)

    async def reach(place: str, way: str) -> Diagnosis:
        async with places:
            reason = await _connects(place)
        if not reason:
            return good(way, "takes connections")
        return warn(
            way,
            f"cannot be reached: {reason}",
            "what is cached is served; registry-mirror doctor tells more",
        )

    for task in [asyncio.create_task(reach(*each)) for each in wanted.items()]:
        yield await task


async def _connects(place: str) -> str:
    """Why not, in words; "" where it does."""
    host, _, port = place.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECTED_WITHIN):
            _, writer = await asyncio.open_connection(host, int(port))
    except TimeoutError:
        return f"no connection within {_CONNECTED_WITHIN:g} s"
    except OSError as error:
        # asyncio puts the address into its own words; those of a resolver have no errno.
        number = error.errno or 0
        return (os.strerror(number) if number > 0 else error.strerror or str(error)).lower()
    writer.close()
    return ""


async def tags(config: Config) -> AsyncGenerator[Diagnosis, None]:
    """Whether the shared tag memory answers. The embedded one is a part of the store."""
    access = redis_access(config)
    if access is None:
        return
    # Not before it is needed: see tag_store.
    from ...storage.redis_checkup import redis_facts

    where = parse_redis_url(access.url).where
    facts = await redis_facts(access, _ANSWERED_WITHIN)
    lost = {place: fault for place, fault in facts.sentinels.items() if fault}
    for place, fault in lost.items():
        yield warn(
            "redis",
            f"the sentinel {place}: {fault}",
            "start it, or correct tags.store; the others are asked meanwhile",
        )
    meanwhile = "meanwhile each tag is asked of its registry"
    if facts.fault:
        mend = f"start it, or correct tags.store; {meanwhile}"
        yield bad("redis", f"{where}: {facts.fault}", mend)
    elif not facts.master:
        mend = f"name its master in tags.store, or its sentinels; {meanwhile}"
        yield bad("redis", f"{where} is a replica, and takes no writes", mend)
    else:
        named = f"the master that sentinels name ({where})" if facts.sentinels else where
        yield good("redis", f"{named} answers")
    if facts.policy.startswith("allkeys"):
        yield warn(
            "redis",
            f"its maxmemory-policy is {facts.policy}: it may drop pins, and the history of tags",
            "have it volatile-ttl in redis.conf",
        )


async def records(config: Config) -> AsyncGenerator[Diagnosis, None]:
    """Whether the database of one's own repositories answers. The embedded one is a part of the
    store."""
    hosted = config.hosted
    if hosted is None or hosted.records is None:
        return
    from sqlalchemy.engine import make_url

    from ...storage.records.hosted.opening import RecordsUnusable, trouble_at

    address, password = hosted.records.get_secret_value(), hosted.records_password
    secret = password.get_secret_value() if password else None
    try:
        trouble = await aside(trouble_at, address, secret)
    except RecordsUnusable as error:
        yield bad("records", str(error), "correct hosted.records")
        return
    url = make_url(address)
    where = f"{url.database} at {url.host}"
    if trouble:
        mend = "start it, or correct hosted.records; meanwhile nobody signs in, pushes, or pulls "
        yield bad("records", f"{where}: {trouble}", f"{mend}from repositories of one's own")
    else:
        yield good("records", f"{where} answers")


async def fleet(config: Config) -> AsyncGenerator[Diagnosis, None]:
    """The other nodes, if there are to be any."""
    if config.fleet is None:
        return
    from .fleet import nodes

    async for found in nodes(config):
        yield found


async def behind_the_disk(config: Config) -> AsyncGenerator[Diagnosis, None]:
    """The bucket, if there is one."""
    if config.storage.s3 is None:
        return
    from .bucket import bucket

    async for found in bucket(config.storage.s3):
        yield found


async def logins(config: Config, names: Sequence[str]) -> AsyncGenerator[Diagnosis, None]:
    for name in names:
        for words in await aside(refusals, config, name):
            what, _, mend = words.partition(": ")
            yield bad(name, what, mend)
