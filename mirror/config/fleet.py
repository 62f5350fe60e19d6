"""The section `fleet`: mirrors that fetch together, and how they reach one another."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from ..frozen import dataclass
from ..oci.errors import quoted
from ..secret_text import SecretStr
from . import certificates, logins, places, values
from .certificates import Pem
from .document import Location
from .listening import ClientConfig, TlsConfig
from .logins import Secret
from .places import Address
from .problems import Mistake
from .section import Read, Section

Found = Iterator[tuple[Location, Mistake]]

_MOST_LISTED = 1000
_TLS_KEYS = ("tls", "ca_file", "client")


@dataclass(frozen=True, slots=True)
class DnsName:
    """A name whose addresses (A and AAAA) are the nodes, each at this port."""

    name: str
    port: int


def node_url(value: object) -> str:
    """`scheme://host:port` in one form: an address as RFC 5952 writes it."""
    origin = places.mirror_url(value)
    url = urlsplit(origin)
    if url.port is None:
        raise Mistake(quoted(origin), f"the port too, as in {origin}:5003")
    host = url.hostname or ""
    address = address_of(origin)
    if address is not None and address.is_unspecified:
        raise Mistake(quoted(origin), "an address of this host by which the others reach it")
    if isinstance(address, IPv6Address):
        host = f"[{address}]"
    return f"{url.scheme}://{host}:{url.port}"


def address_of(url: str) -> IPv4Address | IPv6Address | None:
    """The address that is its host; None where that is a name."""
    try:
        return ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return None


def node_url_from_environment(value: object) -> str:
    """The variable's value, as `node_url` has it. It is not shown: another variable may have been
    named by mistake, which has a secret."""
    given = logins.variable(value)
    try:
        return node_url(given)
    except Mistake:
        write = "the name of one with a URL and its port in it, such as http://10.1.2.3:5003"
        raise Mistake(f"the variable {value}, which has no such URL", write) from None


def _nodes(value: object) -> object:
    write = "redis, a list of the nodes' URLs, or dns://name:port"
    if isinstance(value, list):
        return _listed(value)
    given = values.text(value, write)
    if given == "redis":
        return given
    name, colon, port = given.removeprefix("dns://").rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not (given.startswith("dns://") and colon and is_port and places.is_host(name)):
        raise Mistake(places.masked(given), write)
    return DnsName(name.lower(), int(port))


def _listed(urls: list[object]) -> tuple[str, ...]:
    if not urls:
        raise Mistake("an empty list", "- http://10.1.2.3:5003 below it, or redis")
    if len(urls) > _MOST_LISTED:
        raise Mistake(f"{len(urls)} URLs", f"{_MOST_LISTED} at most, or redis")
    return tuple(map(node_url, urls))


class FleetConfig(Section):
    """`listen`: the peer port, where other nodes ask this one. `url` or `url_env`: by which they
    reach it; use `own_url`. `nodes`: where all of them are named. `tls`: what is shown at the peer
    port; its `client_ca` is whose certificates the others have to show. `ca_file`: trusted besides
    the system's. `client`: what is shown to others, None: as in `tls`."""

    listen: Annotated[Address, Read(places.address)]
    url: Annotated[str | None, Read(node_url)] = None
    url_env: Annotated[str | None, Read(node_url_from_environment)] = None
    secret_file: Annotated[Secret | None, Read(logins.fleet_secret_from_file)] = None
    secret_env: Annotated[Secret | None, Read(logins.fleet_secret_from_environment)] = None
    nodes: Annotated[Literal["redis"] | tuple[str, ...] | DnsName, Read(_nodes)] = "redis"
    tls: TlsConfig | None = None
    ca_file: Annotated[Pem | None, Read(certificates.authorities)] = None
    client: ClientConfig | None = None

    @property
    def own_url(self) -> str:
        url = self.url or self.url_env
        assert url is not None  # noqa: S101 - `mistakes` lets none pass without
        return url

    @property
    def secret(self) -> bytes:
        secret = self.secret_file or self.secret_env
        assert secret is not None  # noqa: S101 - `mistakes` lets none pass without
        return secret.get_secret_value().encode()

    @property
    def client_pem(self) -> SecretStr | None:
        """Certificate and key that are shown to other nodes that ask for one."""
        shown = self.client or self.tls
        return shown.pem if shown else None


def mistakes(section: dict[str, Any], tags: dict[str, Any]) -> Found:
    """What is wrong between its keys, and between them and the tag memory."""
    try:
        store = places.tag_store(tags.get("store", "embedded"))
    except Mistake:
        pass  # told there
    else:
        if store is None:
            write = "tags: {store: redis://host:6379/0} too, the same for all nodes"
            yield ("fleet",), Mistake("a fleet without Redis", write)
    if set(section) - set(FleetConfig.fields()):
        return  # what is missing may be what the unknown key meant
    yield from _one_of(section, ("secret_file", "secret_env"), "openssl rand -hex 32 makes one")
    yield from _one_of(section, ("url", "url_env"), "as other nodes reach it: http://10.1.2.3:5003")
    try:
        url = _own_url(section)
        nodes = _nodes(section.get("nodes", "redis"))
    except (Mistake, KeyError):
        return
    yield from _scheme(section, url)
    yield from _not_named(url, nodes)


def _own_url(section: dict[str, Any]) -> str:
    """Raises KeyError, Mistake."""
    if "url" in section:
        return node_url(section["url"])
    return node_url_from_environment(section["url_env"])


def _one_of(section: dict[str, Any], keys: tuple[str, str], words: str) -> Found:
    given = [key for key in keys if key in section]
    if not given:
        yield ("fleet",), Mistake(f"no {keys[0]}", f"{keys[0]} or {keys[1]}: {words}")
    elif len(given) > 1:
        yield ("fleet", given[1]), Mistake(f"{given[1]} besides {given[0]}", "one of them")


def _scheme(section: dict[str, Any], url: str) -> Found:
    key = "url" if "url" in section else "url_env"
    if url.startswith("https:"):
        if section.get("tls") is None:
            write = "the section tls below fleet, with cert and key, or http://"
            yield ("fleet", key), Mistake("https:// without a certificate", write)
        return
    for other in (other for other in _TLS_KEYS if section.get(other) is not None):
        write = f"an https:// {key} beside it, or leave it out"
        yield ("fleet", other), Mistake(f"{other}, and an http:// {key}", write)


def _not_named(url: str, nodes: object) -> Found:
    """Others ask nobody whom their list, or DNS, does not name."""
    if isinstance(nodes, tuple) and url not in nodes:
        write = f"{url} in it, too: one list for all nodes"
        yield ("fleet", "nodes"), Mistake("a list without this node", write)
    if isinstance(nodes, DnsName) and address_of(url) is None:
        write = f"the address that {nodes.name} has for this node: DNS names no others"
        yield ("fleet", "url"), Mistake(f"{quoted(url)}, a name, and nodes by DNS", write)
