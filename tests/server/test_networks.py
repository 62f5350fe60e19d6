"""Which addresses count as one client."""

from __future__ import annotations

import doctest

import pytest

from mirror.server.http import networks
from mirror.server.http.networks import network_of


def test_doctests() -> None:
    assert doctest.testmod(networks).failed == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8:0:0::5", "2001:DB8::9"),
    ],
)
def test_addresses_that_one_client_may_have(one: str, other: str) -> None:
    assert network_of(one) == network_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8:0:1::1"),
        ("fe80::1%eth0", "fe80::2%eth0"),
        ("", "192.0.2.1"),
    ],
)
def test_addresses_of_different_clients(one: str, other: str) -> None:
    assert network_of(one) != network_of(other)
