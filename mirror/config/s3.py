"""The section `storage.s3`: an S3-compatible store behind the disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from ..oci.errors import quoted
from ..oci.registries import is_address
from . import certificates, logins, places, values
from .certificates import Pem
from .document import Location
from .logins import Secret
from .places import Network
from .problems import Mistake
from .section import Read, Section

PLACE: Location = ("storage", "s3")

# Of Amazon's rules and of what other servers take beside: capitals and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_KEY_ID = re.compile(r"[\x21-\x2e\x30-\x7e]{1,256}")  # it stands before a slash when it is sent
# What need not be escaped in a URL: escaped, some servers sign it otherwise.
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_LONGEST_PREFIX = 800  # of 1024 bytes that a name may have; those of content need 150

_LEAST_KEPT = 2 * 86400.0  # seconds

_SECRETS = ("secret_access_key_file", "secret_access_key_env")


def _or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    """`none` is None."""
    return lambda value: None if value == "none" else read(value)


def _some(networks: object) -> object:
    if not networks:
        raise Mistake("no network", "the networks of the clients, such as [10.0.0.0/8]")
    return networks


def bucket(value: object) -> str:
    """A bucket's name. Raises Mistake also where the extra is not installed."""
    write = "a bucket's name, such as registry-mirror"
    given = values.text(value, write)
    if "://" in given:
        raise Mistake(places.masked(given), f"{write}, and endpoint: with the URL")
    if not _BUCKET.fullmatch(given) or ".." in given:
        raise Mistake(quoted(given), f"{write}: 3 to 63 letters, digits, '-' and '.'")
    if find_spec("obstore") is None:
        raise Mistake(
            "no obstore in this installation",
            "pip install 'registry-mirror[s3]' first, or leave storage.s3 out",
        )
    return given


def _region(value: object) -> str:
    write = "a region such as eu-central-1"
    given = values.text(value, write)
    if not _REGION.fullmatch(given):
        raise Mistake(quoted(given), write)
    return given


def _prefix(value: object) -> str:
    """ "" for none, else with a slash at its end."""
    if value == "":
        return ""
    write = "a folder's name in the bucket, such as mirror/: letters, digits, '-', '_', '.' and '/'"
    given = values.text(value, write).removeprefix("/").removesuffix("/")
    if not _PREFIX.fullmatch(given) or {".", ".."} & set(given.split("/")):
        raise Mistake(quoted(given), write)
    if len(given) > _LONGEST_PREFIX:
        found = f"{len(given)} characters"
        raise Mistake(found, f"{_LONGEST_PREFIX} characters at most: S3 takes no longer names")
    return f"{given}/"


def _key_id(value: object) -> str:
    write = "the access key's id, such as AKIA…"
    given = values.text(value, write)
    if not _KEY_ID.fullmatch(given):  # not shown: the secret is put here often enough
        raise Mistake("what is no access key's id", write)
    return given


def _keep(value: object) -> float:
    """Seconds. Less than some days would remove what was written this week."""
    duration = values.seconds(value)
    if duration < _LEAST_KEPT:
        raise Mistake(quoted(str(value)), "a time of 2d at least, such as 90d")
    return duration


def _network(value: object) -> Network:
    """Of clients. Raises Mistake also for a host's name: clients are told apart by addresses."""
    write = "a network such as 10.0.0.0/8"
    given = values.text(value, write)
    try:
        return ip_network(given)
    except ValueError as error:
        raise Mistake(quoted(given), f"{write} ({error})") from None


class RedirectConfig(Section):
    """Blobs of `over` bytes at least are fetched from the store by clients of these `networks`
    themselves. `endpoint`: where those reach it; None: as the mirror does."""

    networks: Annotated[tuple[Annotated[Network, Read(_network)], ...], Read(_some)]
    over: Annotated[int, Read(values.size_or_none)] = 1 << 20
    endpoint: Annotated[str | None, Read(places.object_store_url)] = None


class S3Config(Section):
    """A bucket of an S3-compatible store, and how it is asked. `endpoint` None: Amazon's of the
    `region`; that is None where the environment names it, or nobody does. `prefix` stands before
    each object's name. Without `access_key_id`, the login is what the environment tells: variables
    AWS_*, a web identity, the instance's role. `url_style` None: whichever suits the endpoint.
    `max_size`: bytes of cached content that are kept there; `keep`: for how many seconds content is
    kept that nobody uses; None: no bound. `redirect` None: all bytes go through the mirror."""

    bucket: Annotated[str, Read(bucket)]
    endpoint: Annotated[str | None, Read(places.object_store_url)] = None
    region: Annotated[str | None, Read(_region)] = None
    prefix: Annotated[str, Read(_prefix)] = ""
    access_key_id: Annotated[str | None, Read(_key_id)] = None
    secret_access_key_file: Annotated[Secret | None, Read(logins.secret_key_from_file)] = None
    secret_access_key_env: Annotated[Secret | None, Read(logins.secret_key_from_environment)] = None
    ca_file: Annotated[Pem | None, Read(certificates.authorities)] = None
    url_style: Annotated[
        Literal["virtual", "path"] | None, Read(values.choice("virtual", "path"))
    ] = None
    max_size: Annotated[int | None, Read(_or_none(values.cache_size))] = None
    keep: Annotated[float | None, Read(_or_none(_keep))] = None
    redirect: RedirectConfig | None = None

    @property
    def secret_access_key(self) -> Secret | None:
        return self.secret_access_key_file or self.secret_access_key_env

    @property
    def is_virtual(self) -> bool:
        """Whether the bucket stands in the host's name. Amazon wants it there; its certificate
        holds for names without dots only. Others have it in the path at least."""
        if self.url_style is None:
            return self.endpoint is None and "." not in self.bucket
        return self.url_style == "virtual"


def mistakes(storage: dict[str, Any]) -> Iterator[tuple[Location, Mistake]]:
    """What is wrong between the keys of this section, and between it and `second_tier`."""
    section = storage.get("s3")
    if section is None:
        return
    if storage.get("second_tier", "none") != "none":
        mistake = Mistake("second_tier beside it", "one of them: a folder, or an S3 store")
        yield PLACE, mistake
    if not isinstance(section, dict):
        return
    yield from _login(section)
    yield from _endpoint(section)


def _login(section: dict[str, Any]) -> Iterator[tuple[Location, Mistake]]:
    secrets = [key for key in _SECRETS if key in section]
    if len(secrets) > 1:
        yield (*PLACE, secrets[1]), Mistake(f"a secret besides {secrets[0]}", "one of them")
    if set(section) - set(S3Config.fields()):
        return  # what is missing may be what the unknown key meant
    if secrets and "access_key_id" not in section:
        yield (*PLACE, secrets[0]), Mistake("a secret without access_key_id", "access_key_id: too")
    elif "access_key_id" in section and not secrets:
        mistake = Mistake("a key without its secret", "secret_access_key_file: too")
        yield (*PLACE, "access_key_id"), mistake


def _endpoint(section: dict[str, Any]) -> Iterator[tuple[Location, Mistake]]:
    try:
        given = section.get("endpoint")
        endpoint = places.object_store_url(given) if given is not None else None
    except Mistake:
        return
    if endpoint is None:
        return
    url = urlsplit(endpoint)
    if "ca_file" in section and url.scheme == "http":
        yield (*PLACE, "ca_file"), Mistake("an authority for an http endpoint", "https://…")
    if section.get("url_style") == "virtual" and is_address(url.hostname or ""):
        found = "virtual at an address, before which no bucket's name can stand"
        yield (*PLACE, "url_style"), Mistake(found, "path, or an endpoint with a host's name")
