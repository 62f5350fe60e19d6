"""Webhooks of the mirror that runs: who sends them, and what is told beside pushes."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator

from ..config import HostedConfig
from ..contracts.webhooks import WebhookRecords
from ..hosted.webhooks.envelope import Source
from ..hosted.webhooks.fills import FillTeller
from ..hosted.webhooks.sender import Webhooks
from ..tasks import beside
from ..upstream.egress import Allowed
from ..upstream.http.posting import GuardedPoster
from ..upstream.http.proxying import ProxyLogins, Ways
from .endpoints import routes_of
from .process import Process


@contextlib.asynccontextmanager
async def sending_webhooks(
    config: HostedConfig, records: WebhookRecords, process: Process
) -> AsyncIterator[None]:
    """For the process that holds the store."""
    clock = process.clock
    ways = Ways(routes_of(process.proxies), ProxyLogins(clock))
    allowed = Allowed.parse(map(str, config.webhooks.allow_private))
    trusted = config.webhooks.ca_file
    poster = GuardedPoster(
        allowed, ways, authorities=trusted.text.get_secret_value() if trusted else ""
    )
    source = Source(config.url or "", socket.gethostname(), secrets.token_hex(8))
    sender = Webhooks(records, poster, source, process.events, clock)
    try:
        async with beside(sender.run(), "webhooks"):
            yield
    finally:
        await poster.close()


@contextlib.asynccontextmanager
async def telling_of_fills(records: WebhookRecords, process: Process) -> AsyncIterator[None]:
    """For each process that asks upstreams."""
    async with beside(FillTeller(records, process.events, process.clock).run(), "fills told"):
        yield
