"""Rules that bind several keys, checked on the document itself.

Not on the sections: there is none of which any key is wrong, and all mistakes are
to be told at once. What a model says already about a key is left out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..oci.errors import BadRequest, quoted
from ..oci.reference import ImageReference, parse_image
from ..oci.registries import DOCKER_HUB, is_registry, parse_registry
from ..redis_url import parse_redis_url
from . import certificates, fleet, hosted, places, s3, sync
from .document import Location
from .model import AccessConfig, ClientConfig, Credentials, FreshnessConfig, ProxyConfig
from .ports import Found, pair_contradictions, port_contradictions
from .problems import Mistake


def contradictions(data: dict[str, Any]) -> Found:
    """Each with the key at which it is to be mended."""
    yield from port_contradictions(data)
    yield from _default_registry(data)
    yield from _registries_twice(_section(data, "registries"))
    yield from _redis_keys(_section(data, "tags"))
    yield from _hosts_twice(_section(data, "registries"))
    yield from _hosted(data)
    yield from _access(data.get("access"))
    yield from _pins(data)
    yield from s3.mistakes(_section(data, "storage"))
    yield from _syncs(data)
    if isinstance(data.get("hosted"), dict):
        yield from hosted.mistakes(data["hosted"], _section(data, "registries"))
    if isinstance(data.get("fleet"), dict):
        yield from fleet.mistakes(data["fleet"], _section(data, "tags"))
        yield from _client(data["fleet"].get("client"), ("fleet", "client"))
    for name, registry in _section(data, "registries").items():
        if isinstance(registry, dict):
            yield from _endpoints(registry.get("endpoints"), ("registries", name, "endpoints"))
            yield from _logins(registry, ("registries", name))
            yield from _ways(registry, ("registries", name))
            yield from _freshness(registry.get("freshness"), ("registries", name, "freshness"))


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    section = data.get(key)
    return section if isinstance(section, dict) else {}


def _default_registry(data: dict[str, Any]) -> Found:
    registries = data.get("registries")
    if not isinstance(registries, dict):
        registries = {DOCKER_HUB: None} if registries is None else None
    default = data.get("default_registry", DOCKER_HUB)
    names = _names(registries or {})
    if not names or not isinstance(default, str) or _one_form(default) in names:
        return
    listed = " or ".join(names[:3])
    if "default_registry" in data:
        mistake = Mistake(f"{quoted(default)}, which is not among the registries", listed)
        if is_registry(default):
            yield ("default_registry",), mistake
    else:
        yield (
            ("registries",),
            Mistake(
                f"no {DOCKER_HUB}, which is the default_registry",
                f"default_registry: {listed}, or add {DOCKER_HUB}: here",
            ),
        )


def _one_form(name: object) -> object:
    """A registry's name as the rest of the program has it; what is none, as it was."""
    return parse_registry(name) if isinstance(name, str) and is_registry(name) else name


def _names(registries: dict[Any, Any]) -> list[str]:
    """The keys that are registries' names, in their one form."""
    return [parse_registry(name) for name in registries if is_registry(str(name))]


def _registries_twice(registries: dict[str, Any]) -> Found:
    """A name has several spellings: docker.io and index.docker.io, ghcr.io and ghcr.io:443."""
    first_at: dict[object, str] = {}
    for given in registries:
        first = first_at.setdefault(_one_form(given), given)
        if first != given:
            mistake = Mistake(f"{quoted(given)}, which is {first} again", "it once")
            yield ("registries", given), mistake


_OF_REDIS = ("password_file", "password_env", "ca_file", "sentinel_password_file")


def _redis_keys(tags: dict[str, Any]) -> Found:
    try:
        store = places.tag_store(tags.get("store", "embedded"))
    except Mistake:
        return
    sources = [key for key in ("password_file", "password_env") if key in tags]
    if store is None:
        for key in (key for key in _OF_REDIS if key in tags):
            write = "store: redis://host:6379/0 beside it, or leave it out"
            yield ("tags", key), Mistake("a key of Redis at the embedded store", write)
        return
    url = parse_redis_url(store.get_secret_value())
    if url.password and sources:
        yield (
            ("tags", "store"),
            Mistake(f"a password in the URL and {sources[0]}", "the URL without the password"),
        )
    if len(sources) > 1:
        yield ("tags", sources[1]), Mistake(f"a password besides {sources[0]}", "one of them")
    if "ca_file" in tags and not url.tls:
        yield ("tags", "ca_file"), Mistake("a key of rediss:// at redis://", "store: rediss://…")
    if "sentinel_password_file" in tags and url.master is None:
        write = "store: redis+sentinel://host:26379,host:26379/master/0, or leave it out"
        mistake = Mistake("a key of sentinels at a Redis without them", write)
        yield ("tags", "sentinel_password_file"), mistake


