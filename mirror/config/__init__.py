"""mirror.yaml → Config: every mistake at once, with its line and what to write instead.

`load` and `parse` give a Config whose values are ready for use (bytes, seconds, parsed addresses,
secrets already read) or raise ConfigError, whose text is for the user as it stands.
"""

from .logins import Secret
from .model import (
    AccessRule,
    Config,
    Credentials,
    Endpoint,
    Freshness,
    Limits,
    Quota,
    RegistryConfig,
    Storage,
    Tags,
)
from .places import Address, Network
from .problems import ConfigError, Mistake, Problem
from .reading import load, parse
from .values import digest_or_time, tagged_image

__all__ = [
    "AccessRule",
    "Address",
    "Config",
    "ConfigError",
    "Credentials",
    "Endpoint",
    "Freshness",
    "Limits",
    "Mistake",
    "Network",
    "Problem",
    "Quota",
    "RegistryConfig",
    "Secret",
    "Storage",
    "Tags",
    "digest_or_time",
    "load",
    "parse",
    "tagged_image",
]
