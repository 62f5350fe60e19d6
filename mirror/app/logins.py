"""The logins of the configuration: how a secret is read again, and which of them are refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from pydantic import SecretStr

from ..config import Config, EndpointConfig, Mistake, Secret
from ..oci.reference import ImageReference
from ..storage.records.accounts import refused_logins

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
    return [
        f"{record.why}: {record.mend}; until then only what is public can be fetched"
        for record in refused_logins(config.storage.path)
        if _host(record.endpoint) in hosts  # all endpoints there hear of it
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
