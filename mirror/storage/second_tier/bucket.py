"""A bucket of an S3-compatible store, as obstore opens it, and its failures in words.

Imported only where one is configured.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from ...clock import Clock
from ...frozen import dataclass
from ...times import STORES

if TYPE_CHECKING:  # for type checkers alone: obstore has it nowhere else
    from obstore.store import S3Credential

FAILURES = (BaseError, OSError, ValueError, TimeoutError)
"""What obstore raises; of what is not there, a FileNotFoundError."""

_REGION = "us-east-1"  # which servers with no regions take too
_FRESH = 600.0  # seconds, after which a secret is read again: it may have been replaced

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_STATUS = re.compile(r"non-2xx status code: ([0-9]{3})")
_LEFT_ALONE = ("502", "503", "504")
_CAUSES = (  # as the libraries below obstore name them in what it says
    ("UnknownIssuer", "its certificate is of an authority that is not trusted here"),
    ("NotValidForName", "its certificate is for another name"),
    ("Expired", "its certificate has expired"),
    ("InvalidCertificate", "its certificate is not valid"),
    ("InvalidContentType", "it does not speak TLS"),
    ("ConnectionRefused", "connection refused"),
    ("dns error", "its name does not resolve"),
    ("NetworkUnreachable", "its network cannot be reached"),
    ("HostUnreachable", "its host cannot be reached"),
    ("TimedOut", "it does not answer in time"),
    ("IncompleteMessage", "it closed the connection"),
    ("ConnectionReset", "it closed the connection"),
    ("error sending request", "it cannot be reached"),
    ("error decoding response body", "it broke off"),
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """`endpoint` None: Amazon's. `prefix`: "" or with a slash at its end. `authorities`: PEM of
    those that are trusted besides the system's. `key`: an access key's id and its secret, as it is
    by now; None: whatever login the environment tells."""

    name: str
    endpoint: str | None = None
    region: str | None = None
    prefix: str = ""
    is_virtual: bool = False
    authorities: str | None = None
    key: Callable[[], tuple[str, str]] | None = None

    def opened(self, endpoint: str | None = None) -> S3Store:
        """The bucket at this endpoint instead of its own, where one is given. Asks nobody."""
        endpoint = endpoint or self.endpoint
        return S3Store(
            self.name,
            prefix=self.prefix or None,
            config={
                "region": self.known_region,
                "virtual_hosted_style_request": self.is_virtual,
                **({"endpoint": self._host_of(endpoint)} if endpoint else {}),
            },
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=STORES.far_connect),
                "read_timeout": timedelta(seconds=STORES.far_silent),
                "timeout": timedelta(days=1),  # of a whole body: its readers have their own
                "user_agent": "registry-mirror",
                **({"root_certificate": self.authorities} if self.authorities else {}),
            },
            retry_config={
                "max_retries": 2,
                "retry_timeout": timedelta(seconds=STORES.far_again),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=50),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2,
                },
            },
            credential_provider=_Login(self.key) if self.key else None,
        )

    @property
    def url(self) -> str:
        """Where it answers: with its name in the host, if that is to stand there."""
        return self._host_of(
            self.endpoint
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
            or f"https://s3.{self.known_region}.amazonaws.com"
        )

    @property
    def known_region(self) -> str:
        environment = os.environ
        return (
            self.region
            or environment.get("AWS_REGION")
            or environment.get("AWS_DEFAULT_REGION")
            or _REGION
        )

    def _host_of(self, endpoint: str) -> str:
        """obstore wants the bucket's name in the host, where it is to stand there."""
        if not self.is_virtual:
            return endpoint
        url = urlsplit(endpoint)
        return url._replace(netloc=f"{self.name}.{url.netloc}").geturl()


class _Login:
    """An access key, told to obstore, which asks again when it is no longer fresh."""

    def __init__(self, key: Callable[[], tuple[str, str]]) -> None:
        self._key = key

    def __call__(self) -> S3Credential:
        name, secret = self._key()
        until = datetime.fromtimestamp(Clock().wall() + _FRESH, UTC)
        return {
            "access_key_id": name,
            "secret_access_key": secret,
            "token": None,
            "expires_at": until,
        }


def is_away(error: BaseException) -> bool:
    """Whether nobody has answered, or somebody who asks to be left alone."""
    status = _STATUS.search(str(error))
    return status is None or status[1] in _LEFT_ALONE


def has_answered(error: BaseException) -> bool:
    """Whether the store has refused it, for whatever reason."""
    return _STATUS.search(str(error)) is not None


def reason_of(error: BaseException) -> str:
    """Why the store does not do what it is asked, in its own words where it has any: one line."""
    said = str(error)
    code, message, status = _CODE.search(said), _MESSAGE.search(said), _STATUS.search(said)
    if code:
        words = _line(html.unescape(message[1])).rstrip(".") if message else ""
        return f"{code[1]}: {words}" if words else code[1]
    if status:
        return f"status {status[1]}"
    for sign, words in _CAUSES:
        if sign in said:
            return words
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return _line(said.partition("\n\nDebug source")[0])[:200] or type(error).__name__


def _line(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return "".join(filter(str.isprintable, " ".join(text.split())))
