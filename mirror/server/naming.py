"""Which registry a request means: one port serves many, and clients have four ways to say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..oci.errors import Denied, quoted
from ..oci.reference import Repository

DOCKER_HUB = "docker.io"

_REGISTRY = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?(?::[0-9]{1,5})?", re.ASCII)
_PORT = re.compile(r":[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Naming:
    """Reads the registry out of a request.

    `?ns=ghcr.io` (containerd), a first component of the path, `/v2/ghcr.io/owner/app/…` (clients
    that can only rewrite the host), or a Host that is in `hosts`. Those that are there have to
    agree: containerd's `override_path` sends the first two. Without any it is `default`, which is
    how dockerd asks.

    `configured` are the registries by name, `hosts` the configured Host names, in lower case and
    without a port, with the registry that each means. `any_registry`: others may be named too.
    """

    default: str = DOCKER_HUB
    configured: frozenset[str] = frozenset({DOCKER_HUB})
    hosts: Mapping[str, str] = field(default_factory=dict)
    any_registry: bool = False

    def repository(self, name: str, ns: str | None = None, host: str = "") -> Repository:
        """The repository that is meant by the name in the path, the query's `ns` and the Host.

        Whether that registry is served is for others to say. Raises Denied for a registry that
        cannot be one, and where the request names two; NameInvalid.
        """
        said = {"?ns=": _registry(ns), "its Host": self.hosts.get(_without_port(host))}
        first, slash, rest = name.partition("/")
        asked = said["?ns="] or said["its Host"] or self.default
        if slash and self._is_prefix(first, asked):
            said["its path"], name = _registry(first), rest
        named = {registry for registry in said.values() if registry}
        if len(named) > 1:
            words = " and ".join(
                f"{where} {registry}" for where, registry in said.items() if registry
            )
            raise Denied(f"the request names two registries, {words}: leave one of them out")
        registry = named.pop() if named else self.default
        return Repository(registry, official(registry, name))

    def _is_prefix(self, first: str, asked: str) -> bool:
        """Whether the first component of a path is a registry, and not of a repository's name.

        A dot alone proves nothing: many registries let a repository be called `ghcr.io/app`. Docker
        Hub does not, and no registry lets a colon into a name.
        """
        if first in self.configured or ":" in first:
            return True
        return "." in first and (self.any_registry or asked == DOCKER_HUB)


def official(registry: str, name: str) -> str:
    """Docker Hub keeps its official images below library/. Container clients write that out
    themselves; people with curl do not.

    >>> official("docker.io", "redis"), official("quay.io", "redis")
    ('library/redis', 'redis')
    """
    return f"library/{name}" if registry == DOCKER_HUB and "/" not in name else name


def _registry(text: str | None) -> str | None:
    """A registry's name as the configuration spells it. Raises Denied for what is none."""
    if not text:
        return None
    registry = text.lower()
    if not _REGISTRY.fullmatch(registry):
        raise Denied(f"{quoted(text)} is no registry: write a host name, as in docker.io")
    return registry


def _without_port(host: str) -> str:
    """A Host header (RFC 9110, 7.2) as `hosts` has it.

    >>> _without_port("GHCR.mirror.lan.:5000"), _without_port("[::1]:5000")
    ('ghcr.mirror.lan', '[::1]')
    """
    name, colon, port = host.strip(" \t").rpartition(":")
    if not _PORT.fullmatch(colon + port):
        name = host.strip(" \t")
    return name.lower().rstrip(".")
