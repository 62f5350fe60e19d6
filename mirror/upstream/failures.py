"""Failures of an endpoint, and whether asking it again at once may mend them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from math import isfinite

from ..asking.single_flight import NoTurn
from ..clock import Clock
from ..contracts.context import Asker
from ..oci.errors import Denied, RateLimited, RegistryError, Unavailable, Untrustworthy
from ..oci.retry import parse_http_date, parse_retry_after

PASSING = frozenset((408, 425))
"""Request Timeout and Too Early (RFC 9110, 15.5.9; RFC 8470): the same request may do better
later."""


class FailureKind(StrEnum):
    """How an exchange failed that brought no HTTP status: the words of the metric's label."""

    CONNECT = "connect"
    DNS = "dns"
    TLS = "tls"
    TIMEOUT = "timeout"
    CUT = "cut"
    PROXY = "proxy"  # there was no way through the proxy, or none to it


_STAYS = (FailureKind.TLS, FailureKind.TIMEOUT, FailureKind.DNS)


class Unreached(Unavailable):
    """There was no whole HTTP answer: no connection, or one that broke. `passes`: asking again soon
    may do better."""

    def __init__(self, message: str, kind: FailureKind, passes: bool | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.passes = kind not in _STAYS if passes is None else passes


class RealmUnreached(Unreached):
    """The token realm gave no whole answer: of the endpoint that says nothing."""


class Unreachable(Unreached):
    """There is no connection to the endpoint itself, whatever it was going to be asked for."""


class Exhausted(Unavailable):
    """This process had no descriptor, memory, thread or time to ask with: that is no endpoint's
    fault."""


class QuotaSpent(RateLimited):
    """No GET of a manifest is left, and none is sent. All else may still be asked."""


class Faulty(Unavailable):
    """The endpoint answered that it has trouble (5xx)."""


class NoRegistry(Unavailable):
    """The endpoint's host answers, but not as a registry, wherever its URL may mean."""


class ReferralExpired(Unavailable):
    """Where the registry had sent us refuses us: its signed URL has ended. The registry knows a
    new one."""


class Unfit(Untrustworthy):
    """What a repository holds is nothing that a client may be given: no manifest of today, or too
    long. That is no fault of the endpoint: anybody who may push to a registry can put it there."""


class NoToken(Untrustworthy):
    """The token realm answered with something else than a token. Of what the endpoint has, it sent
    nothing."""


class LoginRefused(Denied):
    """A login of ours is no good, whatever it was shown for."""


def without_name(error: RegistryError, name: str) -> str:
    """The words of an error, for where the endpoint's name is said already."""
    return error.message.removeprefix(f"{name}: ")


def may_be_heads(error: RegistryError) -> bool:
    """Whether a HEAD may have failed with this where a GET is answered. Not by a limit, by a login
    or a token that is refused, nor for want of a connection."""
    if isinstance(error, Unreached):
        is_of_heads = not isinstance(error, Unreachable | RealmUnreached)
        return is_of_heads and error.kind is not FailureKind.TIMEOUT
    return not isinstance(error, RateLimited | LoginRefused | NoToken | Exhausted | NoTurn)


@contextlib.asynccontextmanager
async def in_time(asker: Asker, where: str) -> AsyncIterator[None]:
    """What is done within ends at the asker's deadline. Raises Exhausted then."""
    deadline = asyncio.timeout_at(asker.deadline if isfinite(asker.deadline) else None)
    try:
        async with deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise out_of_time(where) from error


def out_of_time(where: str) -> Exhausted:
    """The asker's deadline has passed."""
    return Exhausted(f"{where}: the time for the request is over")


def pause_before_retry(error: Unavailable) -> float | None:
    """The least seconds to wait before asking again: 0 where the fault is likely gone already,
    None where asking again soon is of no use.

    A refused certificate stays refused, and so does a login at a proxy (who tries one again and
    again locks it out); a timeout has cost the caller enough already, and for a name that has no
    address the resolver has tried by itself. An endpoint that limits us is left
    alone: another one may answer meanwhile, and the pool waits where none does.
    """
    if isinstance(error, ReferralExpired):
        return 0.0
    if isinstance(error, Unreached):
        return 0.0 if error.passes else None
    if isinstance(error, Faulty | Exhausted | NoTurn):
        return error.retry_after or 0.0
    return None


def rate_limited(where: str, headers: Mapping[str, str], clock: Clock) -> RateLimited:
    """A 429, with what its Retry-After says; None where it does not say."""
    seconds = retry_after(headers, clock)
    until = "" if seconds is None else f", and takes the next in {seconds:.0f} s"
    return RateLimited(f"{where} limits our requests (429){until}", retry_after=seconds)


def faulty(where: str, status: int, headers: Mapping[str, str], clock: Clock) -> Faulty:
    """A 5xx, with what its Retry-After says."""
    return Faulty(
        f"{where} has trouble ({status}) of its own: whoever runs it can tell more",
        retry_after=retry_after(headers, clock),
    )


def retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """What Retry-After says, in seconds. A date counts from the sender's own Date: this host's
    clock may be wrong."""
    now = parse_http_date(headers.get("Date"))
    return parse_retry_after(headers.get("Retry-After"), clock.wall() if now is None else now)
