"""What somebody who has just started a mirror needs to know."""

from __future__ import annotations

from ..clients.urls import Reach, reach
from ..config import Config


def own_reach(config: Config) -> Reach:
    """By which URLs clients reach this mirror: by HTTPS where it speaks that."""
    by_tls = [each.address for each in config.listen if config.tls is not None and each.tls]
    addresses = by_tls or [each.address for each in config.listen]
    places = [(address.host, address.port) for address in addresses]
    return reach(places, "https" if by_tls else "http")
