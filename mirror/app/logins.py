"""The logins of the configuration: how a secret is read again, and which of them are refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain

import structlog

from ..config import Config, EndpointConfig, Mistake, RegistryConfig, Secret
from ..frozen import dataclass
from ..oci.reference import ImageReference
from ..secret_text import SecretStr
from ..storage.records.accounts import refused_logins
from .credential_helpers import CredentialHelper

log = structlog.get_logger()


def name_of(endpoint: EndpointConfig) -> str:
    """What messages and metrics call it."""
    return endpoint.address.partition("://")[2]


def hindrances(config: Config, image: ImageReference) -> Sequence[str]:
    """Why what is missing of this image may not come by itself, and how to see. Blocking."""
    if config.offline:
        return ["offline: true, so that no registry is asked for what is missing"]
    return [
        *refusals(config, image.repository.registry),
        f"whether its registry gives it: registry-mirror check --online {image}",
    ]


def refusals(config: Config, registry: str) -> Sequence[str]:
    """What is to be said of the logins of this registry that are refused, as far as the mirror that
    serves has written it down. Blocking."""
    configured = config.registries.get(registry)
    hosts = {_host(name_of(endpoint)) for endpoint in configured.endpoints} if configured else set()
    refused = [
        f"{record.why}: {record.mend}; until then only what is public can be fetched"
        for record in refused_logins(config.storage.path)
        if _host(record.endpoint) in hosts  # all endpoints there hear of it
    ]
    return refused or _missing_helpers(configured)


def _missing_helpers(registry: RegistryConfig | None) -> Sequence[str]:
    """Of the credential helpers that are no program on the PATH of this process."""
    if registry is None:
        return ()
    logins = chain(registry.credentials, *(each.credentials for each in registry.endpoints))
    names = dict.fromkeys(login.credential_helper for login in logins if login.credential_helper)
    helpers = [CredentialHelper(name, "") for name in names]
    return [
        f"{helper.place()} is not on the PATH here: install it where the mirror runs"
        for helper in helpers
        if not helper.is_there()
    ]


def _host(endpoint: str) -> str:
    """Of an endpoint's name."""
    return endpoint.partition("/")[0]


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A SecretSource."""

    secret: Secret

    def read(self) -> SecretStr | None:
        try:
            return self.secret.read()
        except Mistake as mistake:
            log.warning("secret_unreadable", reason=mistake.found, hint=f"write {mistake.write}")
            return None

    def place(self) -> str:
        return str(self.secret.file or "the environment")

    def stamp(self) -> str:
        if self.secret.file is None:
            return ""
        try:
            found = os.stat(self.secret.file)
        except OSError:
            return ""
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
