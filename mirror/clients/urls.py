"""By which URLs clients reach a mirror that listens on these addresses."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from ..frozen import dataclass

# Networks for documentation (RFC 5737, RFC 3849): nothing is sent there.
_FAR = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - they are looked for here


@dataclass(frozen=True, slots=True)
class Reach:
    """`here`: for clients of this host. `elsewhere`: for those of other hosts; "" where they cannot
    reach it."""

    here: str
    elsewhere: str


def outward_address() -> str:
    """This host's own address on its way to others, IPv4 if it has one; "" where there is no way
    out."""
    for family, far in _FAR:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            found: str = probe.getsockname()[0]
            if not ip_address(found.partition("%")[0]).is_loopback:
                return found
    return ""


def reach(
    listens: Sequence[tuple[str, int]],
    scheme: str = "http",
    outward: Callable[[], str] = outward_address,
) -> Reach:
    """Of the first address that clients of this host reach, and the first that others do."""
    here = [_url(scheme, "127.0.0.1" if host in _ANY else host, port) for host, port in listens]
    elsewhere = ""
    for host, port in listens:
        address = outward() if host in _ANY else "" if _is_loopback(host) else host
        if address:
            elsewhere = _url(scheme, address, port)
            break
    return Reach(here[0], elsewhere)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
