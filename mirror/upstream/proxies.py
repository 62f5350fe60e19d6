"""Which proxy a URL is asked by: pure, so that nothing is looked up or connected here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import urlsplit

from ..frozen import dataclass
from ..secret_text import SecretStr

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One HTTP proxy. `url` is `scheme://host[:port]`, without a login. `username` and `password`
    go to it as HTTP Basic; `again` reads the password as its file has it by now, None where it
    cannot be read: blocking."""

    url: str
    username: str | None = None
    password: SecretStr | None = None
    again: Callable[[], SecretStr | None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class _Exception:
    """One entry of NO_PROXY. `network` where it is an address or a network, else `name`: that host
    (unless `is_suffix_only`) and all below it. `port` None: every port."""

    network: IPv4Network | IPv6Network | None
    name: str
    is_suffix_only: bool
    port: int | None

    def means(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            try:
                return ip_address(host) in self.network
            except ValueError:
                return False
        return host.endswith(f".{self.name}") or (host == self.name and not self.is_suffix_only)


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The hosts that are asked directly: NO_PROXY, as Go's httpproxy reads it, which docker,
    containerd and podman are built on. `example.com` means that host and all below it,
    `.example.com` and `*.example.com` only those below it; `*` is every host. Addresses and
    networks mean hosts that are written as an address: nothing is resolved. Each may have a port.
    """

    entries: tuple[_Exception, ...] = ()
    everything: bool = False

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """What cannot be read means nothing, as in Go."""
        read, everything = [], False
        for entry in entries:
            text = entry.strip().lower()
            everything = everything or text == "*"
            if (exception := _exception(text)) is not None:
                read.append(exception)
        return cls(tuple(read), everything)

    def means(self, host: str, port: int) -> bool:
        return self.everything or any(entry.means(host, port) for entry in self.entries)


def _exception(text: str) -> _Exception | None:
    host, port = text, None
    if (network := _network(text)) is not None:
        return _Exception(network, "", False, None)
    before, colon, after = text.rpartition(":")
    if colon:
        if not after.isascii() or not after.isdigit() or not before:
            return None
        host, port = before, int(after)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if (network := _network(host)) is not None:
        return _Exception(network, "", False, port)
    below = host.removeprefix("*")
    name = below.removeprefix(".").rstrip(".")
    return _Exception(None, name, below.startswith("."), port) if name else None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Routes:
    """Of each URL the proxy that it is asked by, or None. `http` is for URLs of that scheme,
    `https` for those. With `spares_loopback`, as with the environment's in Go and in the container
    clients, this machine is always asked directly."""

    http: Proxy | None = None
    https: Proxy | None = None
    exceptions: Exceptions = Exceptions()
    spares_loopback: bool = False

    def proxy_for(self, url: str) -> Proxy | None:
        """`url` is absolute.

        >>> routes = Routes(https=Proxy("http://p:3128"), exceptions=Exceptions.parse([".corp"]))
        >>> [routes.proxy_for(f"https://{host}/v2/") is None for host in ("quay.io", "cdn.corp")]
        [False, True]
        """
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        if self.spares_loopback and _is_loopback(host):
            return None
        if self.exceptions.means(host, parts.port or _PORTS.get(parts.scheme, 0)):
            return None
        return self.https if parts.scheme == "https" else self.http


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
