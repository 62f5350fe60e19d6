"""Answers on their way to the client: bytes that are here, and content that may still be growing.

aiohttp writes the head; what it may not do is keep bytes back. A span goes to a sender thread only
after the head has left the process, and a client that reads nothing is given up, whoever writes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Mapping
from functools import partial

from aiohttp import HttpVersion11, hdrs, web

from ...clock import Clock
from ...contracts.registry import FileContent, Outcome
from ...oci.errors import RegistryError, Untrustworthy
from ...sockets.tls import TlsSocket
from ...threads import aside
from ..http.aiohttp_parts import KeptAlive
from ..http.sending import ClientSlow, FileFault, Sender, Transfer
from .access_log import Exchange

_SMALL = 64 << 10  # bytes worth a copy through the loop: a thread's detour costs more
_PIECE = 256 << 10  # bytes at a time, where sendfile cannot be used

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Responder:
    """Writes answers. `patience`, in seconds, is how long a client may take nothing at all."""

    def __init__(self, sender: Sender, clock: Clock, patience: float = 60.0) -> None:
        self._sender = sender
        self._clock = clock
        self._patience = patience

    async def whole(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        status: int,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> web.StreamResponse:
        """Answers with bytes that are all here. To HEAD the same head is sent, and no body.

        `body` None: there is none, and `headers` say what is to be said of a Content-Length.
        """
        if body is not None:
            headers = {hdrs.CONTENT_LENGTH: str(len(body)), **headers}
            if request.method == hdrs.METH_HEAD:
                body = None
        response = web.Response(status=status, headers=headers, body=body)
        try:
            async with asyncio.timeout(self._patience):
                await response.prepare(request)
                _hold_nothing_back(request)
                await response.write_eof()
        except (TimeoutError, ConnectionError) as error:
            _give_up(request, response, exchange, error)
            return response
        exchange.status = status
        exchange.first_byte = self._clock.monotonic()
        exchange.sent = len(body or b"")
        return response

    async def content(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        status: int,
        headers: Mapping[str, str],
        content: FileContent,
        start: int,
        stop: int | None,
    ) -> web.StreamResponse:
        """Answers with the content's bytes from `start` up to `stop`, as they come to be readable.

        `stop` None: to an end that is not known yet. Raises RegistryError as long as nothing has
        been sent; what happens later cuts the connection, since the head's promise is out.
        """
        # Before the head: a fill that fails now still gets the status that suits the client.
        readable = await content.readable(start)
        if stop is not None:
            headers = {hdrs.CONTENT_LENGTH: str(stop - start), **headers}
            if readable >= stop and stop - start <= _SMALL:
                data = in_memory(content, stop - start, start)
                if data is not None:
                    return await self.whole(request, exchange, status, headers, data)
        response = web.StreamResponse(status=status, headers=headers)
        if stop is None and request.version < HttpVersion11:
            response.force_close()  # no chunks there: the connection's end is the body's
        try:
            first = None
            if stop is not None and readable < stop and readable - start <= _SMALL:
                # Of what is just coming, the first bytes go out with the head: by a sender thread
                # they would come up to a millisecond later.
                first = in_memory(content, readable - start, start)
            await self._head(request, response, first)
            exchange.status, exchange.due = status, None if stop is None else stop - start
            exchange.first_byte = self._clock.monotonic()
            if first is not None:
                start, exchange.sent = readable, len(first)
            if stop is not None:
                start = await self._by_sender(request, exchange, content, start, stop)
            await self._by_loop(response, exchange, content, start, stop)
            async with asyncio.timeout(self._patience):
                await response.write_eof()
        except (TimeoutError, ConnectionError) as error:
            _give_up(request, response, exchange, error)
        except (RegistryError, FileFault, OSError) as error:
            if not isinstance(error, RegistryError):
                content.damaged(str(error))
            exchange.outcome = Outcome.FAILED
            exchange.error = f"cut: {error}"
            _cut(request, response)
        except BaseException:  # cancelled, most likely: not a whole body either
            _cut(request, response)
            raise
        return response

    async def _head(
        self, request: web.BaseRequest, response: web.StreamResponse, first: bytes | None
    ) -> None:
        """Returns when the head, and the first bytes of the body, have left the process."""
        async with asyncio.timeout(self._patience):
            writer = await response.prepare(request)
            _hold_nothing_back(request)
            if first:
                await response.write(first)
            if writer is not None:
                await writer.drain()

    def _transfer(self, request: web.BaseRequest, content: FileContent) -> Transfer | None:
        """None where descriptors have run out, or the content is in no file."""
        transport = request.transport
        client = transport.get_extra_info("socket") if transport is not None else None
        if client is None:
            raise ConnectionResetError("the client left")
        try:
            return self._sender.transfer(client.fileno(), content.fileno(), _tls(request))
        except OSError:
            return None

    async def _by_sender(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        content: FileContent,
        start: int,
        stop: int,
    ) -> int:
        """Sends the span, or as much of it as there are descriptors for; returns where it ended."""
        transfer, file = None, -1
        try:
            while start < stop:
                readable = min(await content.readable(start), stop)
                if readable <= start:
                    raise Untrustworthy(f"the content ends at {start}, before {stop}")
                if transfer is None or content.fileno() != file:
                    if transfer is not None:
                        transfer.close()
                    transfer, file = self._transfer(request, content), content.fileno()
                    if transfer is None:
                        break
                before, sent = exchange.sent, transfer.sent
                exchange.sending = partial(_sent_since, transfer, sent)
                try:
                    await transfer.send(start, readable)
                finally:
                    exchange.sent, exchange.sending = before + transfer.sent - sent, None
                start = readable
        finally:
            if transfer is not None:
                transfer.close()
        return start

    async def _by_loop(
        self,
        response: web.StreamResponse,
        exchange: Exchange,
        content: FileContent,
        start: int,
        stop: int | None,
    ) -> None:
        """For bodies whose length is not known, where descriptors have run out, and for what is in
        no file."""
        while stop is None or start < stop:
            readable = await content.readable(start)
            if readable <= start:
                if stop is None:
                    return
                raise Untrustworthy(f"the content ends at {start}, before {stop}")
            count = min(_PIECE, readable - start, (stop or readable) - start)
            data = await aside(content.pread, count, start)
            if not data:
                raise FileFault(f"the file ends at {start}, before {readable}")
            async with asyncio.timeout(self._patience):
                await response.write(data)
            start += len(data)
            exchange.sent += len(data)


def _tls(request: web.BaseRequest) -> TlsSocket | None:
    """What the answer is sent by, where TLS is spoken."""
    connection = request.protocol
    return connection.tls if isinstance(connection, KeptAlive) else None


def _sent_since(transfer: Transfer, sent: int) -> int:
    return transfer.sent - sent


def _hold_nothing_back(request: web.BaseRequest) -> None:
    """From now on, draining this connection means that all of it has left the process."""
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=0)


def in_memory(content: FileContent, count: int, start: int = 0) -> bytes | None:
    """These bytes, if reading them waits for no disk (they are in the page cache, or this process
    has them); else None."""
    if not count:  # of content that is empty, no file may have been opened
        return b""
    file = content.fileno()
    try:
        if file < 0:
            data = content.pread(count, start)
            return data if len(data) == count else None
        buffer = bytearray(count)
        if os.preadv(file, [buffer], start, os.RWF_NOWAIT) == count:
            return bytes(buffer)
    except OSError:  # not in memory, or a file system that cannot say
        pass
    return None


def _give_up(
    request: web.BaseRequest, response: web.StreamResponse, exchange: Exchange, error: Exception
) -> None:
    exchange.left = not exchange.is_whole
    if isinstance(error, TimeoutError | ClientSlow):
        exchange.error = "the client took nothing for too long"
        # Else the kernel would go on to offer it what it has not taken, and the client not notice
        # that there is no more: it is to ask again from where it stopped.
        _reset_when_closed(request)
    _cut(request, response)


def _cut(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Ends the connection here and now, in a way that no client takes for a whole body's end."""
    response.force_close()
    transport = request.transport
    if transport is None:
        return
    tls = _tls(request)
    if tls is not None:
        tls.cut()
    delimited = (
        hdrs.CONTENT_LENGTH in response.headers or hdrs.TRANSFER_ENCODING in response.headers
    )
    if not delimited:
        # For a body that only the connection's end delimits, that is the one way to say that it is
        # not whole.
        _reset_when_closed(request)
    transport.abort()


def _reset_when_closed(request: web.BaseRequest) -> None:
    client = request.transport.get_extra_info("socket") if request.transport else None
    if client is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
