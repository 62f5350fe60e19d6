"""Which registry a request means: one port serves many, and clients have several ways to say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from ...frozen import dataclass
from ...oci.errors import Denied, NameUnknown, quoted
from ...oci.reference import Repository
from ...oci.registries import DOCKER_HUB, is_registry, looks_like_registry, official, parse_registry

_PORT = re.compile(r":[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Naming:
    """Reads the registry out of a request.

    `?ns=ghcr.io` (containerd); a first component of the path behind /v2/, `/v2/ghcr.io/owner/app/…`
    (clients that can only rewrite the host), or before it, `/ghcr.io/v2/owner/app/…` (dockerd 28
    and containerd, told of a mirror as `http://mirror/ghcr.io`); or a Host that is in `hosts`.
    Those that are there have to agree: containerd's `override_path` sends the first two. Without
    any it is `default`, which is how dockerd asks.

    `configured` are the registries by name, `hosts` the configured Host names, in lower case and
    without a port, with the registry that each means. `any_registry`: others may be named too.
    """

    default: str = DOCKER_HUB
    configured: frozenset[str] = frozenset({DOCKER_HUB})
    hosts: Mapping[str, str] = field(default_factory=dict)
    any_registry: bool = False

    def repository(
        self, name: str, ns: str | None = None, host: str = "", before: str = ""
    ) -> Repository:
        """The repository that is meant by the name behind /v2/, the query's `ns`, the Host, and
        what stands before /v2/ ("" for nothing).

        Whether that registry is served is for others to say. Raises RegistryInvalid for a registry
        that cannot be one, Denied where the request names two; NameInvalid; and what `base` does.
        """
        said = {
            "?ns=": parse_registry(ns) if ns else None,
            "its Host": self.hosts.get(without_port(host)),
            "its path before /v2/": self.base(before) if before else None,
        }
        first, slash, rest = name.partition("/")
        asked = next((registry for registry in said.values() if registry), self.default)
        if slash and self._is_prefix(first, asked):
            said["its path"] = parse_registry(first)
            name = _without_api(rest) if said["its path"] == DOCKER_HUB else rest
        named = {registry for registry in said.values() if registry}
        if len(named) > 1:
            words = " and ".join(
                f"{where} {registry}" for where, registry in said.items() if registry
            )
            raise Denied(f"the request names two registries, {words}: leave one of them out")
        registry = named.pop() if named else self.default
        return Repository(registry, official(registry, name))

    def base(self, before: str) -> str:
        """The registry that stands before /v2/. Raises NameUnknown where that is none, or one that
        is not served."""
        if is_registry(before):
            registry = parse_registry(before)
            if registry in self.configured or (self.any_registry and looks_like_registry(before)):
                return registry
        raise NameUnknown(
            f"{quoted(before)} before /v2/ is no registry that is served here; "
            f"configured are {', '.join(sorted(self.configured))}"
        )

    def _is_prefix(self, first: str, asked: str) -> bool:
        """Whether the first component of a path is a registry, and not of a repository's name.

        A dot alone proves nothing: many registries let a repository be called `ghcr.io/app`. Docker
        Hub does not, and no registry lets a colon into a name.
        """
        if "." not in first:
            return ":" in first or first.lower() in self.configured
        if ":" in first or self.any_registry or asked == DOCKER_HUB:
            return True
        return is_registry(first) and parse_registry(first) in self.configured


def _without_api(name: str) -> str:
    """containerd that is told of a mirror as `http://mirror/v2/docker.io`, without `override_path`,
    puts /v2/ behind that. Docker Hub's names have two components, so that this can be told there;
    elsewhere it may be a repository's name.

    >>> _without_api("v2/library/redis"), _without_api("v2/redis")
    ('library/redis', 'v2/redis')
    """
    return name.removeprefix("v2/") if name.count("/") == 2 else name


def without_port(host: str) -> str:
    """A Host header (RFC 9110, 7.2) as `hosts` has it.

    >>> without_port("GHCR.mirror.lan.:5000"), without_port("[::1]:5000")
    ('ghcr.mirror.lan', '[::1]')
    """
    name, colon, port = host.strip(" \t").rpartition(":")
    if not _PORT.fullmatch(colon + port):
        name = host.strip(" \t")
    return name.lower().rstrip(".")
