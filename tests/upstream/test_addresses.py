from __future__ import annotations

from ipaddress import ip_address

import pytest

from mirror.upstream.addresses import Allowed, Guard, Reach, ReferralRefused, reach_of


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
        ("64:ff9b:1::7f00:1", Reach.FORBIDDEN),
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
    for address in ("10.9.9.9", "::ffff:10.9.9.9", "169.254.7.7"):
        guard.check(address)
    for address in ("192.168.0.1", "169.254.169.254"):
        with pytest.raises(ReferralRefused):
            guard.check(address)


def test_listed_names_are_compared_as_dns_does() -> None:
    allowed = Allowed.parse(["Blobs.Internal."])
    assert allowed.names("blobs.internal")
    assert allowed.names("BLOBS.internal.")
    assert not allowed.names("internal")
