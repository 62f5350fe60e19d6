"""What a configuration brings about that nobody may have meant, before it counts: said by `check`,
and on the terminal on which a mirror is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from ..clock import Clock
from ..config import Config, FleetConfig, TlsConfig
from ..config.fleet import address_of
from ..quantities import binary_size, part_of
from ..storage.disk.shortages import bytes_kept

_SOON = timedelta(days=14)


def forewarned(config: Config) -> Iterator[str]:
    """In sentences that begin with the key. Blocking."""
    yield from _evictions(config)
    if config.fleet is not None:
        yield from _unreachable(config.fleet)
        yield from _apart(config)
    for key, tls in certificates_of(config).items():
        words = certificate_trouble(key, tls, Clock().wall())
        if words is not None:
            yield words


def certificates_of(config: Config) -> Mapping[str, TlsConfig]:
    """What is shown at the mirror's ports, by its key."""
    shown = {"tls": config.tls, "fleet.tls": config.fleet.tls if config.fleet else None}
    return {key: tls for key, tls in shown.items() if tls is not None}


def _evictions(config: Config) -> Iterator[str]:
    most, kept = config.storage.max_size, bytes_kept(config.storage.path)
    if kept > most:
        yield (
            f"storage.max_size: {binary_size(most)}, and more is in {config.storage.path}: "
            f"to serve by this would evict {part_of(kept - most, kept)}, what was used longest ago"
        )


def _unreachable(fleet: FleetConfig) -> Iterator[str]:
    """What no node on another host reaches."""
    url, listen = fleet.own_url, fleet.listen
    address = address_of(url)
    if address is not None and address.is_loopback:
        yield f"fleet.url: {url}, which only nodes on this host reach"
    elif listen.is_loopback:
        yield f"fleet.listen: {listen}, where only nodes on this host reach {url}"
    if listen.port not in (0, urlsplit(url).port):
        yield f"fleet.url: {url}, and the peer port is {listen.port}: something has to lead there"


def _apart(config: Config) -> Iterator[str]:
    """What is hosted, and only one of the nodes has."""
    hosted = config.hosted
    if hosted is None:
        return
    if hosted.records is None:
        yield (
            "hosted.records: embedded, so that each node of the fleet has repositories, users and "
            "tokens of its own; write a postgresql:// URL, the same for all nodes"
        )
    elif config.storage.s3 is None:
        yield (
            "hosted: what is pushed to one node stays on its disk, and the other nodes of the "
            "fleet do not have it; write storage.s3, the same bucket for all nodes"
        )


def certificate_trouble(key: str, tls: TlsConfig, wall: float) -> str | None:
    """What is the matter with how long a certificate of the mirror's own is good. `wall`: now, in
    seconds since the epoch."""
    now = datetime.fromtimestamp(wall, UTC)
    facts, file = tls.facts, tls.cert.file
    if facts.ends <= now:
        return f"{key}.cert: {file} has expired ({facts.ends:%Y-%m-%d %H:%M} UTC): have it renewed"
    if facts.begins > now:
        return f"{key}.cert: {file} is not good before {facts.begins:%Y-%m-%d %H:%M} UTC"
    if facts.ends - now < _SOON:
        return f"{key}.cert: {file} ends at {facts.ends:%Y-%m-%d %H:%M} UTC: have it renewed"
    return None
