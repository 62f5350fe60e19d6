"""How `tags.store` names a Redis: by its address, or by sentinels who know where it is."""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from urllib.parse import unquote

from .frozen import dataclass

_URL = re.compile(
    r"(?P<tls>rediss?)(?P<sentinels>\+sentinel)?://"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]+)(?P<path>(?:/[^/?#]*){0,2})"
)
_PLACE = re.compile(
    r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:,\s]+))(?::(?P<port>[0-9]{1,5}))?"
)
_MASTER = re.compile(r"[A-Za-z0-9._-]+")  # as sentinel.conf takes it
_DATABASE = re.compile(r"[0-9]{0,5}")
_SENTINELS = 16

Place = tuple[str, int]
"""A host and its port."""

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """`places` are hosts with ports: of Redis itself, one; or, with a `master`, of the sentinels
    that watch over the Redis of that name. `tls` is spoken with all of them."""

    tls: bool
    places: tuple[Place, ...]
    master: str | None
    database: int
    username: str | None
    password: str | None = field(repr=False)

    @property
    def where(self) -> str:
        """The places, for messages."""
        hosts = (
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places
        )
        return ",".join(hosts)


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """`url` as parse_redis_url takes it. `password` goes before the URL's. With TLS, certificates
    are verified, by `ca_file` where there is one, else by the system's authorities.
    `sentinel_password` is what sentinels ask for, if they do."""

    url: str = field(repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    sentinel_password: str | None = field(default=None, repr=False)


def shown(place: Place) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_redis_url(text: str) -> RedisUrl:
    """Of `redis://[user:password@]host[:6379][/database]` and, with sentinels,
    `redis+sentinel://[user:password@]host[:26379],…/master[/database]`; with `rediss` for TLS.

    No library's parser: their queries can turn off what protects the connection. Raises ValueError,
    without anything of the text: each part of it may be its password.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise _wrong(text)
    by_sentinels = match["sentinels"] is not None
    hosts = match["hosts"].split(",")
    first, second = (*match["path"].split("/")[1:], "", "")[:2]
    master, database = (first, second) if by_sentinels else (None, first)
    places = tuple(_place(host, 26379 if by_sentinels else 6379, text) for host in hosts)
    is_good = _DATABASE.fullmatch(database) is not None and (
        len(places) <= _SENTINELS and _MASTER.fullmatch(master) is not None
        if master is not None
        else len(places) == 1 and not second
    )
    if not is_good:
        raise _wrong(text)
    return RedisUrl(
        tls=match["tls"] == "rediss",
        places=places,
        master=master,
        database=int(database or "0"),
        username=unquote(match["user"]) if match["user"] else None,
        password=unquote(match["password"]) if match["password"] else None,
    )


def _place(text: str, port: int, url: str) -> Place:
    match = _PLACE.fullmatch(text)
    number = port if match is None or match["port"] is None else int(match["port"])
    if match is None or not 0 < number < 65536:
        raise _wrong(url)
    return match["ip6"] or match["name"], number


def _wrong(text: str) -> ValueError:
    if "+sentinel://" in text:
        return ValueError("write redis+sentinel://[user:password@]host:26379,host:26379/master/0")
    if "?" in text or "#" in text:
        return ValueError("a Redis URL has no options here: end it after the database's number")
    return ValueError("write redis://[user:password@]host:6379/0, or rediss:// for TLS")
