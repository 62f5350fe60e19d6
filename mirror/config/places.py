"""Text of the configuration → places on the network. Each function raises Mistake.

What is shown of a URL is masked first: people put logins into them.
"""

from __future__ import annotations

import contextlib
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from urllib.parse import SplitResult, urlsplit

from ..frozen import dataclass
from ..oci.errors import NameInvalid, quoted
from ..oci.layout import Layout, layouts
from ..oci.reference import parse_name
from ..oci.registries import DOCKER_HUB, is_registry, parse_registry, url_of
from ..redis_url import SCHEMES, parse_redis_url
from ..secret_text import SecretStr
from .problems import Mistake
from .values import text

LOOPBACK = "127.0.0.1"
# Of Docker Hub, which is asked elsewhere: they answer no registry's questions.
_WEB_SITES = ("hub.docker.com", "docker.io", "www.docker.com")

Network = IPv4Network | IPv6Network

# An underscore is no DNS, but Docker's own networks resolve it.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host` "" is every address of this host, IPv4 and IPv6, as asyncio has it;
    an IPv6 address stands without brackets. `port` 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this host can connect there."""
        with contextlib.suppress(ValueError):
            return ip_interface(self.host).ip.is_loopback
        return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_host(name: str) -> bool:
    """A host name or an IPv4 address. `127.1` and `1.2.3.999` are neither."""
    if len(name) > 253 or not _HOST.fullmatch(name):
        return False
    if not name.rpartition(".")[2].isdigit():
        return True
    return _is(IPv4Address, name)


def _is(parse: type[IPv4Address | IPv6Address], name: str) -> bool:
    try:
        parse(name)
    except ValueError:
        return False
    return True


def address(value: object) -> Address:
    """`host:port`, `[IPv6]:port`, `:port` (every address), or a bare port (loopback only)."""
    write = "host:port such as 127.0.0.1:5000, or :5000 for every address of this host"
    given = text(value, write)
    host, colon, port = given.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        known = _is(IPv6Address, host)
    elif _is(IPv6Address, given) or _is(IPv6Address, host):
        raise Mistake(quoted(given), "an IPv6 address in brackets, such as [::1]:5000")
    else:
        known = not host or is_host(host)
    if not known or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise Mistake(quoted(given), write)
    return Address(host if colon else LOOPBACK, int(port))


def registry_name(value: object) -> str:
    """A registry as image names begin with it, in its one form whatever its spelling."""
    write = "a registry's host name such as ghcr.io"
    given = text(value, write)
    if is_registry(given):
        return parse_registry(given)
    bare = (given.partition("://")[2] or given).partition("/")[0]
    raise Mistake(masked(given), parse_registry(bare) if is_registry(bare) else write)


def endpoint_url(value: object) -> str:
    """`https://host[:port]`, and a path in its one form (see oci/layout.py); http too."""
    example = "https://registry.example.com"
    if isinstance(value, str) and is_registry(value):
        raise Mistake(quoted(value), f"https://{value}")
    url, origin = _http_url(value, example)
    first = url.path.strip("/").partition("/")[0]
    if url.hostname in _WEB_SITES:
        raise Mistake(masked(str(value)), f"{url_of(DOCKER_HUB)}: that is Docker Hub's web site")
    if first == "v1":  # Docker Hub's in every docker/config.json, though it answers there no more
        host = url.hostname or ""
        write = url_of(parse_registry(host)) if is_registry(host) and url.port is None else origin
        raise Mistake(masked(str(value)), f"{write}: a registry is asked at /v2/ today")
    if first == "V2":
        raise Mistake(masked(str(value)), "v2 in lower case")
    try:
        possible = layouts(url.path)
    except NameInvalid:
        raise Mistake(
            masked(str(value)),
            f"{origin}/v2/ and a prefix of repositories' names, in lower case, as in "
            f"{origin}/v2/dockerhub-proxy; or what stands before /v2/, without '%', '//' and '..', "
            f"as in {origin}/artifactory/api/docker/hub",
        ) from None
    return origin + (str(possible[0]) if len(possible) == 1 else url.path.rstrip("/"))


def endpoint_prefix(value: object) -> str:
    """What stands before each repository's name; "" for nothing."""
    if value == "":
        return ""
    write = "the beginning of repositories' names, as in dockerhub-proxy or group/hub"
    given = text(value, write).removeprefix("/").removesuffix("/")
    if given.partition("/")[0] == "v2":
        raise Mistake(quoted(given), "it without v2")
    try:
        return parse_name(given)
    except NameInvalid:
        raise Mistake(masked(str(value)), write) from None


def prefixed(url: str, prefix: str | None) -> str:
    """An endpoint's URL in which its prefix stands: with one, the URL's path is what stands before
    `/v2/`. Raises Mistake where the URL has another."""
    if prefix is None:
        return url
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    before, *_ = possible = layouts(parts.path)
    if before.prefix not in ("", prefix):
        raise Mistake(f"a prefix in {quoted(url)} too", "it once")
    if parts.path == f"/{prefix}" and len(possible) > 1:
        raise Mistake(
            f"what stands in {quoted(url)} too",
            f"url: {origin}, or {origin}/{prefix}/v2/{prefix} if it is there twice",
        )
    return origin + str(Layout(before.path, prefix))


