"""Which addresses a registry may lead us to.

A redirect's Location and a token realm are words of the upstream. Followed blindly they let it
reach, from where the mirror stands, what only the mirror can reach: an admin page on loopback, a
machine of the private network, the metadata service of a cloud. So each connection that an
upstream caused is checked on the address that is really connected; a name proves nothing, since
its DNS may say one thing to the check and another to the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from ..frozen import dataclass

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Reach(IntEnum):
    """From how near an address can be reached: the higher, the nearer to this machine."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    FORBIDDEN = 3  # link-local, metadata services, multicast: no registry lives there


# IANA's registries of special-purpose addresses (RFC 6890), and what the address spaces leave
# unassigned. Of several networks that an address is in, the longest counts. Python's own
# `is_global` and its like are not asked: they lag behind the registries, and differ by version.
_NEAR: Mapping[Reach, tuple[str, ...]] = {
    Reach.PUBLIC: ("0.0.0.0/0", "2000::/3"),
    Reach.PRIVATE: (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "100.64.0.0/10",  # behind a provider's NAT, RFC 6598
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation, RFC 5737
        "192.88.99.0/24",  # 6to4 relays, once, RFC 7526
        "198.18.0.0/15",  # benchmarks, RFC 2544
        *("100::/64", "100:0:0:1::/64"),  # discarded, RFC 6666; dummies, RFC 9780
        "2001::/23",  # protocol assignments, RFC 2928: Teredo, benchmarks, ORCHID, DRIP, anycast
        *("2001:db8::/32", "3fff::/20"),  # documentation, RFC 3849 and 9637
        "5f00::/16",  # segments of SRv6, RFC 9602
        "fc00::/7",  # unique local, RFC 4193
        "fec0::/10",  # site-local, once, RFC 3879
    ),
    Reach.LOOPBACK: (
        "127.0.0.0/8",
        "0.0.0.0/8",  # RFC 1122, 3.2.1.3; Linux connects 0.0.0.0 to itself
        *("::/128", "::1/128"),
    ),
    Reach.FORBIDDEN: (
        *("169.254.0.0/16", "fe80::/10"),  # link-local, with most clouds' metadata services
        *("224.0.0.0/4", "ff00::/8"),  # multicast
        "240.0.0.0/4",  # reserved, RFC 1112, and broadcast
        "::/0",  # what is not assigned
        # Metadata services elsewhere: AWS, Google, Alibaba, Oracle, Azure
        *("fd00:ec2::/32", "fd20:ce::/32", "100.100.100.200/32", "192.0.0.192/32"),
        "168.63.129.16/32",
    ),
}
_TABLE: Sequence[tuple[Network, Reach]] = sorted(
    ((ip_network(network), reach) for reach, networks in _NEAR.items() for network in networks),
    key=lambda entry: -entry[0].prefixlen,
)
# In the last 32 bits of these is an IPv4 address, to which a translator takes what is sent there:
# RFC 6052, 2.1, and RFC 8215 with the longest of the prefixes that it allows; where the translator
# has a shorter one of those, it is not known which bits count, and its addresses are not assigned.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/96"))
# The same, for the host's own stack: RFC 4291, 2.5.5.1, and RFC 2765, 2.1, both deprecated.
_COMPATIBLE = (IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"))


def reach_of(address: Address) -> Reach:
    """How near this address is; an IPv6 form of an IPv4 address is as near as that, and one that
    leads to it by a tunnel is not public either."""
    if isinstance(address, IPv6Address):
        if (inner := _embedded(address)) is not None:
            return reach_of(inner)
        if address.teredo is not None:  # RFC 4380: the server's address, and the client's
            return max(Reach.PRIVATE, *map(reach_of, address.teredo))
    return next(reach for network, reach in _TABLE if address in network)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that this one is another form of; None when it is none."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    number = int(address)
    if number > 1 and any(address in network for network in (*_NAT64, *_COMPATIBLE)):
        return IPv4Address(number & 0xFFFFFFFF)
    return None


class ReferralRefused(OSError):
    """An upstream led to an address that it may not lead to.

    An OSError, because it is raised where a socket is made. Its text is the same for all addresses:
    the connector joins the errors of several tries, and keeps the type only of equal ones.
    """

    def __init__(self) -> None:
        super().__init__("a referral led to an address that is not public")


class EndpointRefused(ReferralRefused):
    """An endpoint that is not in the configuration is at an address that is not public."""


class NotListed(ReferralRefused):
    """An upstream led over http to an address that `allow_private` does not list."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator lets upstreams lead to all the same (`allow_private`)."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()  # of `*.example.com`: `.example.com`

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Allowed:
        """Reads addresses, networks (`10.0.0.0/8`), host names, and `*.example.com` for all names
        below one, as they are written."""
        networks: list[Network] = []
        hosts: set[str] = set()
        domains: list[str] = []
        for entry in entries:
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                name = entry.lower().rstrip(".")
                if name.startswith("*."):
                    domains.append(name.removeprefix("*"))
                else:
                    hosts.add(name)
        return cls(tuple(networks), frozenset(hosts), tuple(domains))

    def names(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return name in self.hosts or any(name.endswith(domain) for domain in self.domains)

    def covers(self, address: Address) -> bool:
        if isinstance(address, IPv6Address):
            address = _embedded(address) or address
        return any(address in network for network in self.networks)


class Guard:
    """Decides on each address, knowing how near the endpoint itself is.

    An endpoint on a private address may lead to private ones, one on loopback to both: what
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

    def check_listed(self, host: str) -> None:
        """Raises NotListed unless the operator lists this address."""
        if not self._allowed.covers(ip_address(host)):
            raise NotListed
