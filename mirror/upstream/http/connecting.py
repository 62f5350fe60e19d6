"""Connections whose TLS is not asyncio's: what comes over them can be received by threads."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from functools import partial
from typing import Any, ClassVar, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from ...sockets.tls import TlsSocket, Wait


class Connection(ResponseHandler):
    """aiohttp's protocol for one connection. `certificate`: what the server has shown, as
    ssl.SSLSocket.getpeercert has it."""

    tls: TlsSocket | None = None
    certificate: dict[str, Any] | None = None


Made = tuple[asyncio.Transport, Connection]


class Connector(aiohttp.TCPConnector):
    """A TCPConnector that gives each connection with TLS a TlsSocket, which asyncio then takes for
    a plain one. Only where an https:// proxy is between, TLS in its TLS is asyncio's. To be made in
    a running loop.

    What it replaces is private: tests/upstream fails where another version goes another way.
    """

    made: ClassVar[type[Connection]] = Connection

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        make = partial(self.made, loop=asyncio.get_running_loop())
        self._factory = make  # type: ignore[assignment]

    async def _wrap_create_connection(  # type: ignore[override]
        self,
        *arguments: Any,
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,
        server_hostname: str | None = None,
        client_error: type[aiohttp.ClientConnectorError] = aiohttp.ClientConnectorError,
        **options: Any,
    ) -> Made:
        """For a direct connection, and for the one to a proxy."""
        context = options.pop("ssl", None)
        async with asyncio.timeout(timeout.sock_connect):
            made = await super()._wrap_create_connection(
                *arguments, req=req, timeout=timeout, client_error=client_error, **options
            )
            if context is None:
                return cast(Made, made)
            return await self._secured(made[0], context, server_hostname or "", req, client_error)

    async def _start_tls_connection(  # type: ignore[override]
        self,
        underlying_transport: asyncio.Transport,
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,
        client_error: type[aiohttp.ClientConnectorError] = aiohttp.ClientConnectorError,
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        """Where a proxy has let us through."""
        if req.proxy is None or req.proxy.scheme == "https":
            return await super()._start_tls_connection(
                underlying_transport, req, timeout, client_error
            )
        context, name = self._get_ssl_context(req), req.server_hostname or req.host
        assert context is not None  # noqa: S101 - it is https that is asked for
        async with asyncio.timeout(timeout.sock_connect):
            return await self._secured(underlying_transport, context, name, req, client_error)

    async def _secured(
        self,
        plain: asyncio.Transport,
        context: ssl.SSLContext,
        name: str,
        req: aiohttp.ClientRequest,
        client_error: type[aiohttp.ClientConnectorError],
    ) -> Made:
        """The same connection, once hands are shaken. Raises aiohttp's errors of a connection."""
        try:
            try:
                client: socket.socket = plain.get_extra_info("socket").dup()
            finally:
                plain.abort()  # closes its descriptor, not the connection
            return await self._over(client, context, name)
        except ssl.SSLCertVerificationError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
        except ssl.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
        except TimeoutError as error:
            if error.errno is None:
                raise
            raise client_error(req.connection_key, error) from error
        except OSError as error:
            raise client_error(req.connection_key, error) from error

    async def _over(self, client: socket.socket, context: ssl.SSLContext, name: str) -> Made:
        loop = asyncio.get_running_loop()
        try:
            client = tls = TlsSocket(client, context, name)
            await _shake(tls, loop)
            transport, protocol = await loop.create_connection(self._factory, sock=tls)
        except BaseException:
            client.close()
            raise
        connection = cast(Connection, protocol)
        connection.tls, connection.certificate = tls, tls.certificate()
        return transport, connection


async def _shake(tls: TlsSocket, loop: asyncio.AbstractEventLoop) -> None:
    """Raises ssl.SSLError, and OSError."""
    try:
        while (wait := tls.shake()) is not Wait.NOTHING:
            await _until(wait, tls.fileno(), loop)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        raise ConnectionResetError(errno.ECONNRESET, "cut before hands were shaken") from None
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise ConnectionResetError(errno.ECONNRESET, "cut before hands were shaken") from None


async def _until(wait: Wait, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    if wait is Wait.READABLE:
        loop.add_reader(descriptor, tell)
    else:
        loop.add_writer(descriptor, tell)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
        loop.remove_writer(descriptor)
