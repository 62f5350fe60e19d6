"""The mirror's port: accepting connections, bounding what they may cost, and stopping."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import web

from ..interfaces import Meter, NoMeter, Outcome
from ..oci.errors import BadRequest, RegistryError
from .failures import failure
from .target import Kind
from .v2 import COMMON

log = structlog.get_logger()

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_BACKLOG = 1024  # dockerd opens a connection for every request
_MAX_LINE = 8190  # bytes of a request's line, and of each of its header fields
_MAX_FIELDS = 64
_LINGER = 5.0  # seconds to read the rest of a body that nobody wanted, so that the answer arrives
_CANCEL = 1.0  # seconds for cancelled requests to let go of what they hold


class Listener:
    """Serves `handler` on one address.

    `idle` is the time, in seconds, that a client has from connecting, or from the last answer, to
    the end of its next request's head: no matter whether it sends nothing or a byte a second.
    Twice `patience` is how long bytes sent may remain unread before the kernel ends the connection.
    `reuse_port` lets several processes share the port.
    """

    def __init__(
        self,
        handler: Handler,
        host: str,
        port: int,
        *,
        reuse_port: bool = False,
        idle: float = 60.0,
        patience: float = 60.0,
        meter: Meter | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._reuse_port = reuse_port
        self._idle = idle
        self._patience = patience
        self._meter = meter or NoMeter()
        self._tls = tls
        self._running: dict[asyncio.Task[Any], web.RequestHandler] = {}
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: (address, port) pairs, with the port that a 0 became."""
        return [name[:2] for name in self._runner.addresses] if self._runner else []

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.connections) if self._server else 0

    async def start(self) -> None:
        """Raises OSError when the address cannot be had."""
        self._server = _Server(
            self._tracked,
            meter=self._meter,
            patience=self._patience,
            keepalive_timeout=self._idle,
            lingering_time=_LINGER,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_FIELDS,
            auto_decompress=False,
            access_log=None,
        )
        # What is cancelled has let go within _CANCEL already: this is for what has not.
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_CANCEL)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner,
            self._host,
            self._port,
            backlog=_BACKLOG,
            reuse_port=self._reuse_port or None,
            ssl_context=self._tls,
        )
        await site.start()

    async def stop(self, grace: float) -> None:
        """Accepts nothing any more, lets running requests end for `grace` seconds, cuts the rest.

        Idle connections are closed at once, so that their clients ask elsewhere instead of waiting.
        """
        if self._runner is None or self._server is None:
            return
        for site in self._runner.sites:
            await site.stop()
        await asyncio.sleep(0)  # what was read already becomes a running request
        busy = set(self._running.values())
        for connection in self._server.connections:
            if connection in busy:
                connection.close()  # after this answer
            else:
                connection.force_close()
        await self._ended(grace)
        for task in self._running:
            task.cancel()
        await self._ended(_CANCEL)
        await self._runner.cleanup()
        self._runner = self._server = None

    async def _ended(self, within: float) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=within)

    async def _tracked(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - aiohttp runs every request in a task of its own
        self._running[task] = request.protocol
        try:
            return await self._handler(request)
        finally:
            del self._running[task]


class _Server(web.Server):
    def __init__(self, handler: Handler, **options: Any) -> None:
        # A client that leaves ends its request, and what the request holds is freed.
        super().__init__(handler, handler_cancellation=True)
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)


class _Connection(web.RequestHandler):
    """aiohttp's connection, with a registry's words for what is not HTTP."""

    __slots__ = ("_meter", "_patience")

    def __init__(self, server: _Server, *, meter: Meter, patience: float, **options: Any) -> None:
        super().__init__(server, **options)
        self._meter = meter
        self._patience = patience

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # For whoever reads nothing: the sender and the responder have their own deadlines, but not
        # for what is in the kernel's hands when all is written. Linux counts a closed window too.
        # Later than theirs, since the kernel gives up without telling the client.
        client = transport.get_extra_info("socket")
        with suppress(OSError):  # not TCP, or gone already
            client.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(self._patience * 2000))
            )
        super().connection_made(transport)

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
        if status >= 500:
            log.error("a request failed outside its handler", exc_info=exc)
        else:
            log.info("malformed request", client=request.remote or "", reason=type(exc).__name__)
        error = (
            RegistryError("the mirror failed in an unexpected way; its log says more")
            if status >= 500
            else BadRequest("this is no well-formed HTTP request, or its line or head is too long")
        )
        answer = failure(error, Kind.OTHER, "")
        self._meter.answered(Kind.OTHER.value, Outcome.FAILED.value, answer.status, 0.0, 0.0)
        response = web.Response(
            status=answer.status,
            headers={**COMMON, "Content-Type": "application/json"},
            body=answer.body,
        )
        response.force_close()
        return response
