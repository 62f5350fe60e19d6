"""A Redis client that fails at once rather than try again, and what its failures are called."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.connection import RedisSSLContext
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...tls import as_clients_do

_CONNECTIONS = 16


def redis_client(url: str, password: str | None, ca_file: Path | None, limit: float) -> Redis:
    """A client that connects when it is first used, `limit` seconds for each step.

    The URL is taken apart here and not by the library: its query can turn off what protects the
    connection. Raises ValueError, without the password, for a URL of another form.
    """
    try:
        parts = urlsplit(url)
        host, port, database = parts.hostname, parts.port, parts.path.strip("/")
    except ValueError:  # its text may quote the password
        host = None
    if host is None or parts.scheme not in ("redis", "rediss") or not (database or "0").isdigit():
        raise ValueError("write redis://[user:password@]host:6379/0, or rediss:// for TLS")
    if parts.query or parts.fragment:
        raise ValueError("a Redis URL has no options here: end it after the database's number")
    secure: dict[str, Any] = {}
    if parts.scheme == "rediss":
        secure = {"tls": _Tls(ca_file)}
    pool = BlockingConnectionPool(
        max_connections=_CONNECTIONS,
        timeout=limit,
        connection_class=_TlsConnection if secure else Connection,
        host=host,
        port=port or 6379,
        db=int(database or "0"),
        username=unquote(parts.username) if parts.username else None,
        password=password or (unquote(parts.password) if parts.password else None),
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # understood by every Redis, and one exchange less to connect
        **secure,
    )
    return Redis.from_pool(pool)


class _Tls(RedisSSLContext):
    """What all connections of a client are verified with. The library would read the system's
    authorities for each of them, on the event loop: 70 ms each time."""

    def __init__(self, ca_file: Path | None) -> None:
        super().__init__(
            cert_reqs="required",
            check_hostname=True,
            ca_certs=None if ca_file is None else str(ca_file),
        )
        with contextlib.suppress(OSError):  # a file that is not there yet is tried again
            self.get()

    def get(self) -> ssl.SSLContext:
        return as_clients_do(super().get())


class _TlsConnection(SSLConnection):
    def __init__(self, tls: _Tls, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = tls


def failure_kind(error: BaseException) -> str:
    """What went wrong, in a few words for the log.

    Never the message itself: Redis quotes a command that it does not know, AUTH with its password
    too.
    """
    for cause in _causes(error):
        for kinds, words in _KINDS:
            if isinstance(cause, kinds):
                return words
    if isinstance(error, ResponseError):
        code = str(error).partition(" ")[0]
        if code.isascii() and code.isalpha() and code.isupper():
            return f"Redis answers {code[:20]}"
    return type(error).__name__


def is_other_type(answer: object) -> bool:
    """Under our key lies a list, a hash …: garbage, to be overwritten."""
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")


# From the particular to the general: the first that fits is said.
_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (ssl.SSLCertVerificationError, "TLS: the certificate is not one to trust for this host"),
    (ssl.SSLError, "TLS failed"),
    (socket.gaierror, "no address for this host"),
    ((AuthenticationError, AuthorizationError), "wrong user or password"),
    (NoPermissionError, "the user has no permission for this"),
    (ReadOnlyError, "a replica that takes no writes"),
    (OutOfMemoryError, "Redis is out of memory"),
    (BusyLoadingError, "Redis is loading its data"),
    (ConnectionRefusedError, "connection refused"),
    ((TimeoutError, RedisTimeoutError), "no answer in time"),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, the innermost first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return reversed(chain)
