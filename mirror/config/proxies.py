"""Proxies: those of mirror.yaml, and those of the environment. Each function that reads a value of
mirror.yaml raises Mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_network
from urllib.parse import unquote, urlsplit

from ..frozen import dataclass
from ..oci.errors import quoted
from ..secret_text import SecretStr
from .places import is_host, masked
from .problems import ConfigError, Mistake, Problem
from .values import text

_EXAMPLE = "http://proxy.corp.local:3128"
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


def proxy_url_or_none(value: object) -> str | None:
    """`scheme://host[:port]` of an HTTP proxy; None for `none`."""
    write = f"a URL such as {_EXAMPLE}, or none"
    given = text(value, write)
    if given == "none":
        return None
    if "@" in given:
        raise Mistake(
            masked(given),
            "the URL without a login: {url: …, username: …, password_file: …}",
        )
    return _origin(given, write)


def _origin(given: str, write: str) -> str:
    """Of a URL without a login."""
    scheme = given.partition("://")[0].lower()
    if _is_socks(given):
        raise Mistake(
            f"{quoted(scheme[:10])}, which is not spoken here",
            f"an HTTP proxy's URL such as {_EXAMPLE}: SOCKS proxies mostly have one beside",
        )
    try:
        url = urlsplit(given)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise Mistake(masked(given), write) from None
    if (
        scheme not in ("http", "https")
        or not _VISIBLE.fullmatch(given)
        or not (is_host(host) or ":" in host)
        or port == 0
        or url.netloc.endswith(":")
        or url.path not in ("", "/")
        or "?" in given
        or "#" in given
    ):
        raise Mistake(masked(given), write)
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" + ("" if port is None else f":{port}")


def _is_socks(given: str) -> bool:
    return given.lower().startswith("socks") and "://" in given


def excepted(value: object) -> str:
    """A host, a domain, an address or a network that is asked directly, as NO_PROXY has them."""
    write = "a name such as corp.local or .corp.local, an address, a network such as 10.0.0.0/8"
    given = text(value, write).strip().lower()
    if given == "*" or _is_network(given):
        return given
    host, colon, port = given.rpartition(":")
    if colon and not (_PORT.fullmatch(port) and 0 < int(port) < 65536):
        raise Mistake(masked(given), write)
    host = host if colon else given
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    name = bare.removeprefix("*").removeprefix(".")
    if not _is_network(bare) and not is_host(name):
        raise Mistake(masked(given), write)
    return given


def _is_network(given: str) -> bool:
    try:
        ip_network(given, strict=False)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class EnvironmentProxy:
    """`url` is `scheme://host[:port]`."""

    url: str
    username: str | None
    password: SecretStr | None


@dataclass(frozen=True, slots=True)
class EnvironmentProxies:
    """What the environment says: the proxies of http and of https URLs, and the entries of
    NO_PROXY."""

    http: EnvironmentProxy | None = None
    https: EnvironmentProxy | None = None
    excepted: tuple[str, ...] = ()


def environment(variables: Mapping[str, str]) -> EnvironmentProxies:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY, lower case first; ALL_PROXY where there is none of the
    first two, as curl has it. An ALL_PROXY of SOCKS is left out: container clients do not read
    that variable at all. Raises ConfigError, which shows no login."""
    problems: list[Problem] = []

    def proxy(name: str) -> EnvironmentProxy | None:
        for variable in (name.lower(), name):
            if given := variables.get(variable, "").strip():
                if name == "ALL_PROXY" and _is_socks(given):
                    return None
                try:
                    return _proxy(given)
                except Mistake as mistake:
                    problem = Problem(
                        "the environment", None, variable, mistake.found, mistake.write
                    )
                    problems.append(problem)
                    return None
        return None

    http, https = proxy("HTTP_PROXY"), proxy("HTTPS_PROXY")
    other = None if http and https else proxy("ALL_PROXY")
    if problems:
        raise ConfigError(problems)
    entries = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    return EnvironmentProxies(
        http or other, https or other, tuple(filter(None, re.split(r"[\s,]+", entries)))
    )


def _proxy(given: str) -> EnvironmentProxy:
    write = f"a URL such as {_EXAMPLE}"
    scheme, separator, rest = given.rpartition("://")
    login, at, place = rest.rpartition("@")
    # As in Go and curl, what has no scheme is an HTTP proxy.
    url = _origin(f"{scheme if separator else 'http'}://{place}", write)
    if not at:
        return EnvironmentProxy(url, None, None)
    name, _, password = login.partition(":")
    return EnvironmentProxy(url, unquote(name), SecretStr(unquote(password)))
