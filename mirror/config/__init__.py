"""mirror.yaml → Config: every mistake at once, with its line and what to write instead.

`load` and `parse` give a Config whose values are ready for use (bytes, seconds, parsed addresses,
secrets already read) or raise ConfigError, whose text is for the user as it stands.
"""

from .admin import AdminConfig
from .fleet import DnsName, FleetConfig
from .hosted import HostedConfig
from .listening import ListenConfig, TlsConfig
from .logins import (
    IDENTITY_TOKEN_USER,
    Secret,
    checked_identity_token,
    checked_password,
)
from .logins import username as checked_username
from .model import (
    AccessConfig,
    ClientConfig,
    Config,
    Credentials,
    EndpointConfig,
    FreshnessConfig,
    LimitsConfig,
    ProxyConfig,
    QuotaConfig,
    RegistryConfig,
    StorageConfig,
    TagsConfig,
)
from .places import Address, Network, mirror_url, registry_name
from .problems import ConfigError, Mistake, Problem
from .proxies import EnvironmentProxies, EnvironmentProxy, environment
from .reading import load, load_again, parse, store_of
from .reloading import NEEDS_RESTART, following
from .sync import ClockWindow, SyncConfig
from .sync import name_of as sync_name
from .values import digest_or_time, seconds, size_or_none, tagged_image

__all__ = [
    "IDENTITY_TOKEN_USER",
    "NEEDS_RESTART",
    "AccessConfig",
    "Address",
    "AdminConfig",
    "ClientConfig",
    "ClockWindow",
    "Config",
    "ConfigError",
    "Credentials",
    "DnsName",
    "EndpointConfig",
    "EnvironmentProxies",
    "EnvironmentProxy",
    "FleetConfig",
    "FreshnessConfig",
    "HostedConfig",
    "LimitsConfig",
    "ListenConfig",
    "Mistake",
    "Network",
    "Problem",
    "ProxyConfig",
    "QuotaConfig",
    "RegistryConfig",
    "Secret",
    "StorageConfig",
    "SyncConfig",
    "TagsConfig",
    "TlsConfig",
    "checked_identity_token",
    "checked_password",
    "checked_username",
    "digest_or_time",
    "environment",
    "following",
    "load",
    "load_again",
    "mirror_url",
    "parse",
    "registry_name",
    "seconds",
    "size_or_none",
    "store_of",
    "sync_name",
    "tagged_image",
]
