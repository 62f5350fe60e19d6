"""Every endpoint of a configuration looked at, beside a mirror that may be serving: no store is
opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import chain

from ..config import Config
from ..contracts.context import RequestContext
from ..contracts.events import QuotaReported
from ..frozen import dataclass
from ..oci.errors import RegistryError
from ..oci.reference import ImageReference
from ..policy.on_demand import refuse_private
from ..storage.records.accounts import AccountRecords
from ..threads import aside
from ..upstream.client.checkup import Finding, Mark, Receptions, Step
from ..upstream.client.remote import Remote
from ..upstream.endpoint import Endpoint, Trust
from ..upstream.failures import without_name
from .endpoints import configured_endpoints, routes_of, unconfigured_endpoint
from .resources import Process
from .upstreams import Upstreams

_AT_ONCE = 16  # endpoints
_WITHIN = 60.0  # seconds, for one endpoint
_IMAGE_WITHIN = 15.0


@dataclass(frozen=True, slots=True)
class Checked:
    """An endpoint, and what each step has shown."""

    endpoint: Endpoint
    findings: Sequence[Finding]

    @property
    def is_good(self) -> bool:
        return all(finding.mark is not Mark.BAD for finding in self.findings)


async def checked_endpoints(
    config: Config, images: Sequence[ImageReference]
) -> AsyncIterator[Checked]:
    """Each endpoint of the configuration, in its order, and those of other registries that these
    images are of. They are looked at together, each within a minute. Images are asked of the
    endpoints of their registries. Raises Denied for an image of a registry that cannot be named."""
    process, accounts = Process(set(config.registries)), AccountRecords(config.storage.path)
    routes = routes_of(process.proxies)
    upstreams = Upstreams(process.events, process.clock, accounts, routes)
    checks = _Checks(upstreams, process, images)
    others = {image.repository.registry for image in images} - set(config.registries)
    for name in others:
        refuse_private(name)
    endpoints = [
        *chain.from_iterable(configured_endpoints(config).values()),
        *(unconfigured_endpoint(name, config.workers) for name in sorted(others)),
    ]
    tasks = [asyncio.create_task(checks.check(endpoint)) for endpoint in endpoints]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await upstreams.close()
        await aside(accounts.close)


class _Checks:
    def __init__(
        self, upstreams: Upstreams, process: Process, images: Sequence[ImageReference]
    ) -> None:
        self._upstreams = upstreams
        self._images = images
        self._shown = Receptions()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._left: dict[str, QuotaReported] = {}
        process.events.listen(QuotaReported, self._count)

    def _count(self, event: QuotaReported) -> None:
        self._left[event.endpoint] = event

    async def check(self, endpoint: Endpoint) -> Checked:
        findings: list[Finding] = []
        async with self._places:
            remote = self._upstreams.remote(endpoint)
            try:
                async with asyncio.timeout(_WITHIN):
                    await self._check(remote, findings)
            except TimeoutError:
                words = f"not done within {_WITHIN:g} s; what comes after this was not looked at"
                last = findings[-1].step if findings else Step.NAME
                findings.append(Finding(last, Mark.BAD, words))
            finally:
                await remote.close()
        return Checked(endpoint, findings)

    async def _check(self, remote: Remote, findings: list[Finding]) -> None:
        async for finding in remote.checkup().findings(self._shown):
            findings += [finding]  # one by one: what is known stays when the time is over
        reached = {finding.step for finding in findings if finding.mark is not Mark.BAD}
        if Step.REGISTRY not in reached:
            return
        for image in self._images:
            if image.repository.registry == remote.endpoint.registry:
                findings += [await self._image(remote, image)]

    async def _image(self, remote: Remote, image: ImageReference) -> Finding:
        """By the HEAD that a pull begins with."""
        endpoint = remote.endpoint
        if endpoint.trust is not Trust.TAGS and isinstance(image.reference, str):
            return Finding(
                Step.IMAGE, Mark.NOTE, f"{image} is not asked for here: write its digest for that"
            )
        asker = RequestContext("check", "check").lasting(_IMAGE_WITHIN)
        try:
            found = await remote.resolve(asker, image.repository, str(image.reference))
        except RegistryError as error:
            words = without_name(error, endpoint.name)
            return Finding(Step.IMAGE, Mark.BAD, f"{image}: {words}{self._pulls(endpoint)}")
        left = self._left.get(endpoint.name)
        mark = Mark.NOTE if left is not None and not left.remaining else Mark.GOOD
        return Finding(Step.IMAGE, mark, f"{image} is {found.digest}{self._pulls(endpoint)}")

    def _pulls(self, endpoint: Endpoint) -> str:
        left = self._left.get(endpoint.name)
        if left is None:
            return ""
        whose = f"the login {left.login!r}" if left.login else "everybody at this address"
        return f"; {left.remaining} of {left.limit} pulls are left to {whose}"
