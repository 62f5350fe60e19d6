"""Which addresses count as one client."""

from __future__ import annotations

import functools
import ipaddress

_SUBNET = 64  # bits: of an IPv6 network, any host may have as many addresses as it likes (RFC 4291)


@functools.lru_cache(4096)
def network_of(address: str) -> str:
    """What stands for the client at this address: itself, or the network that it may choose its
    IPv6 address from. What is no address stands for itself.

    >>> network_of("192.0.2.7"), network_of("::ffff:192.0.2.7")
    ('192.0.2.7', '192.0.2.7')
    >>> network_of("2001:db8::1:2:3:4")
    '2001:db8::/64'
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_link_local:  # all hosts of a link share that prefix
        return str(parsed)
    number = int(parsed) >> (128 - _SUBNET) << (128 - _SUBNET)
    return f"{ipaddress.IPv6Address(number)}/{_SUBNET}"
