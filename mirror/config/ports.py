"""Rules that bind the keys of the ports: `listen`, `hosted.listen`, `fleet.listen`, `tls` and
`admin`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from . import certificates, places
from .document import Location
from .listening import TlsConfig, listen_list
from .model import Config
from .places import Address
from .problems import Mistake

Found = Iterator[tuple[Location, Mistake]]


def port_contradictions(data: dict[str, Any]) -> Found:
    """Each with the key at which it is to be mended."""
    yield from _admin(data)
    yield from _port_twice(data)
    yield from _without_tls(data)
    for section, place in ((data, ()), (_section(data, "fleet"), ("fleet",))):
        tls = section.get("tls")
        if isinstance(tls, dict) and not set(tls) - set(TlsConfig.fields()):
            yield from pair_contradictions(tls, (*place, "tls"), certificates.server_certificate)


def pair_contradictions(section: dict[str, Any], place: Location, read: Any) -> Found:
    """A certificate, which `read` reads, and a key that is another's."""
    try:
        cert = read(section.get("cert"))
        key = certificates.key(section["key"]) if "key" in section else None
    except Mistake:
        return
    try:
        certificates.pair(cert, key)
    except Mistake as mistake:
        yield (*place, "cert" if key is None else "key"), mistake


def _port_twice(data: dict[str, Any]) -> Found:
    """An address that two ports have; "" is every address."""
    try:
        admin = _admin_address(data)
    except Mistake:
        return
    listens = [*_listens(data), *_listens_of(data, "hosted"), *_listens_of(data, "fleet")]
    for number, (place, address) in enumerate(listens):
        for _, other in listens[:number]:
            if _clash(address, other):
                yield place, Mistake(f"{address}, and {other} before it", "each port once")
                break
        if address.port == admin.port != 0:
            at, others = _admin_or_listen(data, place)
            free = address.port + 1 if address.port < 65535 else 5001
            write = f"another port, such as {places.LOOPBACK}:{free}"
            yield at, Mistake(f"port {address.port}, which is {others}'s too", write)
            return


def _clash(one: Address, other: Address) -> bool:
    return one.port == other.port != 0 and (one.host == other.host or "" in (one.host, other.host))


def _admin_or_listen(data: dict[str, Any], listen: Location) -> tuple[Location, str]:
    """Which of the two keys was written, and has to be another, and the other."""
    if "admin" not in data or listen[0] != "listen":
        return listen, "admin"
    return (("admin", "listen") if isinstance(data["admin"], dict) else ("admin",)), "listen"


def _listens(data: dict[str, Any]) -> Iterator[tuple[Location, Address]]:
    if "listen" not in data:
        yield from ((("listen",), each.address) for each in Config().listen)
        return
    yield from _addresses(data["listen"], ("listen",))


def _listens_of(data: dict[str, Any], section: str) -> Iterator[tuple[Location, Address]]:
    yield from _addresses(_section(data, section).get("listen", ()), (section, "listen"))


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    section = data.get(key)
    return section if isinstance(section, dict) else {}


def _addresses(given: object, key: Location) -> Iterator[tuple[Location, Address]]:
    """Those that are addresses, with their places."""
    for place, item in _items(given, key):
        with contextlib.suppress(Mistake):
            [section] = listen_list([item])
            yield place, places.address(section.get("address"))


def _items(given: object, key: Location) -> Iterator[tuple[Location, object]]:
    """Of one that may be written alone, or as a list."""
    if not isinstance(given, list | tuple):
        yield key, given
        return
    for index, item in enumerate(given):
        yield (*key, index), item


def _without_tls(data: dict[str, Any]) -> Found:
    """Whoever writes that an address speaks TLS expects that it does."""
    if data.get("tls") is not None:
        return
    listens = _items(data.get("listen"), ("listen",))
    hosted = _items(_section(data, "hosted").get("listen"), ("hosted", "listen"))
    for place, item in (*listens, *hosted):
        if isinstance(item, dict) and item.get("tls") == "true":
            write = "the section tls, with cert and key, beside listen"
            yield (*place, "tls"), Mistake("true without a certificate", write)


def _admin_address(data: dict[str, Any]) -> Address:
    """Raises Mistake."""
    given = data.get("admin", str(Config().admin.listen))
    if isinstance(given, dict):
        given = given.get("listen", str(Config().admin.listen))
    return places.address(given)


def _admin(data: dict[str, Any]) -> Found:
    """What changes the cache is not for everybody who can reach the port."""
    section = data.get("admin")
    if not isinstance(section, dict) or section.get("write") != "true" or "token_file" in section:
        return
    with contextlib.suppress(Mistake):
        address = _admin_address(data)
        if not address.is_loopback:
            write = "token_file: too, with the path of a file that holds a secret"
            yield ("admin", "write"), Mistake(f"true at {address}, not a loopback one", write)
