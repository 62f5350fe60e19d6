"""mirror.yaml → Config: every mistake at once, with its line and what to write instead.

`load` and `parse` give a Config whose values are ready for use (bytes, seconds, parsed addresses,
secrets already read) or raise ConfigError, whose text is for the user as it stands.
"""

from .model import (
    Config,
    Credentials,
    Endpoint,
    Freshness,
    Limits,
    RegistryConfig,
    Storage,
    Tags,
)
from .places import Address, Network
from .problems import ConfigError, Problem
from .reading import load, parse

__all__ = [
    "Address",
    "Config",
    "ConfigError",
    "Credentials",
    "Endpoint",
    "Freshness",
    "Limits",
    "Network",
    "Problem",
    "RegistryConfig",
    "Storage",
    "Tags",
    "load",
    "parse",
]
