"""The endpoints of registries, as the configuration describes them, or a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from ..config import (
    IDENTITY_TOKEN_USER,
    Config,
    Credentials,
    EndpointConfig,
    EnvironmentProxies,
    EnvironmentProxy,
    ProxyConfig,
    RegistryConfig,
)
from ..oci.registries import url_of
from ..secret_text import SecretStr
from ..upstream.egress import Allowed
from ..upstream.endpoint import (
    CONNECTIONS,
    Addresses,
    Configured,
    Connecting,
    Endpoint,
    EndpointLimits,
    GivenToken,
    HelperLogin,
    IdentityToken,
    Login,
    Logins,
    Trust,
)
from ..upstream.proxies import Exceptions, Proxy, Routes
from .credential_helpers import CredentialHelper, server_of
from .logins import SecretFile, name_of


def configured_endpoints(config: Config) -> Mapping[str, Sequence[Endpoint]]:
    """Each configured registry's endpoints, in the order of mirror.yaml."""
    limits = _limits(config)
    return {
        name: [_endpoint(name, registry, each, limits) for each in registry.endpoints]
        for name, registry in config.registries.items()
    }


def host_of(url: str) -> str:
    """`host:port`, in lower case."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _limits(config: Config) -> Mapping[str, int]:
    """How many connections each host that has endpoints bears: the least that one of them says, and
    of that this worker's part."""
    limits: dict[str, int] = {}
    for registry in config.registries.values():
        for endpoint in registry.endpoints:
            host = host_of(endpoint.url)
            limits[host] = min(limits.get(host, endpoint.connections), endpoint.connections)
    return {host: _part(limit, config.workers) for host, limit in limits.items()}


def _part(connections: int, workers: int) -> int:
    return max(1, connections // workers)


def _endpoint(
    name: str, registry: RegistryConfig, endpoint: EndpointConfig, limits: Mapping[str, int]
) -> Endpoint:
    return Endpoint(
        name=name_of(endpoint),
        url=endpoint.address,
        registry=name,
        trust=Trust(endpoint.trust),
        logins=Logins(
            tuple(_login(one, endpoint.address) for one in _credentials(registry, endpoint)),
            _realm(registry, endpoint),
            registry.quota.low,
        ),
        addresses=Addresses(allowed=Allowed.parse(map(str, registry.allow_private))),
        connecting=_connecting(registry, endpoint),
        limits=EndpointLimits(connections=limits[host_of(endpoint.url)]),
    )


def unconfigured_endpoint(name: str, workers: int) -> Endpoint:
    """The endpoint of a registry that a client named. All of them count as one: a metric's labels
    are from a bounded set."""
    return Endpoint(
        name="unconfigured",
        url=url_of(name),
        registry=name,
        addresses=Addresses(configured=False),
        limits=EndpointLimits(connections=_part(CONNECTIONS, workers)),
    )


def _credentials(config: RegistryConfig, endpoint: EndpointConfig) -> Sequence[Credentials]:
    """The endpoint's own, else the registry's. An accelerator that only passes the registry's
    content on has no business with those."""
    if endpoint.credentials or endpoint.trust != "tags":
        return endpoint.credentials
    return config.credentials


def _realm(registry: RegistryConfig, endpoint: EndpointConfig) -> str | None:
    """The token realm that is asked, whatever the endpoint names; None: the one that it names. The
    registry's is not one of an accelerator's that is asked without a login."""
    if endpoint.realm is not None or not (endpoint.credentials or endpoint.trust == "tags"):
        return endpoint.realm
    return registry.realm


def _connecting(registry: RegistryConfig, endpoint: EndpointConfig) -> Connecting:
    proxy = endpoint.proxy or registry.proxy
    ca_file = endpoint.ca_file or registry.ca_file
    client = endpoint.client
    if client is None and endpoint.trust == "tags":  # as with credentials
        client = registry.client
    return Connecting(
        routes=_routes(proxy) if proxy else None,
        authorities=ca_file.text.get_secret_value() if ca_file else "",
        shown=client.pem if client else None,
    )


def _routes(config: ProxyConfig) -> Routes:
    if config.url is None:
        return Routes()
    secret = config.password
    proxy = Proxy(
        config.url,
        config.username,
        secret and SecretStr(secret.get_secret_value()),
        SecretFile(secret).read if secret else None,
    )
    return Routes(proxy, proxy, Exceptions.parse(config.excepted))


def routes_of(environment: EnvironmentProxies) -> Routes:
    """The environment's, where a registry has no `proxy`."""
    return Routes(
        _of_environment(environment.http),
        _of_environment(environment.https),
        Exceptions.parse(environment.excepted),
        spares_loopback=True,
    )


def _of_environment(proxy: EnvironmentProxy | None) -> Proxy | None:
    return Proxy(proxy.url, proxy.username, proxy.password) if proxy else None


def _login(credentials: Credentials, url: str) -> Configured:
    name, helper = credentials.username, credentials.credential_helper
    if helper is not None:
        program = CredentialHelper(helper, server_of(url), name)
        return HelperLogin(name or helper, helper, program.server, program)
    secret, source = credentials.secret, SecretFile(credentials.secret)
    if credentials.is_identity_token:
        return IdentityToken(name or IDENTITY_TOKEN_USER, secret, source)
    return Login(name, secret, source) if name else GivenToken(secret, source)