def collector_url(value: object) -> str:
    """Where traces are sent, path included."""
    url, origin = _http_url(value, "http://collector:4318")
    return origin + url.path


def object_store_url(value: object) -> str:
    """Where an S3-compatible store answers, without the bucket: with a path where it has one."""
    url, origin = _http_url(value, "https://s3.example.com")
    return origin + url.path.rstrip("/")


def mirror_url(value: object) -> str:
    """A mirror's own URL as clients take it: scheme, host and port, and nothing behind them."""
    url, origin = _http_url(value, "http://mirror.lan:5000")
    if url.path.strip("/"):
        raise Mistake(masked(str(value)), f"{origin}, without a path")
    return origin.lower()


def realm_url(value: object) -> str:
    """A token realm's URL, path included: the questions are added to it."""
    url, origin = _http_url(value, "https://auth.example.com/token")
    return origin + url.path


def _http_url(value: object, example: str) -> tuple[SplitResult, str]:
    """The URL's parts, and its `scheme://host:port`: with a host, without login or query."""
    write = f"a URL such as {example}"
    given = text(value, write)
    # urlsplit itself drops tabs and newlines, and takes any character for a part of the host.
    if not _VISIBLE.fullmatch(given) or not re.match(r"https?://", given, re.IGNORECASE):
        raise Mistake(masked(given), write)
    try:
        url = urlsplit(given)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise Mistake(masked(given), write) from None
    if "@" in given:
        raise Mistake(
            masked(given),
            "the URL without a login: it goes into the registry's credentials, "
            "as username and password_file",
        )
    if port == 0 or url.netloc.endswith(":") or not (is_host(host) or _is(IPv6Address, host)):
        raise Mistake(masked(given), write)
    host = f"[{host}]" if ":" in host else host
    origin = f"{url.scheme}://{host}" + ("" if port is None else f":{port}")
    if "?" in given or "#" in given:
        raise Mistake(masked(given), f"it without '?' and '#', such as {example}")
    return url, origin


def masked(url: str) -> str:
    """A URL quoted for a message, without what may be a secret: a login, a query, a port that is
    no number. All before the last `@` goes: a password may hold any character."""
    scheme, separator, rest = url.partition("://")
    if not separator or "@" in scheme:
        scheme, separator, rest = "", "", url
    _, at, place = rest.rpartition("@")
    place = re.sub(r"[?#].*", "?***", place, flags=re.DOTALL)
    host, colon, port = place.partition(":")
    if colon and not host.startswith("[") and not re.match(r"[0-9]{1,5}(?:[/?]|$)", port):
        place = f"{host}:***"
    return quoted(scheme + separator + ("***@" if at else "") + place)


def own_name(value: object) -> str:
    """A host name of this mirror, in lower case and without the root's dot: without a port, which
    is `listen`'s to say."""
    write = "a host name such as ghcr.mirror.lan"
    given = text(value, write).removesuffix(".")
    bare, _, port = given.rpartition(":")
    if not is_host(given):
        raise Mistake(masked(given), bare if is_host(bare) and port.isdigit() else write)
    return given.lower()


def tag_store(value: object) -> SecretStr | None:
    """None for `embedded`, else the Redis URL as written: it may have a password in it.

    Nothing of a URL that cannot be read is shown: any part of it may be its password.
    """
    write = "embedded, or redis://host:6379/0"
    given = text(value, write)
    if given == "embedded":
        return None
    scheme, separator, _ = given.partition("://")
    if scheme not in SCHEMES or not separator:
        shown = "another store" if re.search("[:@]", given) else quoted(given)
        raise Mistake(shown, write)
    try:
        url = parse_redis_url(given)
        is_good = all(is_host(host) or _is(IPv6Address, host) for host, _ in url.places)
    except ValueError:
        is_good = False
    if not is_good or not _VISIBLE.fullmatch(given):
        where = "h1:26379,h2:26379,h3:26379/mymaster/0" if "+" in scheme else "host:6379/0"
        raise Mistake(
            f"a {scheme}:// URL that cannot be read",
            f"{scheme}://user:password@{where}; in the password, %40 for @, %2F for /, "
            "%3A for :, %3F for ?, %23 for # and %25 for %, or use password_file instead",
        )
    return SecretStr(given)


def private_place(value: object) -> Network | str:
    """A network, from `10.1.2.0/24` or a single address; or a host name, in lower case; or
    `*.example.com`, all names below that one."""
    write = "a network such as 10.1.2.0/24, or a host name such as cdn.corp.local or *.corp.local"
    given = text(value, write)
    try:
        interface = ip_interface(given)
    except ValueError:
        name = given.removeprefix("*.")
        if not is_host(name) or (name != given and _is(IPv4Address, name)):
            raise Mistake(masked(given), write) from None
        return given.lower()
    if "/" in given and interface.ip != interface.network.network_address:
        raise Mistake(quoted(given), str(interface.network))
    return interface.network
