"""Rules that bind several keys, checked on the document itself.

Not on the models: pydantic has none of a section in which any key is wrong, and all mistakes are
to be told at once. What a model says already about a key is left out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ..oci.errors import quoted
from . import places
from .document import Location
from .model import DOCKER_HUB, Config, Credentials
from .problems import Mistake

Found = Iterator[tuple[Location, Mistake]]


def contradictions(data: dict[str, Any]) -> Found:
    """Each with the key at which it is to be mended."""
    yield from _port_twice(data)
    yield from _default_registry(data)
    yield from _redis_keys(_section(data, "tags"))
    for name, registry in _section(data, "registries").items():
        if isinstance(registry, dict):
            yield from _endpoints(registry.get("endpoints"), ("registries", name, "endpoints"))
            yield from _secret(registry.get("credentials"), ("registries", name, "credentials"))


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    section = data.get(key)
    return section if isinstance(section, dict) else {}


def _port_twice(data: dict[str, Any]) -> Found:
    defaults = Config()
    try:
        listen = places.address(data["listen"]) if "listen" in data else defaults.listen
        admin = places.address(data["admin"]) if "admin" in data else defaults.admin
    except Mistake:
        return
    if listen.port == admin.port != 0:
        key, other = ("admin", "listen") if "admin" in data else ("listen", "admin")
        free = listen.port + 1 if listen.port < 65535 else 5001
        yield (
            (key,),
            Mistake(
                f"port {listen.port}, which is {other}'s too",
                f"another port, such as {places.LOOPBACK}:{free}",
            ),
        )


def _default_registry(data: dict[str, Any]) -> Found:
    registries = data.get("registries")
    if not isinstance(registries, dict):
        registries = {DOCKER_HUB: None} if registries is None else None
    default = data.get("default_registry", DOCKER_HUB)
    if registries is None or not isinstance(default, str) or default in registries:
        return
    names = [name for name in registries if places.is_registry_name(name)]
    if not names:
        return
    listed = " or ".join(names[:3])
    if "default_registry" in data:
        mistake = Mistake(f"{quoted(default)}, which is not among the registries", listed)
        if places.is_registry_name(default):
            yield ("default_registry",), mistake
    else:
        yield (
            ("registries",),
            Mistake(
                f"no {DOCKER_HUB}, which is the default_registry",
                f"default_registry: {listed}, or add {DOCKER_HUB}: here",
            ),
        )


def _redis_keys(tags: dict[str, Any]) -> Found:
    try:
        store = places.tag_store(tags.get("store", "embedded"))
    except Mistake:
        return
    sources = [key for key in ("password_file", "password_env") if key in tags]
    url = urlsplit(store.get_secret_value()) if store else None
    if url is None:
        for key in (key for key in ("password_file", "password_env", "ca_file") if key in tags):
            write = "store: redis://host:6379/0 beside it, or leave it out"
            yield ("tags", key), Mistake("a key of Redis at the embedded store", write)
        return
    if url.password and sources:
        yield (
            ("tags", "store"),
            Mistake(f"a password in the URL and {sources[0]}", "the URL without the password"),
        )
    if len(sources) > 1:
        yield ("tags", sources[1]), Mistake(f"a password besides {sources[0]}", "one of them")
    if "ca_file" in tags and url.scheme != "rediss":
        yield ("tags", "ca_file"), Mistake("a key of rediss:// at redis://", "store: rediss://…")


def _endpoints(endpoints: object, place: Location) -> Found:
    if not isinstance(endpoints, list):
        return
    if not endpoints:
        yield place, Mistake("an empty list", "- url: https://… below it, or leave it out")
        return
    trusts = [endpoint.get("trust") for endpoint in endpoints if isinstance(endpoint, dict)]
    if len(trusts) == len(endpoints) and all(trust == "content" for trust in trusts):
        yield (
            place,
            Mistake(
                "trust: content at every endpoint",
                "trust: tags at the registry's own, or none could say what a tag points to",
            ),
        )
    first_at: dict[str, int] = {}
    for index, endpoint in enumerate(endpoints):
        try:
            url = places.endpoint_url(endpoint["url"]) if isinstance(endpoint, dict) else None
        except (KeyError, Mistake):
            continue
        if url is not None and first_at.setdefault(url, index) != index:
            yield (*place, index, "url"), Mistake(f"{quoted(url)} a second time", "it once")


def _secret(credentials: object, place: Location) -> Found:
    if not isinstance(credentials, dict):
        return
    sources = [key for key in credentials if key in _SOURCES]
    if len(sources) > 1:
        yield (*place, sources[1]), Mistake(f"a secret besides {sources[0]}", "one of them")
    if set(credentials) - set(Credentials.model_fields):
        return  # what is missing may be what the unknown key meant
    if not sources:
        yield place, Mistake("no secret", "password_file, password_env, token_file or token_env")
    elif sources[0].startswith("password") and "username" not in credentials:
        yield place, Mistake(f"{sources[0]} without a username", "username: too")


_SOURCES = set(Credentials.model_fields) - {"username"}
