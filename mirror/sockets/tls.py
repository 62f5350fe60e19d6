"""A connection that speaks TLS, used like a plain socket that does not block.

asyncio's own TLS encrypts on the event loop, into buffers of its own, and leaves no socket that a
sender thread could write to. Here the library (OpenSSL) writes to the socket itself, whoever calls:
the loop, through asyncio's transport for plain sockets, or a sender thread. All that is below the
loop's protocols (the connections that only ask what the response cache has, deadlines, transfers)
is the same as without TLS.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any

CHUNK = 64 << 10
"""Bytes encrypted by one call: four records. More at once saves nothing, and what a slow client has
taken of it would not be seen."""

Buffer = bytes | bytearray | memoryview


class Wait(Enum):
    """What has to happen before a handshake goes on."""

    NOTHING = auto()
    READABLE = auto()
    WRITABLE = auto()


class TlsSocket(socket.socket):
    """Takes over `client`, a socket that has just been accepted. Raises OSError when it is gone.

    What is called from several threads has its turn: a call takes some microseconds, and none waits
    for the client. `recv` and `send` raise BlockingIOError where a plain socket would; what was to
    be sent then is to be sent again, from the same byte on and not less of it (SSL_write(3)).
    """

    def __init__(self, client: socket.socket, context: ssl.SSLContext) -> None:
        client.setblocking(False)
        # A client that ends without TLS's own end (close_notify) is at its end nevertheless.
        tls = context.wrap_socket(
            client, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        super().__init__(tls.family, tls.type, tls.proto, tls.fileno())
        super().setblocking(False)
        self._tls = tls
        self._turn = threading.Lock()
        self._owed = 0  # bytes that OpenSSL has begun to send, and was not done with
        self._is_cut = False
        self._is_gone = False

    def shake(self) -> Wait:
        """Goes on with the handshake. Raises ssl.SSLError, of which the client has been told by an
        alert, and OSError."""
        with self._turn:
            self._look()
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return Wait.READABLE
            except ssl.SSLWantWriteError:
                return Wait.WRITABLE
            return Wait.NOTHING

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        with self._turn:
            self._look()
            with _as_plain():
                return self._tls.recv(size)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        with self._turn:
            self._look()
            with _as_plain():
                return self._tls.recv_into(buffer, nbytes)

    def send(self, data: Any, flags: int = 0, /) -> int:
        with self._turn:
            self._look()
            piece = memoryview(data).cast("B")[: self._owed or CHUNK]
            if not piece:
                return 0
            self._owed = len(piece)
            with _as_plain():
                sent = self._tls.send(piece)
            self._owed = 0
            return sent

    def sendmsg(self, buffers: Iterable[Any], *_: Any) -> int:
        """As asyncio sends from Python 3.12 on."""
        most, joined = self._owed or CHUNK, bytearray()
        for buffer in buffers:
            joined += memoryview(buffer)[: most - len(joined)]
            if len(joined) >= most:
                break
        return self.send(joined)

    def send_file(self, file: int, start: int, stop: int, buffer: bytearray) -> int | None:
        """Sends a piece of the file, by way of `buffer`; returns its bytes, 0 where the file ends.
        None: the client takes no more for now."""
        count = os.preadv(file, [memoryview(buffer)[: min(CHUNK, stop - start)]], start)
        if count < self._owed:
            return 0
        try:
            return self.send(memoryview(buffer)[:count]) if count else 0
        except BlockingIOError:
            return None

    def cut(self) -> None:
        """When it is closed, its end is not said to be one: the client sees that there was to be
        more."""
        self._is_cut = True

    def close(self) -> None:
        with self._turn:
            if self._is_gone:
                return
            self._is_gone = True
            if not self._is_cut and not self._owed:
                # The client's own end is not waited for.
                with contextlib.suppress(OSError, ValueError):
                    self._tls.unwrap()
            self.detach()  # the descriptor is the other's
            self._tls.close()

    def _look(self) -> None:
        if self._is_gone:
            raise OSError(errno.EBADF, "the connection is closed")


@contextlib.contextmanager
def _as_plain() -> Any:
    """OpenSSL's errors as those of a plain socket."""
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError(errno.EAGAIN, "not now") from None
    except ssl.SSLError as error:
        raise ConnectionResetError(errno.ECONNRESET, f"TLS: {error.reason}") from None
