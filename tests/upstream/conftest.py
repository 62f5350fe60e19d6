from __future__ import annotations

import gc
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import astuple, fields
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from mirror.asking.retry_policy import RetryPolicy
from mirror.contracts.accounts import AccountNotes
from mirror.contracts.events import (
    BreakerSwitched,
    LoginJudged,
    QuotaPaused,
    QuotaReported,
    UpstreamAsked,
    UpstreamHedged,
    UpstreamRead,
    UpstreamRejected,
)
from mirror.oci.reference import Repository
from mirror.times import Exchanges
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import Addresses, Connecting, Endpoint, EndpointLimits, Logins
from mirror.upstream.http import buffers
from mirror.upstream.http.proxying import Ways
from mirror.upstream.http.transport import Transport
from mirror.upstream.retries import SOON, Retries

from ..fakes import HandClock, Recorder
from ..fakes.hub import Hub

REDIS = Repository("docker.io", "library/redis")
# Short enough for a test that waits them out, long enough for a busy machine to answer in time.
QUICK = EndpointLimits(Exchanges(dns=2, connect=2, headers=2, answer=8, realm=2, body=2))


class Counts(Recorder):
    """What an upstream tells, as plain tuples."""

    @property
    def requests(self) -> list[tuple[str, str, str]]:
        return [(each.endpoint, each.method, each.status) for each in self.of(UpstreamAsked)]

    @property
    def bytes(self) -> int:
        return sum(each.count for each in self.of(UpstreamRead))

    @property
    def rejected(self) -> int:
        return len(self.of(UpstreamRejected))

    @property
    def hedges(self) -> list[tuple[str, bool]]:
        return [(each.endpoint, each.won) for each in self.of(UpstreamHedged)]

    @property
    def breakers(self) -> list[tuple[str, str, bool]]:
        return [(each.endpoint, each.trouble, each.open) for each in self.of(BreakerSwitched)]

    @property
    def quotas(self) -> list[tuple[str, str, int, int]]:
        return [astuple(each)[1:5] for each in self.of(QuotaReported)]

    @property
    def untils(self) -> list[tuple[str, str, float]]:
        return [astuple(each)[1:] for each in self.of(QuotaPaused)]

    @property
    def logins(self) -> list[tuple[str, str, bool]]:
        return [(each.endpoint, each.login, each.refused) for each in self.of(LoginJudged)]


class Lent:
    """The buffers that somebody has a view of."""

    def __init__(self) -> None:
        self._lend = buffers.lend
        self._all: list[weakref.ref[object]] = []

    def lend(self) -> memoryview:
        view = self._lend()
        self._all.append(weakref.ref(view.obj))
        return view

    def __len__(self) -> int:
        return sum(one() is not None for one in self._all)

    @property
    def were(self) -> int:
        return len(self._all)


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lent]:
    """While no garbage is collected."""
    found = Lent()
    monkeypatch.setattr(buffers, "lend", found.lend)
    gc.collect()
    gc.disable()
    try:
        yield found
    finally:
        gc.enable()


@pytest.fixture(scope="session")
def system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@pytest.fixture
def time() -> HandClock:
    return HandClock(1000.0, ahead=1_699_999_000.0)


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


MakeRemote = Callable[..., Remote]


def _taken(kind: Any, values: dict[str, Any]) -> Any:
    """One of this dataclass, made of those of the values that are its fields, which are taken
    out."""
    names = [field.name for field in fields(kind) if field.name in values]
    return kind(**{name: values.pop(name) for name in names})


@pytest.fixture
async def make_remote(
    time: HandClock, counts: Counts, system_tls: ssl.SSLContext
) -> AsyncIterator[MakeRemote]:
    """Builds a remote; keywords are the fields of its Logins, Addresses and of the endpoint itself.
    Retries do not sleep. Without `tls` that is made of what its Connecting says."""
    made: list[Remote] = []

    def make(
        url: str,
        *,
        name: str = "hub",
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        policy: RetryPolicy | None = None,
        notes: AccountNotes | None = None,
        ways: Ways | None = None,
        **values: Any,
    ) -> Remote:
        async def no_sleep(seconds: float) -> None:
            time.now += seconds

        logins, addresses = _taken(Logins, values), _taken(Addresses, values)
        rest = {"limits": QUICK, **values}
        endpoint = Endpoint(name, url, logins=logins, addresses=addresses, **rest)
        if endpoint.connecting == Connecting(endpoint.connecting.routes):
            tls = tls or system_tls  # what is made for each costs 20 ms
        found = tls
        given = None if found is None else lambda: found
        transport = Transport(endpoint, counts, resolver=resolver, tls=given, ways=ways)
        retries = Retries(policy or SOON, time.clock(), sleep=no_sleep, draw=lambda: 0.5)
        made.append(Remote(endpoint, transport, retries, counts, time.clock(), notes))
        return made[-1]

    yield make
    for remote in made:
        await remote.close()


@pytest.fixture
def remote(hub: Hub, make_remote: MakeRemote) -> Remote:
    return make_remote(hub.url)
