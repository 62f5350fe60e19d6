"""A connection that speaks TLS, used like a plain socket that does not block.

asyncio's own TLS encrypts on the event loop, into buffers of its own, and leaves no socket that a
thread could read from or write to. Here what is called uses the socket itself, whoever calls: the
loop, through asyncio's transport for plain sockets, or a thread. All that is below the
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
from typing import Any, cast

from .fed_tls import FedTls

CHUNK = 64 << 10
"""Bytes encrypted by one call: four records. More at once saves nothing, and what a slow client has
taken of it would not be seen."""

_MOST_RECORDS = 256
"""Records that one call reads: full ones have 16 KiB, and who sends a byte in each has others wait
for less than a millisecond."""


class Wait(Enum):
    """What has to happen before a handshake goes on."""

    NOTHING = auto()
    READABLE = auto()
    WRITABLE = auto()


class TlsSocket(socket.socket):
    """Takes over `plain`, a socket that is connected: to the server that is named `to`, or by a
    client (None). Raises OSError when it is gone, ValueError for what can be no name.

    What is called from several threads has its turn: a call takes some microseconds, to receive a
    MiB one millisecond, and none waits for the other side. `recv` and `send` raise BlockingIOError
    where a plain socket would; what was to be sent then is to be sent again, from the same byte on
    and not less of it (SSL_write(3)).
    """

    def __init__(
        self, plain: socket.socket, context: ssl.SSLContext, to: str | None = None
    ) -> None:
        plain.setblocking(False)
        self._tls: FedTls | ssl.SSLSocket
        # Who ends without TLS's own end (close_notify) is at its end nevertheless.
        if to is not None:
            self._tls, descriptor = FedTls(plain, context, to), plain.fileno()
        else:
            self._tls = context.wrap_socket(
                plain,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=True,
            )
            descriptor = self._tls.fileno()
        super().__init__(plain.family, plain.type, plain.proto, descriptor)
        super().setblocking(False)
        self._turn = threading.Lock()
        self._owed = 0  # bytes that OpenSSL has begun to send, and was not done with
        self._fault: OSError | None = None  # of receiving, that the next call raises
        self._is_at_end = False  # of what the other side sends
        self._is_cut = False
        self._is_gone = False

    def shake(self) -> Wait:
        """Goes on with the handshake. Raises ssl.SSLError, of which the other side has been told by
        an alert, and OSError."""
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
            try:
                return self._tls.recv(size)
            except ssl.SSLError as error:
                raise _as_plain(error) from error

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        """Of as many records as have come, and fit. Nobody else receives by turns with it while
        less than a record fits."""
        wanted = memoryview(buffer)[: nbytes or None]
        with self._turn:
            self._look()
            if self._fault is not None:
                raise self._fault
            came = 0
            if self._is_at_end:
                return came
            try:
                for _ in range(_MOST_RECORDS):
                    count = self._tls.recv_into(wanted[came:])
                    came += count
                    self._is_at_end = not count
                    if not count or came == len(wanted):
                        break
            except OSError as found:
                error = _as_plain(found) if isinstance(found, ssl.SSLError) else found
                if not came:
                    raise error from None
                if not isinstance(error, BlockingIOError):
                    self._fault = error
            return came

    def has_more(self) -> bool:
        """Whether more has come than was received, as far as that is known here."""
        with self._turn:
            return not self._is_gone and self._tls.pending() > 0

    def certificate(self) -> dict[str, Any] | None:
        """The other side's, once hands are shaken, as ssl.SSLSocket.getpeercert has it."""
        with self._turn:
            self._look()
            return cast(dict[str, Any] | None, self._tls.getpeercert())

    def send(self, data: Any, flags: int = 0, /) -> int:
        with self._turn:
            self._look()
            if len(data) <= CHUNK and not self._owed and isinstance(data, bytes):
                piece: bytes | memoryview = data
            else:
                piece = memoryview(data).cast("B")[: self._owed or CHUNK]
            return self._send(piece) if piece else 0

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
        piece = memoryview(buffer)[: min(CHUNK, stop - start)]
        count = os.preadv(file, [piece], start)
        if count < self._owed or not count:
            return 0
        with self._turn:
            self._look()
            try:
                return self._send(piece[: self._owed or count])
            except BlockingIOError:
                return None

    def _send(self, piece: bytes | memoryview) -> int:
        self._owed = len(piece)
        try:
            sent = self._tls.send(piece)
        except ssl.SSLError as error:
            raise _as_plain(error) from error
        self._owed = 0
        return sent

    def cut(self) -> None:
        """When it is closed, its end is not said to be one: the other side sees that there was to
        be more."""
        self._is_cut = True

    def close(self) -> None:
        with self._turn:
            if self._is_gone:
                return
            self._is_gone = True
            if not self._is_cut and not self._owed:
                # The other side's own end is not waited for.
                with contextlib.suppress(OSError, ValueError):
                    self._tls.unwrap()
            self.detach()  # the descriptor is the other's
            self._tls.close()

    def _look(self) -> None:
        if self._is_gone:
            raise OSError(errno.EBADF, "the connection is closed")


def _as_plain(error: ssl.SSLError) -> OSError:
    """OpenSSL's error as that of a plain socket."""
    if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
        return BlockingIOError(errno.EAGAIN, "not now")
    return ConnectionResetError(errno.ECONNRESET, f"TLS: {error.reason}")
