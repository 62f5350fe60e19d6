"""The shape of mirror.yaml, key by key, and what each value becomes.

Made by `parse` and `load`: some rules bind several keys (see contradictions.py) and are checked
there. `Config()` is the default: Docker Hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from ..oci.digest import Digest
from ..oci.registries import DOCKER_HUB, is_registry, parse_registry, url_of
from ..secret_text import SecretStr
from . import certificates, logins, places, proxies, values
from .admin import AdminConfig, admin_section
from .certificates import Pem
from .fleet import FleetConfig
from .hosted import HostedConfig
from .listening import ClientConfig as ClientConfig
from .listening import ListenConfig, TlsConfig, at, listen_list
from .log import LogConfig
from .logins import Secret
from .places import Network
from .s3 import S3Config
from .section import Read, Seconds, Section, key, or_empty, or_none_listed
from .sync import SyncConfig
from .tracing import TracingConfig

_STATE_FOLDER = Path("/var/lib/registry-mirror")


def _default_storage_path() -> Path:
    """The system's folder for it where a package or unit has made one, else one beside the user."""
    writable = _STATE_FOLDER.is_dir() and os.access(_STATE_FOLDER, os.W_OK | os.X_OK)
    return _STATE_FOLDER if writable else Path("data")


class StorageConfig(Section):
    """Where content rests. `max_size` in bytes. `durability` full: a blob is on
    the disk before it is visible, while who waits for it has it as soon as it is proven; none: it
    may be damaged there after a power cut. `second_tier`: a folder of content behind it, None for
    none; `s3`: a bucket instead."""

    path: Annotated[Path, Read(values.path)] = key(default_factory=_default_storage_path)
    max_size: Annotated[int, Read(values.cache_size)] = 50 * 2**30
    durability: Annotated[Literal["full", "none"], Read(values.choice("full", "none"))] = "full"
    min_free: Annotated[int, Read(values.size_or_none)] = 0
    partial_ttl: Seconds = 86400.0
    scrub: Seconds = 7 * 86400.0
    second_tier: Annotated[Path | None, Read(values.path_or_none)] = None
    s3: S3Config | None = None
    pin: Annotated[
        tuple[Annotated[str, Read(values.image_pattern)], ...],
        Read(or_none_listed),
    ] = ()


class LimitsConfig(Section):
    """What may be used at once, and for how long. `fills`: downloads that run, in all and from one
    registry. `blob`: bytes of the largest that is taken. A blob of more than `parted_over` bytes,
    or one that would take long, may come over as many as `parts` connections. `idle`: seconds that
    a client may be silent, or take nothing."""

    fills: Annotated[int, Read(values.count(values.MAX_FILLS))] = 64
    fills_per_registry: Annotated[int, Read(values.count(values.MAX_FILLS))] = 32
    blob: Annotated[int, Read(values.cache_size)] = 2**40
    parted_over: Annotated[int, Read(values.cache_size)] = 64 * 2**20
    parts: Annotated[int, Read(values.count(values.MAX_PARTS))] = 8
    idle: Seconds = 60.0


class TagsConfig(Section):
    """The tag memory. `store` is None for the embedded one, else a Redis URL as it was written (see
    mirror/redis_url.py).

    `password`, where there is one, goes before the URL's own. `ca_file` is PEM, for TLS.
    `sentinel_password_file` holds what sentinels ask for, if they do.
    """

    store: Annotated[SecretStr | None, Read(places.tag_store)] = None
    password_file: Annotated[Secret | None, Read(logins.password_from_file)] = None
    password_env: Annotated[Secret | None, Read(logins.password_from_environment)] = None
    ca_file: Annotated[Path | None, Read(values.readable_file)] = None
    sentinel_password_file: Annotated[Secret | None, Read(logins.password_from_file)] = None

    @property
    def password(self) -> SecretStr | None:
        return self.password_file or self.password_env


class Credentials(Section):
    """The mirror's own login at a registry.

    `secret` is the password of `username` (a personal access token is one too), a bearer token that
    is sent as it is (without a username), or an identity token (`is_identity_token`). Where
    `credential_helper` is named, there is none: the program tells the user, too, and `username` is
    whose where it does not.
    """

    username: Annotated[str | None, Read(logins.username)] = None
    password_file: Annotated[Secret | None, Read(logins.password_from_file)] = None
    password_env: Annotated[Secret | None, Read(logins.password_from_environment)] = None
    token_file: Annotated[Secret | None, Read(logins.token_from_file)] = None
    token_env: Annotated[Secret | None, Read(logins.token_from_environment)] = None

    identity_token_file: Annotated[Secret | None, Read(logins.identity_token_from_file)] = None
    identity_token_env: Annotated[Secret | None, Read(logins.identity_token_from_environment)] = (
        None
    )
    credential_helper: Annotated[str | None, Read(logins.credential_helper)] = None

    @property
    def secret(self) -> Secret:
        passwords = self.password_file or self.password_env or self.token_file or self.token_env
        secret = passwords or self.identity_token_file or self.identity_token_env
        assert secret is not None  # noqa: S101 - contradictions.py lets none pass without
        return secret

    @property
    def is_identity_token(self) -> bool:
        return (
            self.username == logins.IDENTITY_TOKEN_USER
            or (self.identity_token_file or self.identity_token_env) is not None
        )


