"""One line a request, and one count: what was asked, what became of it, how long it took."""

from __future__ import annotations

import re
from dataclasses import dataclass

import structlog

from ..interfaces import Clock, Meter, Outcome
from .target import Kind

_PRODUCT = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~/-]{1,64}", re.ASCII)

log = structlog.get_logger()


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as they are told afterwards.

    Words of the request come in here only once they were found to be of the protocol's grammar, so
    that nothing hostile and no secret is ever written down. Times are monotonic, in seconds.
    """

    method: str
    client: str
    agent: str
    arrived: float
    kind: Kind = Kind.OTHER
    registry: str = ""
    repository: str = ""
    reference: str = ""
    outcome: Outcome = Outcome.FAILED
    status: int | None = None
    """None: the client left before it was answered."""
    first_byte: float | None = None
    sent: int = 0
    error: str = ""
    """Why it failed, for the log; the client was told what suits it."""
    left: bool = False
    """The client hung up before the end: no failure of anybody's."""


def product(agent: str) -> str:
    """The first product of a User-Agent, which is all that is of use: the rest can be anything.

    >>> product("docker/28.5.0 go/go1.24 os/linux UpstreamClient(Docker-Client/28.5.0)")
    'docker/28.5.0'
    """
    match = _PRODUCT.match(agent)
    return match.group() if match else ""


def note(exchange: Exchange, meter: Meter, clock: Clock) -> None:
    """Writes the line and counts the request: once, when it is over."""
    now = clock.monotonic()
    last = now - exchange.arrived
    first = last if exchange.first_byte is None else exchange.first_byte - exchange.arrived
    if exchange.status is not None:
        meter.answered(exchange.kind.value, exchange.outcome.value, exchange.status, first, last)
    if exchange.sent:
        meter.sent(exchange.kind.value, exchange.sent)
    words = {
        "status": exchange.status,
        "outcome": exchange.outcome.value if exchange.status is not None else "",
        "registry": exchange.registry,
        "repository": exchange.repository,
        "reference": exchange.reference,
        "agent": product(exchange.agent),
        "error": exchange.error,
        "left": exchange.left,
    }
    log.info(
        "request",
        method=exchange.method,
        kind=exchange.kind.value,
        client=exchange.client,
        bytes=exchange.sent,
        first_byte=round(first, 6),
        last_byte=round(last, 6),
        **{key: value for key, value in words.items() if value},
    )
