"""What registries are called: the one grammar of their names, and all that is known of Docker Hub.

A registry's name is the host that its images' names begin with, and its port if it is not 443. It
has many spellings and one form: in lower case, without the root's dot, without `:443`, and with
Docker Hub, which has several hosts, always as `docker.io`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, ip_address

from .errors import RegistryInvalid

DOCKER_HUB = "docker.io"
DOCKER_HUB_REALM = "https://auth.docker.io"
"""Where Docker Hub gives tokens."""

# What else stands for it in configurations, `?ns=` and image names: the key of docker/config.json,
# the host that is asked, and those of its web site, which answer as a registry or once did.
_DOCKER_HUB_TOO = frozenset(
    {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"}
)
# Where a registry answers when its images' names begin with something else.
_URLS = {DOCKER_HUB: "https://registry-1.docker.io"}

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)\.?(?::([0-9]{{1,5}}))?")
_LONGEST = 255 + len(":65535")
_HTTPS = 443
# A host that ends in a number is an IPv4 address (WHATWG URL, "ends in a number checker"), which
# resolvers take in many spellings (127.1, 0x7f.1, 2130706433): only the common one is a name here.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@lru_cache(maxsize=512)  # the same few are named with each request
def parse_registry(text: str) -> str:
    """A registry's name in its one form. Raises RegistryInvalid.

    >>> parse_registry("GHCR.io:443"), parse_registry("index.docker.io")
    ('ghcr.io', 'docker.io')
    >>> parse_registry("registry.corp.local:5000")
    'registry.corp.local:5000'
    """
    # Only ASCII is made lower: some other letters become ASCII by that (the Kelvin sign, a k).
    match = _NAME.fullmatch(text.lower()) if text.isascii() and len(text) <= _LONGEST else None
    if match is None:
        raise RegistryInvalid(text)
    host, port = match[1], int(match[2] or _HTTPS)
    if not 0 < port < 65536 or not _is_host(host):
        raise RegistryInvalid(text)
    name = host if port == _HTTPS else f"{host}:{port}"
    return DOCKER_HUB if name in _DOCKER_HUB_TOO else name


def _is_host(host: str) -> bool:
    if len(host) > 253:
        return False
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return True
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def is_address(host: str) -> bool:
    """Whether a host is an IP address, without the brackets of a URL."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_registry(text: str) -> bool:
    """Whether this is a registry's name, in any spelling."""
    try:
        parse_registry(text)
    except RegistryInvalid:
        return False
    return True


def looks_like_registry(component: str) -> bool:
    """Whether the first of several components of an image's name is a registry: Docker's rule, kept
    by all clients.

    >>> looks_like_registry("ghcr.io"), looks_like_registry("localhost")
    (True, True)
    >>> looks_like_registry("library")
    False
    """
    return "." in component or ":" in component or component.lower() == "localhost"


def official(registry: str, name: str) -> str:
    """A repository's name as the registry has it. Docker Hub keeps its official images below
    library/: container clients write that out themselves, people do not.

    >>> official("docker.io", "redis"), official("quay.io", "redis")
    ('library/redis', 'redis')
    """
    return f"library/{name}" if registry == DOCKER_HUB and "/" not in name else name


def short_name(registry: str, name: str) -> str:
    """As people write it, which `official` reads: the way back.

    >>> short_name("docker.io", "library/redis"), short_name("docker.io", "library/a/b")
    ('redis', 'library/a/b')
    """
    short = name.removeprefix("library/") if registry == DOCKER_HUB else name
    return name if "/" in short else short


def url_of(registry: str) -> str:
    """Where the registry of this name (in its one form) is asked, if nothing else is known.

    >>> url_of("docker.io"), url_of("ghcr.io")
    ('https://registry-1.docker.io', 'https://ghcr.io')
    """
    return _URLS.get(registry, f"https://{registry}")
