from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from mirror.clock import Clock
from mirror.contracts.accounts import AccountNotes
from mirror.contracts.events import NoMeter
from mirror.oci.reference import Repository
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import Endpoint, EndpointLimits
from mirror.upstream.http.transport import Transport
from mirror.upstream.retries import Policy, Retries

from .hub import Hub

REDIS = Repository("docker.io", "library/redis")
# Short enough for a test that waits them out, long enough for a busy machine to answer in time.
QUICK = EndpointLimits(dns=2, connect=2, headers=2, answer=8, realm=2, body=2)


@dataclass
class Time:
    """A clock that stands still until it is told to go on."""

    now: float = 1000.0
    wall: float = 1_700_000_000.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall, monotonic=lambda: self.now)


@dataclass
class Counts(NoMeter):
    """A meter that remembers."""

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    bytes: int = 0
    rejected: int = 0
    hedges: list[tuple[str, bool]] = field(default_factory=list)
    breakers: list[tuple[str, str, bool]] = field(default_factory=list)
    quotas: list[tuple[str, str, int, int]] = field(default_factory=list)
    untils: list[tuple[str, str, float]] = field(default_factory=list)
    logins: list[tuple[str, str, bool]] = field(default_factory=list)

    def upstream_request(self, endpoint: str, method: str, status: str) -> None:
        self.requests.append((endpoint, method, status))

    def upstream_bytes(self, endpoint: str, count: int) -> None:
        self.bytes += count

    def upstream_rejected(self, endpoint: str) -> None:
        self.rejected += 1

    def upstream_hedged(self, endpoint: str, won: bool) -> None:
        self.hedges.append((endpoint, won))

    def upstream_breaker(self, endpoint: str, trouble: str, open: bool) -> None:
        self.breakers.append((endpoint, trouble, open))

    def upstream_quota(self, endpoint: str, login: str, limit: int, remaining: int) -> None:
        self.quotas.append((endpoint, login, limit, remaining))

    def upstream_login_refused(self, endpoint: str, login: str, refused: bool) -> None:
        self.logins.append((endpoint, login, refused))

    def upstream_quota_until(self, endpoint: str, login: str, until: float) -> None:
        self.untils.append((endpoint, login, until))


@pytest.fixture(scope="session")
def system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


MakeRemote = Callable[..., Remote]


@pytest.fixture
async def make_remote(
    time: Time, counts: Counts, system_tls: ssl.SSLContext
) -> AsyncIterator[MakeRemote]:
    """Builds a remote; keywords are the endpoint's fields. Retries do not sleep."""
    made: list[Remote] = []

    def make(
        url: str,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        policy: Policy | None = None,
        notes: AccountNotes | None = None,
        **fields: Any,
    ) -> Remote:
        async def no_sleep(seconds: float) -> None:
            time.now += seconds

        endpoint = replace(Endpoint("hub", url, limits=QUICK), **fields)
        transport = Transport(endpoint, counts, resolver=resolver, tls=tls or system_tls)
        retries = Retries(policy or Policy(), time.clock(), sleep=no_sleep, draw=lambda: 0.5)
        made.append(Remote(endpoint, transport, retries, counts, time.clock(), notes))
        return made[-1]

    yield make
    for remote in made:
        await remote.close()


@pytest.fixture
def remote(hub: Hub, make_remote: MakeRemote) -> Remote:
    return make_remote(hub.url)
