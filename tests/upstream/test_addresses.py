"""Which addresses a registry may lead to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from mirror.upstream.egress import Allowed, Guard, Reach, ReferralRefused, reach_of

SPECIAL = {
    Reach.PUBLIC: (
        *("1.0.0.0/8", "9.0.0.0/8", "11.0.0.0/8", "100.128.0.0/9", "172.32.0.0/11", "192.0.1.0/24"),
        *("192.169.0.0/16", "198.20.0.0/16", "223.0.0.0/8", "192.175.48.0/24", "2001:200::/23"),
        *("2003::/18", "2620:4f:8000::/48", "3ffe::/16", "3fff:1000::/20"),
    ),
    Reach.PRIVATE: (
        *("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "192.0.0.0/25"),
        *("192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("100::/64", "100:0:0:1::/64", "2001:1::/32", "2001:2::/48", "2001:3::/32", "2001:4::/32"),
        *("2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "3fff::/20"),
        *("5f00::/16", "fc00::/8", "fd12::/16", "fec0::/10"),
    ),
    Reach.LOOPBACK: ("0.0.0.0/8", "127.0.0.0/8"),
    Reach.FORBIDDEN: (
        *("169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "fe80::/10", "ff00::/8", "fd00:ec2::/32"),
        *("1::/16", "200::/7", "1000::/4", "4000::/4", "6000::/3", "64:ff9b:1:1::/64"),
        *("8000::/3", "a000::/3", "c000::/3", "e000::/4", "f000::/5", "f800::/6", "fe00::/9"),
    ),
}


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("64:ff9b::808:808", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.9.9.9", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),
        ("0.1.2.3", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::127.0.0.1", Reach.LOOPBACK),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("169.254.169.254", Reach.FORBIDDEN),
        ("169.254.0.1", Reach.FORBIDDEN),
        ("fe80::1", Reach.FORBIDDEN),
        ("fe80::1%eth0", Reach.FORBIDDEN),
        ("::ffff:169.254.169.254", Reach.FORBIDDEN),
        ("64:ff9b::a9fe:a9fe", Reach.FORBIDDEN),
        ("fd00:ec2::254", Reach.FORBIDDEN),
        ("100.100.100.200", Reach.FORBIDDEN),
        ("192.0.0.192", Reach.FORBIDDEN),
        ("168.63.129.16", Reach.FORBIDDEN),
        ("224.0.0.1", Reach.FORBIDDEN),
        ("255.255.255.255", Reach.FORBIDDEN),
        # By a translator of one's own network
        ("64:ff9b:1::808:808", Reach.PUBLIC),
        ("64:ff9b:1::a01:203", Reach.PRIVATE),
        ("64:ff9b:1::7f00:1", Reach.LOOPBACK),
        ("64:ff9b:1::a9fe:a9fe", Reach.FORBIDDEN),
        ("64:ff9b:1:a01:2:300::", Reach.FORBIDDEN),
        ("64:ff9b:1:ffff::808:808", Reach.FORBIDDEN),
        # By a tunnel
        ("2002:808:808::1", Reach.PUBLIC),
        ("2002:a9fe:a9fe::1", Reach.FORBIDDEN),
        ("2002:a01:203::1", Reach.PRIVATE),
        ("2001:0:808:808:0:0:f7f7:f7f7", Reach.PRIVATE),
        ("2001:0:808:808:0:0:80ff:fffe", Reach.LOOPBACK),
        ("2001:0:a9fe:a9fe:0:0:f7f7:f7f7", Reach.FORBIDDEN),
        ("::ffff:0:127.0.0.1", Reach.LOOPBACK),
        ("::10.0.0.1", Reach.PRIVATE),
        # With the interface they are reached by
        ("::ffff:127.0.0.1%eth0", Reach.LOOPBACK),
        ("::1%lo", Reach.LOOPBACK),
        ("fd00:ec2::254%eth0", Reach.FORBIDDEN),
        ("fd12::1%2", Reach.PRIVATE),
        # Each of IANA's special purposes, by its first address and its last
        *(
            (str(address), reach)
            for reach, networks in SPECIAL.items()
            for network in map(ip_network, networks)
            for address in (network[0], network[-1])
        ),
    ],
)
def test_f63_each_address_is_as_near_as_the_host_it_means(address: str, reach: Reach) -> None:
    assert reach_of(ip_address(address)) is reach


PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL = "8.8.8.8", "10.0.0.1", "127.0.0.1", "169.254.169.254"


@pytest.mark.parametrize(
    ("endpoint", "may", "may_not"),
    [
        (None, [PUBLIC], [PRIVATE, LOOPBACK, LINK_LOCAL]),
        (PUBLIC, [PUBLIC], [PRIVATE, LOOPBACK, LINK_LOCAL]),
        (PRIVATE, [PUBLIC, PRIVATE], [LOOPBACK, LINK_LOCAL]),
        (LOOPBACK, [PUBLIC, PRIVATE, LOOPBACK], [LINK_LOCAL]),
        (LINK_LOCAL, [PUBLIC, PRIVATE], [LOOPBACK, LINK_LOCAL]),
    ],
)
def test_f63_an_endpoint_leads_no_nearer_than_it_is_itself(
    endpoint: str | None, may: list[str], may_not: list[str]
) -> None:
    guard = Guard(Allowed())
    if endpoint is not None:
        guard.endpoint_at(endpoint)
    for address in may:
        guard.check(address)
    for address in may_not:
        with pytest.raises(ReferralRefused):
            guard.check(address)


def test_f63_a_public_endpoint_gains_nothing_by_answering_that_it_is_on_loopback() -> None:
    guard = Guard(Allowed())
    guard.endpoint_at(PUBLIC)
    guard.endpoint_at(LOOPBACK)
    with pytest.raises(ReferralRefused):
        guard.check(LOOPBACK)


def test_listed_networks_may_be_led_to_and_no_others() -> None:
    guard = Guard(Allowed.parse(["10.0.0.0/8", "169.254.7.7", "blobs.internal."]))
    for address in ("10.9.9.9", "::ffff:10.9.9.9", "64:ff9b::10.9.9.9", "169.254.7.7"):
        guard.check(address)
    for address in ("192.168.0.1", "169.254.169.254"):
        with pytest.raises(ReferralRefused):
            guard.check(address)


def test_listed_names_are_compared_as_dns_does() -> None:
    allowed = Allowed.parse(["Blobs.Internal."])
    assert allowed.names("blobs.internal")
    assert allowed.names("BLOBS.internal.")
    assert not allowed.names("internal")
