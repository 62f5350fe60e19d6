"""Which addresses a registry may lead us to.

A redirect's Location and a token realm are words of the upstream. Followed blindly they let it
reach, from where the mirror stands, what only the mirror can reach: an admin page on loopback, a
machine of the private network, the metadata service of a cloud. So each connection that an
upstream caused is checked on the address that is really connected; a name proves nothing, since
its DNS may say one thing to the check and another to the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Reach(IntEnum):
    """From how near an address can be reached: the higher, the nearer to this machine."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    FORBIDDEN = 3  # link-local, metadata services, multicast: no registry lives there


# Metadata services outside the link-local networks: AWS by IPv6, Alibaba, Oracle, Azure.
_METADATA = frozenset(
    map(ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
_THIS_HOST = IPv4Network("0.0.0.0/8")  # RFC 1122, 3.2.1.3; Linux connects 0.0.0.0 to itself
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the IPv4 address is in the last 32 bits
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, 2.5.5.1, deprecated


def reach_of(address: Address) -> Reach:
    """How near this address is; an IPv6 form of an IPv4 address is as near as that."""
    if isinstance(address, IPv6Address) and (inner := _embedded(address)) is not None:
        return reach_of(inner)
    if address in _METADATA or address.is_link_local or address.is_multicast:
        return Reach.FORBIDDEN
    if address.is_loopback or address.is_unspecified or address in _THIS_HOST:
        return Reach.LOOPBACK
    if address.is_reserved:
        return Reach.FORBIDDEN
    if not address.is_global or (isinstance(address, IPv6Address) and address.is_site_local):
        return Reach.PRIVATE
    return Reach.PUBLIC


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):  # not :: and ::1
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


class ReferralRefused(OSError):
    """An upstream led to an address that it may not lead to.

    An OSError, because it is raised where a socket is made. Its text is the same for all addresses:
    the connector joins the errors of several tries, and keeps the type only of equal ones.
    """

    def __init__(self) -> None:
        super().__init__("a referral led to an address that is not public")


class EndpointRefused(ReferralRefused):
    """An endpoint that nobody configured is at an address that is not public."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator lets upstreams lead to all the same (`allow_private`)."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Allowed:
        """Reads addresses, networks (`10.0.0.0/8`) and host names, as they are written."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for entry in entries:
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                hosts.add(entry.lower().rstrip("."))
        return cls(tuple(networks), frozenset(hosts))

    def names(self, host: str) -> bool:
        return host.lower().rstrip(".") in self.hosts

    def covers(self, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


class Guard:
    """Decides on each address, knowing how near the endpoint itself is.

    An endpoint on a private address may lead to private ones, one on loopback to both: whoever
    answers from there is as near already. The endpoint counts as near as the farthest address it
    was ever seen at, so that a public registry gains nothing by a DNS answer that says 127.0.0.1.
    """

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._endpoint: Reach | None = None

    def endpoint_at(self, host: str) -> None:
        """The endpoint, as the configuration names it, is being connected at this address."""
        reach = reach_of(ip_address(host))
        if reach is Reach.FORBIDDEN:  # configured, so be it; it is as near as a private one
            reach = Reach.PRIVATE
        self._endpoint = reach if self._endpoint is None else min(self._endpoint, reach)

    def check_public(self, host: str) -> None:
        """Raises EndpointRefused unless this address is public."""
        if reach_of(ip_address(host)) is not Reach.PUBLIC:
            raise EndpointRefused

    def check(self, host: str) -> None:
        """Raises ReferralRefused unless the endpoint may lead to this address."""
        address = ip_address(host)
        reach = reach_of(address)
        if reach is Reach.PUBLIC or self._allowed.covers(address):
            return
        if reach > (self._endpoint or Reach.PUBLIC):
            raise ReferralRefused