def _one_or_more(section: object) -> object:
    """A section that may stand once, or as a list of them."""
    if section is None:
        return ()
    return section if isinstance(section, list) else [section]


Logins = Annotated[tuple[Credentials, ...], Read(_one_or_more)]


class ProxyConfig(Section):
    """The way out of a network: an HTTP proxy. `url` None: none is used, whatever the environment
    says. `excepted`: what is asked directly all the same, in the words of NO_PROXY."""

    url: Annotated[str | None, Read(proxies.proxy_url_or_none)]
    username: Annotated[str | None, Read(logins.username)] = None
    password_file: Annotated[Secret | None, Read(logins.password_from_file)] = None
    password_env: Annotated[Secret | None, Read(logins.password_from_environment)] = None
    excepted: Annotated[
        tuple[Annotated[str, Read(proxies.excepted)], ...],
        Read(or_none_listed),
    ] = key(default=(), alias="except")

    @property
    def password(self) -> Secret | None:
        return self.password_file or self.password_env


def _proxy(section: object) -> object:
    """`none`, or a URL, is its one key."""
    return {"url": section} if isinstance(section, str) else section


ProxyKey = Annotated[ProxyConfig | None, Read(_proxy)]


CaFile = Annotated[Pem | None, Read(certificates.authorities)]
TokenRealm = Annotated[str | None, Read(places.realm_url)]


class EndpointConfig(Section):
    """`url` is `scheme://host[:port]`, and a path if there is one. `prefix`: what stands before
    each repository's name, None: as `url` says; use `address`, which has both. `trust` tags: it may
    say what a tag points to; content: it is asked for bytes by digest only. `connections`: to its
    host, at most, from all workers, beside those that ask for tokens. `credentials`, `realm`,
    `proxy`, `ca_file` and `client`: its own, instead of the registry's."""

    url: Annotated[str, Read(places.endpoint_url)]
    prefix: Annotated[str | None, Read(places.endpoint_prefix)] = None
    trust: Annotated[Literal["tags", "content"], Read(values.choice("tags", "content"))] = "tags"
    connections: Annotated[int, Read(values.count(values.MAX_CONNECTIONS))] = 32
    credentials: Logins = ()
    realm: TokenRealm = None
    proxy: ProxyKey = None
    ca_file: CaFile = None
    client: ClientConfig | None = None

    @property
    def address(self) -> str:
        """Where the registry is, in one form: see oci/layout.py for its path."""
        return places.prefixed(self.url, self.prefix)


class FreshnessConfig(Section):
    """Periods of a tag's age, in seconds, for the tags that one of the `match` patterns means.

    `ttl`: answered without asking. After that, for `stale_while_revalidate`, answered while asking,
    and for `stale`, when the upstream cannot say (RFC 5861). `negative_ttl`: how long "no such tag"
    is believed, and at most "no such digest". `on_404`: whether that is believed of a tag that was
    known. `immutable`: once known, a tag is never asked about again.
    """

    match: Annotated[tuple[str, ...], Read(values.image_patterns)] = ("*",)
    ttl: Seconds = 300.0
    stale_while_revalidate: Seconds = 0.0
    stale: Seconds = 86400.0
    negative_ttl: Seconds = 30.0
    on_404: Annotated[Literal["believe", "keep"], Read(values.choice("believe", "keep"))] = (
        "believe"
    )
    immutable: Annotated[bool, Read(values.yes_or_no)] = False


class QuotaConfig(Section):
    """What an endpoint grants, where it counts (as Docker Hub does). Below `low`, a share of it,
    what remains is spared."""

    low: Annotated[float, Read(values.share)] = 0.2


def _freshness_rules(section: object) -> object:
    return section if isinstance(section, list) else [or_empty(section)]


