"""The section `hosted`: repositories of one's own, and where clients ask for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any
from urllib.parse import urlsplit

from ..oci.errors import quoted
from ..secret_text import SecretStr
from . import logins, places, values
from .collection import CollectionConfig
from .document import Location
from .listening import ListenConfig, listen_list
from .logins import Secret
from .problems import Mistake
from .section import Read, Section, or_empty, or_none_listed
from .webhooks import WebhooksConfig

_PASSWORDS = ("records_password_file", "records_password_env")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


def _records(value: object) -> SecretStr | None:
    """None for `embedded`, else PostgreSQL's URL as written: it may have a password in it, so that
    nothing is shown of one that cannot be read."""
    write = "embedded, or postgresql://user@host:5432/database"
    given = values.text(value, write)
    if given == "embedded":
        return None
    scheme, separator, _ = given.partition("://")
    if scheme not in ("postgresql", "postgres") or not separator:
        raise Mistake("other records" if re.search("[:@]", given) else quoted(given), write)
    if not _is_database_url(given):
        raise Mistake(
            "a postgresql:// URL that cannot be read",
            "postgresql://user@host:5432/database, and the password into records_password_file",
        )
    if find_spec("psycopg") is None:
        raise Mistake(
            "no psycopg in this installation",
            "pip install 'registry-mirror[postgres]' first, or embedded",
        )
    return SecretStr(given)


def _is_database_url(given: str) -> bool:
    """With a database, and no more than one `@`. The host may be in the query, as a socket's
    folder (libpq's `host=/run/postgresql`)."""
    try:
        url = urlsplit(given)
        host, port = url.hostname or "", url.port
    except ValueError:
        return False
    return (
        _VISIBLE.fullmatch(given) is not None
        and url.netloc.count("@") <= 1
        and (not host or ":" in host or places.is_host(host))
        and port != 0
        and re.fullmatch(r"/[^/?#]+", url.path) is not None
        and "#" not in given
    )


class HostedConfig(Section):
    """A registry of one's own. Clients mean it at the addresses of `listen`, and by the Host names
    `hosts`, in lower case, at the mirror's. `url`: what clients call it, `scheme://host[:port]`;
    None: what their Host and TLS say. `records` None: in a file of the storage's folder, else a
    PostgreSQL URL; its password, where one is given, goes before the URL's own."""

    listen: Annotated[tuple[ListenConfig, ...], Read(listen_list)] = ()
    hosts: Annotated[
        tuple[Annotated[str, Read(places.own_name)], ...],
        Read(or_none_listed),
    ] = ()
    url: Annotated[str | None, Read(places.mirror_url)] = None
    records: Annotated[SecretStr | None, Read(_records)] = None
    records_password_file: Annotated[Secret | None, Read(logins.password_from_file)] = None
    records_password_env: Annotated[Secret | None, Read(logins.password_from_environment)] = None
    webhooks: Annotated[WebhooksConfig, Read(or_empty)] = WebhooksConfig()
    gc: Annotated[CollectionConfig, Read(or_empty)] = CollectionConfig()

    @property
    def records_password(self) -> Secret | None:
        return self.records_password_file or self.records_password_env


def mistakes(
    section: dict[str, Any], registries: dict[str, Any]
) -> Iterator[tuple[Location, Mistake]]:
    """What is wrong between its keys, and between them and those of the registries."""
    known = not set(section) - set(HostedConfig.fields())
    if known and "listen" not in section and not section.get("hosts"):
        write = "listen: 127.0.0.1:5002, or hosts: [registry.corp.lan], or both"
        yield ("hosted",), Mistake("neither listen nor hosts", write)
    yield from _host_of_a_registry(section, registries)
    passwords = [key for key in _PASSWORDS if key in section]
    if len(passwords) > 1:
        yield ("hosted", passwords[1]), Mistake(f"a password besides {passwords[0]}", "one of them")
    elif passwords and section.get("records", "embedded") == "embedded":
        write = "records: postgresql://user@host/database beside it, or leave it out"
        yield ("hosted", passwords[0]), Mistake("a password for embedded records", write)


def _host_of_a_registry(
    section: dict[str, Any], registries: dict[str, Any]
) -> Iterator[tuple[Location, Mistake]]:
    """A Host means one thing: what is pushed here, or a registry that is mirrored."""
    meant: dict[str, str] = {}
    for name, registry in registries.items():
        hosts = registry.get("hosts") if isinstance(registry, dict) else None
        for host in _names(hosts):
            meant[host[1]] = name
    for index, host_name in _names(section.get("hosts")):
        if host_name in meant:
            found = f"{quoted(host_name)}, which is {meant[host_name]}'s too"
            yield ("hosted", "hosts", index), Mistake(found, "another host name")


def _names(hosts: object) -> Iterator[tuple[int, str]]:
    """Those that are names, with their places."""
    for index, host in enumerate(hosts if isinstance(hosts, list) else ()):
        try:
            yield index, places.own_name(host)
        except Mistake:
            continue
