"""What a mirror reaches: its endpoints, what its tags are kept in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from urllib.parse import urlsplit

from ...config import Config
from ...contracts.tags import TagStoreError
from ...oci.reference import ImageReference, Repository
from ...oci.registries import DOCKER_HUB
from ...threads import aside
from ...upstream.client.checkup import Mark as Step
from ..checking import Checked, checked_endpoints
from ..endpoints import configured_endpoints, host_of, routes_of
from ..logins import refusals
from ..resources import Process, tag_store
from .findings import Diagnosis, Mark, bad, good, warn

_CONNECTED_WITHIN = 5.0  # seconds
_AT_ONCE = 16
_ANSWERED_WITHIN = 10.0  # seconds, the tag memory
_MARKS = {Step.GOOD: Mark.GOOD, Step.NOTE: Mark.WARN, Step.BAD: Mark.BAD}


async def endpoints(
    config: Config, names: Sequence[str], images: Sequence[ImageReference], *, whole: bool
) -> AsyncGenerator[Diagnosis, None]:
    """Of these registries, by what pulls ask. `whole`: each step, else only what is not well."""
    if config.offline:
        yield good("endpoints", "offline: true, so that none is asked")
        return
    asked = config.model_copy(update={"registries": {n: config.registries[n] for n in names}})
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
    if config.tags.store is None:
        return
    process = Process(set())
    store = tag_store(config, process.clock, process.events)
    place = urlsplit(config.tags.store.get_secret_value())
    where = f"{place.hostname}:{place.port or 6379}"
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN):
            await store.history(Repository(DOCKER_HUB, "library/hello-world"), "latest")
    except (TagStoreError, TimeoutError) as error:
        reason = str(error) or f"no answer within {_ANSWERED_WITHIN:g} s"
        yield bad(
            "redis",
            f"{where}: {reason}",
            "start it, or correct tags.store; meanwhile each tag is asked of its registry",
        )
    else:
        yield good("redis", f"{where} answers")
    finally:
        await store.close()


async def logins(config: Config, names: Sequence[str]) -> AsyncGenerator[Diagnosis, None]:
    for name in names:
        for words in await aside(refusals, config, name):
            what, _, mend = words.partition(": ")
            yield bad(name, what, mend)