class RegistryConfig(Section):
    """One registry. Of `freshness` the first that means a tag is for it. `allow_private`: networks,
    and host names in lower case. `hosts`: the names of this mirror, in lower case, by which clients
    mean this registry. `proxy` None: as the environment says. `ca_file`: trusted besides the
    system's. `client`: for endpoints whose trust is tags, as `credentials` are. `hosted`: its
    repositories are looked for among one's own first; it may be without `endpoints` then."""

    endpoints: tuple[EndpointConfig, ...]
    hosted: Annotated[bool, Read(values.yes_or_no)] = False
    credentials: Logins = ()
    proxy: ProxyKey = None
    ca_file: CaFile = None
    client: ClientConfig | None = None
    freshness: Annotated[tuple[FreshnessConfig, ...], Read(_freshness_rules)] = (FreshnessConfig(),)
    quota: Annotated[QuotaConfig, Read(or_empty)] = QuotaConfig()
    realm: TokenRealm = None
    hosts: Annotated[
        tuple[Annotated[str, Read(places.own_name)], ...],
        Read(or_none_listed),
    ] = ()
    allow_private: Annotated[
        tuple[Annotated[Network | str, Read(places.private_place)], ...],
        Read(or_none_listed),
    ] = ()


class AccessConfig(Section):
    """Which repositories may be read: `allow` or `deny`, never both. `min_age`, in seconds, is for
    tags: what they point to now is given only once it is that old."""

    name: Annotated[str, Read(values.rule_name)]
    allow: Annotated[tuple[str, ...], Read(values.repository_patterns)] = ()
    deny: Annotated[tuple[str, ...], Read(values.repository_patterns)] = ()
    min_age: Seconds = 0.0


def _own_endpoint(name: str) -> str:
    # A name that is none is told as such; a URL made of it would be told a second time.
    return url_of(parse_registry(name) if is_registry(name) else DOCKER_HUB)


def _with_endpoints(registries: object) -> Any:
    """A registry without endpoints has the one that its name says; a hosted one has none."""
    if registries is None:
        registries = {DOCKER_HUB: {}}
    if not isinstance(registries, dict):
        return registries
    filled = {}
    for name, registry in registries.items():
        if registry is None:
            registry = {}
        if isinstance(registry, dict) and registry.get("endpoints") is None:
            own = [] if registry.get("hosted") == "true" else [{"url": _own_endpoint(name)}]
            registry = {**registry, "endpoints": own}
        filled[name] = registry
    return filled


def _only_docker_hub() -> dict[str, RegistryConfig]:
    return {DOCKER_HUB: RegistryConfig(endpoints=(EndpointConfig(url=_own_endpoint(DOCKER_HUB)),))}


class Config(Section):
    """A mirror, wholly described. Without `tls` it speaks plain HTTP wherever it listens. Each name
    in `registries` is what image names begin with. `hosted` None: nothing can be pushed here.
    `fleet` None: this mirror fetches for itself alone.
    `pin`: images, as `parse_image` reads them, frozen to a digest, or to what they were at a
    time."""

    listen: Annotated[tuple[ListenConfig, ...], Read(listen_list)] = (
        at(f"{places.LOOPBACK}:5000"),
    )
    admin: Annotated[AdminConfig, Read(admin_section)] = AdminConfig()
    workers: Annotated[int, Read(values.workers)] = 1
    tls: TlsConfig | None = None
    hosted: HostedConfig | None = None
    fleet: FleetConfig | None = None
    storage: Annotated[StorageConfig, Read(or_empty)] = key(default_factory=StorageConfig)
    tags: Annotated[TagsConfig, Read(or_empty)] = TagsConfig()
    log: Annotated[LogConfig, Read(or_empty)] = LogConfig()
    tracing: TracingConfig | None = None
    limits: Annotated[LimitsConfig, Read(or_empty)] = LimitsConfig()
    default_registry: Annotated[str, Read(places.registry_name)] = DOCKER_HUB
    offline: Annotated[bool, Read(values.yes_or_no)] = False
    prefetch: Annotated[bool, Read(values.yes_or_no)] = True
    allow_any_registry: Annotated[bool, Read(values.yes_or_no)] = False
    access: Annotated[tuple[AccessConfig, ...], Read(or_none_listed)] = ()
    sync: Annotated[tuple[SyncConfig, ...], Read(or_none_listed)] = ()
    pin: Annotated[
        Mapping[
            Annotated[str, Read(values.tagged_image)],
            Annotated[Digest | datetime, Read(values.digest_or_time)],
        ],
        Read(or_empty),
    ] = key(default_factory=dict)
    registries: Annotated[
        Mapping[Annotated[str, Read(places.registry_name)], RegistryConfig],
        Read(_with_endpoints),
    ] = key(default_factory=_only_docker_hub)
