"""The mirror's port: accepting connections, bounding what they may cost, and stopping."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from yarl import URL

from ...contracts.events import RequestAnswered
from ...contracts.registry import Outcome
from ...events import Events
from ...oci.errors import BadRequest, RegistryError
from ...sockets.tls import TlsSocket
from ...tasks import until
from ..v2.failures import failure
from ..v2.reading import COMMON
from ..v2.target import TargetKind
from .accepting import Acceptor, Port
from .aiohttp_parts import KeptAlive
from .idle_connections import Idle
from .request_ids import HEADER, request_id
from .response_cache import Answer, ResponseCache, is_bare

log = structlog.get_logger()

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_MAX_LINE = 8190  # bytes of a request's line, and of each of its header fields
_MAX_FIELDS = 64
_LINGER = 5.0  # seconds to read the rest of a body that nobody wanted, so that the answer arrives
_POLITE = 5.0  # seconds in which a connection that is in use asks once more
_BRING_BACK = 16  # answers of the response cache in a row; as many cost what it takes to go back
_LOOK = 0.05  # seconds between two looks at whether anybody is connected still
_CANCEL = 1.0  # seconds for cancelled requests to let go of what they hold


class Listener:
    """Serves `handler` on ports, which are its own from now on. `tls`: what is shown at those that
    speak it.

    `idle` is the time, in seconds, that a client has from connecting, or from the last answer, to
    the end of its next request's head: no matter whether it sends nothing or a byte a second.
    Twice `patience` is how long bytes sent may remain unread before the kernel ends the connection.
    """

    def __init__(
        self,
        handler: Handler,
        ports: Sequence[Port],
        *,
        response_cache: ResponseCache,
        events: Events,
        tls: ssl.SSLContext | None = None,
        idle: float = 60.0,
        patience: float = 60.0,
    ) -> None:
        self._handler = handler
        self._response_cache = response_cache
        self._ports = ports
        self._tls = tls
        self._idle = idle
        self._patience = patience
        self._events = events
        self._retires = False
        self._running: set[asyncio.Task[Any]] = set()
        self._server: web.Server | None = None
        self._acceptor: Acceptor | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: (address, port) pairs, with the port that a 0 became."""
        return self._acceptor.addresses if self._acceptor else []

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        if self._server is None or self._acceptor is None:
            return 0
        return len(self._server.connections) + self._acceptor.kept

    def limit(self, idle: float, patience: float) -> None:
        """For connections that come from now on, and for those that ask nothing."""
        self._idle, self._patience = idle, patience
        if self._acceptor is not None:
            self._acceptor.limit(idle)

    def show(self, tls: ssl.SSLContext | None) -> None:
        """To clients that connect from now on. None: TLS is spoken nowhere."""
        self._tls = tls
        if self._acceptor is not None:
            self._acceptor.show(tls)

    def start(self) -> None:
        # A client that leaves ends its request, and what the request holds is freed.
        server = web.Server(self._tracked, request_factory=self._request, handler_cancellation=True)

        def connection(client: socket.socket, first: bytes, owed: Answer | None) -> _Connection:
            return _Connection(
                server,
                self._response_cache,
                client,
                first,
                owed,
                take_back=acceptor.take_back,
                events=self._events,
                patience=self._patience,
                loop=asyncio.get_running_loop(),
                keepalive_timeout=self._idle,
                lingering_time=_LINGER,
                max_line_size=_MAX_LINE,
                max_field_size=_MAX_LINE,
                max_headers=_MAX_FIELDS,
                auto_decompress=False,
                access_log=None,
            )

        def idle() -> Iterator[Idle]:
            for each in server.connections:
                if isinstance(each, _Connection) and each.is_waiting():
                    yield each.idle()

        acceptor = Acceptor(
            connection, self._response_cache, self._idle, self._tls, _without_tls, idle
        )
        acceptor.listen(self._ports)
        self._server, self._acceptor = server, acceptor

    async def retire(self, stop: asyncio.Event) -> None:
        """Leaves its ports to another process, which accepts there: what waits to be accepted is
        that one's. Who is connected already is answered once more, and told that the connection
        ends with it (RFC 9112, section 9.6): a request that is on its way while an idle connection
        is closed would be lost. Returns when nobody is connected any more, after `_POLITE` seconds,
        or when `stop` is set."""
        self._retires = True
        self._response_cache.end()
        if self._acceptor is not None:
            self._acceptor.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLITE):
                await until(lambda: stop.is_set() or not self.connections, _LOOK)

    async def stop(self, grace: float) -> None:
        """Accepts nothing any more, lets running requests end for `grace` seconds, cuts the rest.

        Idle connections are closed at once, so that their clients ask elsewhere instead of waiting.
        """
        if self._server is None or self._acceptor is None:
            return
        await self._acceptor.close()
        for connection in self._server.connections:
            if isinstance(connection, _Connection) and connection.is_waiting():
                connection.force_close()
            else:
                connection.close()  # after this answer
        for _ in range(3):  # what was read already becomes a message, a task, a running request
            await asyncio.sleep(0)
        await self._ended(grace)
        for task in self._running:
            task.cancel()
        await self._ended(_CANCEL)
        # What was cancelled has let go by now: this is for what has not.
        await self._server.shutdown(_CANCEL)
        self._server = self._acceptor = None

    async def _ended(self, within: float) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=within)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """A request without the URL that aiohttp makes of its target, of which only the raw form is
        read here. Where the target names a host that cannot be decoded (`http://xn--a/v2/`),
        aiohttp would raise outside of all that handles errors, and leave the connection open
        without an end."""
        closes = message.should_close or self._retires
        message = message._replace(url=_NO_URL, should_close=closes)
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop)

    async def _tracked(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - aiohttp runs every request in a task of its own
        self._running.add(task)
        try:
            return await self._handler(request)
        finally:
            self._running.discard(task)


class Listeners:
    """Several, that begin and end together."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._all = list(listeners)

    def add(self, listener: Listener) -> None:
        """Before they are started."""
        self._all.append(listener)

    @property
    def connections(self) -> int:
        return sum(each.connections for each in self._all)

    def start(self) -> None:
        for each in self._all:
            each.start()

    def limit(self, idle: float, patience: float) -> None:
        for each in self._all:
            each.limit(idle, patience)

    def show(self, tls: ssl.SSLContext | None) -> None:
        for each in self._all:
            each.show(tls)

    async def retire(self, stop: asyncio.Event) -> None:
        await asyncio.gather(*(each.retire(stop) for each in self._all))

    async def stop(self, grace: float) -> None:
        await asyncio.gather(*(each.stop(grace) for each in self._all))


def _without_tls() -> bytes:
    """The answer, in HTTP, to a request at a port that speaks TLS."""
    error = BadRequest("this port speaks HTTPS, and the request is plain HTTP: write https://")
    answer = failure(error, TargetKind.OTHER, "", request_id(()))
    head = [
        "HTTP/1.1 400 Bad Request",
        *(f"{name}: {value}" for name, value in COMMON.items()),
        "Content-Type: application/json",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + answer.body


_NO_URL = URL("/")


class _Connection(KeptAlive):
    """aiohttp's connection, with the response cache before it, and a registry's words for what is
    not HTTP."""

    __slots__ = (
        "_began",
        "_events",
        "_first",
        "_handed",
        "_hits",
        "_in_step",
        "_owed",
        "_patience",
        "_peer",
        "_response_cache",
        "_take_back",
    )  # fmt: skip

    def __init__(
        self,
        server: web.Server,
        response_cache: ResponseCache,
        client: socket.socket,
        first: bytes,
        owed: Answer | None,
        *,
        take_back: Callable[[int, str], bool],
        events: Events,
        patience: float,
        **options: Any,
    ) -> None:
        """`first` was read before this was made, and not answered from the cache; `owed` is to be
        sent. `take_back`: see IdleConnections."""
        super().__init__(server, **options)
        self.tls = client if isinstance(client, TlsSocket) else None
        self._response_cache = response_cache
        self._first = first
        self._owed = owed
        self._take_back = take_back
        self._hits = 0  # in a row, from the response cache
        self._events = events
        self._patience = patience
        self._handed = False  # whether anything was handed to aiohttp's parser
        self._in_step = True  # whether all that was handed over were whole heads without a body
        self._peer = ""
        self._began = 0.0  # when it was first idle, on the loop's clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # For whoever reads nothing: the sender and the responder have their own deadlines, but not
        # for what is in the kernel's hands when all is written. Linux counts a closed window too.
        # Later than theirs, since the kernel gives up without telling the client.
        client = transport.get_extra_info("socket")
        with suppress(OSError):  # not TCP, or gone already
            client.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(self._patience * 2000))
            )
        self._peer = (transport.get_extra_info("peername") or ("",))[0]
        super().connection_made(transport)
        self._began = self.idle_since()
        if self._owed is not None:
            self._send(self._owed)
            self._owed = None
        elif self._first:
            self._pass_on(self._first)
        self._first = b""

    def data_received(self, data: bytes) -> None:
        if self._in_step and self.is_waiting():
            answer = self._response_cache.answer(data, self._peer)
            if answer is not None:
                self._send(answer)
                self._hits += 1
                if self._hits >= _BRING_BACK and not answer.closes:
                    self._go_back()
                return
        self._hits = 0
        self._pass_on(data)

    def _go_back(self) -> None:
        """To the connections that only ask what the response cache has, which costs half."""
        transport = self.transport
        if self.tls is None and transport is not None and self.is_waiting():
            descriptor = transport.get_extra_info("socket").fileno()
            if self._take_back(descriptor, self._peer):
                transport.abort()  # this descriptor alone: nothing is left to be sent by it

    def _pass_on(self, data: bytes) -> None:
        self._in_step = self._in_step and is_bare(data)
        self._handed = True
        super().data_received(data)

    def is_waiting(self) -> bool:
        """Whether all requests before this one have been answered, and their answers have left."""
        waits = not self._handed or self.awaits_request()
        transport = self.transport
        return waits and transport is not None and transport.get_write_buffer_size() == 0

    def idle(self) -> Idle:
        """To be asked while it is waiting."""
        assert self.transport is not None  # noqa: S101 - it is connected
        descriptor = self.transport.get_extra_info("socket").fileno()
        since = self.idle_since()
        return Idle(descriptor, self._peer, since > self._began, since, self.force_close)

    def _send(self, answer: Answer) -> None:
        assert self.transport is not None  # noqa: S101 - it is connected
        if answer.data:
            self.transport.write(answer.data)
        if answer.closes:
            self.force_close()
        else:
            self.was_used()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """For what the parser refused: it is never shown, neither to the client nor in full."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: there is no other")
        number = request_id(())
        if status >= 500:
            log.error("request_failed_outside_its_handler", exc_info=exc, request_id=number)
        else:
            reason = type(exc).__name__
            client = request.remote or ""
            log.info("malformed_request", client=client, reason=reason, request_id=number)
        error = (
            RegistryError("the mirror failed in an unexpected way; its log says more")
            if status >= 500
            else BadRequest("this is no well-formed HTTP request, or its line or head is too long")
        )
        answer = failure(error, TargetKind.OTHER, "", number)
        kind, outcome = TargetKind.OTHER.value, Outcome.FAILED.value
        self._events.emit(
            RequestAnswered(kind, "", "", "", outcome, answer.status, self._peer, 0, 0.0, 0.0)
        )
        response = web.Response(
            status=answer.status,
            headers={**COMMON, HEADER: number, "Content-Type": "application/json"},
            body=answer.body,
        )
        response.force_close()
        return response