def _hosted(data: dict[str, Any]) -> Found:
    """Registries of which some repositories are one's own."""
    found = [
        name
        for name, registry in _section(data, "registries").items()
        if isinstance(registry, dict) and registry.get("hosted") == "true"
    ]
    if found and data.get("hosted") is None:
        yield (
            ("registries", found[0], "hosted"),
            Mistake("true, and there is no section hosted", "hosted: {listen: 0.0.0.0:5002} too"),
        )
    for name in found[1:]:
        yield (
            ("registries", name, "hosted"),
            Mistake(f"true, as at {found[0]}", "hosted: true at one registry"),
        )


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
        written = _written(endpoint)
        if written is None:
            continue
        try:
            address = places.prefixed(*written)
        except Mistake as mistake:
            yield (*place, index, "prefix"), mistake
            continue
        if first_at.setdefault(address, index) != index:
            yield (*place, index, "url"), Mistake(f"{quoted(address)} a second time", "it once")


def _written(endpoint: object) -> tuple[str, str | None] | None:
    """An endpoint's URL and prefix; None where one of them is a mistake by itself."""
    if not isinstance(endpoint, dict):
        return None
    try:
        prefix = places.endpoint_prefix(endpoint["prefix"]) if "prefix" in endpoint else None
        return places.endpoint_url(endpoint["url"]), prefix
    except (KeyError, Mistake):
        return None


def _pins(data: dict[str, Any]) -> Found:
    default = _one_form(data.get("default_registry", DOCKER_HUB))
    registries = data.get("registries") or {DOCKER_HUB: None}
    if not (isinstance(default, str) and isinstance(registries, dict)):
        return
    names = _names(registries)
    first_at: dict[ImageReference, str] = {}
    for given in _section(data, "pin"):
        try:
            image = parse_image(given, default)
        except BadRequest:
            continue
        first = first_at.setdefault(image, given)
        if first != given:
            yield ("pin", given), Mistake(f"{image} a second time", f"it once: {first} is it too")
        registry = image.repository.registry
        if registry not in names and "allow_any_registry" not in data:
            listed = " or ".join(names[:3])
            mistake = Mistake(f"an image of {registry}, which is not mirrored", f"one of {listed}")
            yield ("pin", given), mistake


def _syncs(data: dict[str, Any]) -> Found:
    default = _one_form(data.get("default_registry", DOCKER_HUB))
    registries = data.get("registries") or {DOCKER_HUB: None}
    if isinstance(default, str) and isinstance(registries, dict):
        any_registry = "allow_any_registry" in data
        yield from sync.mistakes(data.get("sync"), default, _names(registries), any_registry)


def _freshness(rules: object, place: Location) -> Found:
    """Rules that can never mean a tag, or that mean more than anybody wants."""
    if isinstance(rules, dict):
        yield from _immutable(rules, place)
    if not isinstance(rules, list):
        return
    if not rules:
        yield place, Mistake("an empty list", "- {ttl: 5m} below it, or leave it out")
    every: int | None = None
    for index, rule in enumerate(rules):
        if not isinstance(rule, dict):
            continue
        yield from _immutable(rule, (*place, index))
        if every is not None:
            mistake = Mistake(
                f"a rule after [{every}], which is for all tags",
                f"it before, or match: at [{every}]",
            )
            yield (*place, index), mistake
        elif set(rule) <= set(FreshnessConfig.fields()) and rule.get("match", "*") in (
            "*",
            ["*"],
        ):
            every = index


def _immutable(rule: dict[str, Any], place: Location) -> Found:
    if rule.get("immutable") == "true" and rule.get("match", "*") in ("*", ["*"]):
        mistake = Mistake(
            "immutable: true for all tags, latest too",
            'match: with tags that never move, such as "*:v[0-9]*.[0-9]*.[0-9]*"',
        )
        yield (*place, "immutable"), mistake


