"""A Redis client that fails at once rather than try again, and what its failures are called."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.client import Pipeline
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
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..redis_url import Place, RedisAccess, RedisUrl, parse_redis_url, shown
from ..tls import as_clients_do

_CONNECTIONS = 16

# Of the time for an exchange, what sentinels have to name a master: the rest is for the master.
_SENTINELS_SHARE = 0.5


def redis_client(access: RedisAccess, limit: float) -> Redis:
    """A client that connects when it is first used, `limit` seconds for each step.

    By sentinels, each connection asks them where the master is, all together, and believes most of
    them. A connection over which Redis says that it is a replica is not used again.

    Raises ValueError, without the password, for a URL of another form.
    """
    url = parse_redis_url(access.url)
    options = _options(url, access, limit)
    own: dict[str, Any] = {"host": url.places[0][0], "port": url.places[0][1]}
    kinds = (_TlsConnection, _TlsMasterConnection) if url.tls else (_Connection, _MasterConnection)
    if url.master is not None:
        own["sentinels"] = _Sentinels(url, access, limit)
    pool = BlockingConnectionPool(
        max_connections=_CONNECTIONS,
        timeout=limit,
        connection_class=kinds[url.master is not None],
        db=url.database,
        username=url.username,
        password=access.password or url.password,
        **own,
        **options,
    )
    return Redis.from_pool(pool)


async def exchanged(pipeline: Pipeline, limit: float) -> list[Any]:
    """All answers within `limit` seconds; of a command that was refused, a ResponseError. Raises
    whatever the library makes of what is at the other end."""
    async with asyncio.timeout(limit):
        return await pipeline.execute(raise_on_error=False)


async def asked_sentinels(access: RedisAccess, limit: float) -> Mapping[str, str]:
    """Each sentinel of the URL, and why it tells of no master; "" where it does."""
    url = parse_redis_url(access.url)
    if url.master is None:
        return {}
    sentinels = _Sentinels(url, access, limit)
    faults = await asyncio.gather(*(sentinels.fault(place) for place in url.places))
    return dict(zip(map(shown, url.places), faults, strict=True))


def _options(url: RedisUrl, access: RedisAccess, limit: float) -> dict[str, Any]:
    tls = {"tls": _Tls(access.ca_file)} if url.tls else {}
    return {
        "socket_timeout": limit,
        "socket_connect_timeout": limit,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # understood by every Redis, and one exchange less to connect
        **tls,
    }


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


class _Connection(Connection):
    async def send_packed_command(self, *given: Any, **options: Any) -> None:
        """`asyncio.wait_for`, by which the library sends, loses a cancellation before Python 3.12:
        then whoever waits for the task's end would wait for ever."""
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        await super().send_packed_command(*given, **options)
        if task is not None and task.cancelling() > cancelled:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError

    async def read_response(self, *given: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*given, **options)
        except ReadOnlyError:
            self.mark_for_reconnect()  # type: ignore[no-untyped-call]  # what was the master is a replica now
            raise


class _TlsConnection(_Connection, SSLConnection):
    def __init__(self, tls: _Tls, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = tls


class _MasterConnection(_Connection):
    """To whom the sentinels say is the master, when it is made."""

    def __init__(self, sentinels: _Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.master()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Sentinels lag: a master that comes back is one until they have told it otherwise."""
        await super().on_connect_check_health(check_health)
        await self.send_command("ROLE")
        try:
            role, *_ = await self.read_response()
        except NoPermissionError:
            return  # then it shows when it is written to
        if role != b"master":
            raise NoMaster("whom the sentinels name is no master")


class _TlsMasterConnection(_MasterConnection, _TlsConnection):
    pass


class NoMaster(RedisConnectionError):
    """The text is for the log, and holds no secret."""


class _Sentinels:
    """Where the master is. Whoever asks at the same time shares the answer."""

    def __init__(self, url: RedisUrl, access: RedisAccess, limit: float) -> None:
        self._url = url
        self._kind: type[_Connection] = _TlsConnection if url.tls else _Connection
        self._options = {
            **_options(url, access, limit),
            "password": access.sentinel_password,
        }
        self._limit = limit * _SENTINELS_SHARE
        self._asking: asyncio.Task[Place] | None = None
        self._last: Place | None = None

    async def master(self) -> Place:
        """What most of the sentinels say, or most of those that answer in time; the last that was
        said, when none does. Raises NoMaster."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
            self._asking.add_done_callback(_retrieved)
        return await asyncio.shield(self._asking)

    async def _ask_all(self) -> Place:
        asks = [asyncio.create_task(self._ask(place)) for place in self._url.places]
        named: Counter[Place] = Counter()
        faults = []
        try:
            async with asyncio.timeout(self._limit):
                for answer in asyncio.as_completed(asks):
                    try:
                        named[place := await answer] += 1
                    except Exception as error:  # whatever is at the other end
                        faults.append(_fault_of_sentinel(error))
                        continue
                    if named[place] > len(asks) / 2:
                        break
        except TimeoutError:
            pass
        finally:
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
        if named:
            # Of as many votes, whoever is new: the others have not heard of it yet.
            self._last = max(named, key=lambda place: (named[place], place != self._last))
        if self._last is None:
            raise NoMaster(faults[0] if faults else "no sentinel answers in time")
        return self._last

    async def fault(self, place: Place) -> str:
        """Why this one tells of no master."""
        try:
            await self._ask(place)
        except Exception as error:  # whatever is at the other end
            return str(error) if isinstance(error, NoMaster) else failure_kind(error)
        return ""

    async def _ask(self, place: Place) -> Place:
        connection = self._kind(host=place[0], port=place[1], **self._options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.master)
            answer = await connection.read_response()
            if answer is None:
                raise NoMaster("the sentinels know no master of this name")
            host, port = answer
            return host.decode(), int(port)
        finally:
            with contextlib.suppress(Exception):  # nothing is left to be done about it
                await connection.disconnect(nowait=True)


def _fault_of_sentinel(error: Exception) -> str:
    if isinstance(error, NoMaster):
        return str(error)
    return f"no sentinel tells of a master: {failure_kind(error)}"


def _retrieved(task: asyncio.Task[Place]) -> None:
    """All who asked may have left: then its failure is nobody's."""
    if not task.cancelled():
        task.exception()


def failure_kind(error: BaseException) -> str:
    """What went wrong, in a few words for the log.

    Never the message itself: Redis quotes a command that it does not know, AUTH with its password
    too.
    """
    for cause in _causes(error):
        if isinstance(cause, NoMaster):
            return str(cause)
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
    (RedisConnectionError, "the connection broke"),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, the innermost first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return reversed(chain)