def _hosts_twice(registries: dict[str, Any]) -> Found:
    """A Host that means two registries means none."""
    first_at: dict[str, str] = {}
    for name, registry in registries.items():
        hosts = registry.get("hosts") if isinstance(registry, dict) else None
        for index, host in enumerate(hosts if isinstance(hosts, list) else ()):
            try:
                other = first_at.setdefault(places.own_name(host), name)
            except Mistake:
                continue
            if other != name:
                yield (
                    ("registries", name, "hosts", index),
                    Mistake(f"{quoted(host)}, which is {other}'s too", "another host name"),
                )


def _access(rules: object) -> Found:
    if not isinstance(rules, list):
        return
    first_at: dict[str, int] = {}
    for index, rule in enumerate(rules):
        if not isinstance(rule, dict):
            continue
        place: Location = ("access", index)
        name = rule.get("name")
        if isinstance(name, str) and first_at.setdefault(name, index) != index:
            yield (*place, "name"), Mistake(f"{quoted(name)} a second time", "another name")
        if set(rule) - set(AccessConfig.fields()):
            continue  # what is missing may be what the unknown key meant
        if "allow" in rule and "deny" in rule:
            yield (*place, "deny"), Mistake("deny besides allow", "one of them, or two rules")
        elif "allow" not in rule and "deny" not in rule:
            yield place, Mistake("neither allow nor deny", "allow: or deny: with a repository")
        elif "min_age" in rule and "allow" not in rule:
            yield (*place, "min_age"), Mistake("min_age at a rule that denies", "allow: with it")


def _and_endpoints(
    registry: dict[str, Any], place: Location
) -> Iterator[tuple[Location, dict[str, Any]]]:
    """What has the keys that a registry and each of its endpoints may have."""
    yield place, registry
    endpoints = registry.get("endpoints")
    for index, endpoint in enumerate(endpoints if isinstance(endpoints, list) else ()):
        if isinstance(endpoint, dict):
            yield (*place, "endpoints", index), endpoint


def _ways(registry: dict[str, Any], place: Location) -> Found:
    """How connections are made: keys that say nothing alone, and pairs that do not belong
    together."""
    for where, section in _and_endpoints(registry, place):
        yield from _proxy(section.get("proxy"), (*where, "proxy"))
        yield from _client(section.get("client"), (*where, "client"))


def _proxy(proxy: object, place: Location) -> Found:
    if not isinstance(proxy, dict):
        return
    known = {field.called for field in ProxyConfig.fields().values()}
    sources = [key for key in ("password_file", "password_env") if key in proxy]
    if len(sources) > 1:
        yield (*place, sources[1]), Mistake(f"a password besides {sources[0]}", "one of them")
    if set(proxy) - known:
        return  # what is missing may be what the unknown key meant
    if proxy.get("url") == "none" and len(proxy) > 1:
        yield (*place, "url"), Mistake("none, and more keys", "proxy: none alone")
    elif sources and "username" not in proxy:
        yield place, Mistake(f"{sources[0]} without a username", "username: too")
    elif "username" in proxy and not sources:
        yield place, Mistake("a username without a password", "password_file or password_env: too")


def _client(client: object, place: Location) -> Found:
    if not isinstance(client, dict) or set(client) - set(ClientConfig.fields()):
        return
    yield from pair_contradictions(client, place, certificates.certificate)


def _logins(registry: dict[str, Any], place: Location) -> Found:
    for where, section in _and_endpoints(registry, place):
        given = section.get("credentials")
        if not isinstance(given, list):
            yield from _secret(given, (*where, "credentials"))
            continue
        first_at: dict[str, int] = {}
        for index, credentials in enumerate(given):
            here = (*where, "credentials", index)
            yield from _secret(credentials, here)
            name = credentials.get("username") if isinstance(credentials, dict) else None
            if isinstance(name, str) and first_at.setdefault(name, index) != index:
                mistake = Mistake("a login a second time", "each login once: a limit is a login's")
                yield (*here, "username"), mistake


def _secret(credentials: object, place: Location) -> Found:
    if not isinstance(credentials, dict):
        return
    sources = [key for key in credentials if key in _SOURCES]
    if len(sources) > 1:
        yield (*place, sources[1]), Mistake(f"a secret besides {sources[0]}", "one of them")
    if set(credentials) - set(Credentials.fields()):
        return  # what is missing may be what the unknown key meant
    if not sources:
        yield place, Mistake("no secret", "password_file, or one of the other ways to have a login")
    elif sources[0].startswith("password") and "username" not in credentials:
        yield place, Mistake(f"{sources[0]} without a username", "username: too")


_SOURCES = set(Credentials.fields()) - {"username"}
