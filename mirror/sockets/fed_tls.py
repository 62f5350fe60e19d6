"""TLS over a socket that does not block, of which each call takes a bounded part.

Where OpenSSL reads the socket itself, one call goes on for as long as records come that bring
nothing: HelloRequests in a handshake (RFC 5246, 7.4.1.1), before any certificate was seen, or
KeyUpdates (RFC 8446, 4.6.3). Who is asked could so hold whoever calls, for ever. Here what has come
is given to OpenSSL, and who sends much that brings nothing is cut.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, NoReturn

_PART = 64 << 10
"""Bytes that one call takes from the socket. Of plain bytes they make no more: so with a larger
buffer nothing is left that has been decrypted."""

_RECORD = 17 << 10
"""Bytes of a record, and more: of one that has come in part (RFC 8446, 5.2)."""

_USELESS = 64 << 10
"""Bytes that may come and bring nothing. A record has 16 KiB, session tickets have less than 1."""

_HANDSHAKE = 512 << 10
"""Bytes until hands are shaken. OpenSSL takes 100 KiB of certificates."""


class FedTls:
    """A client's end of `plain`, to the server that is named `to`; takes the socket over. Its
    methods are those of ssl.SSLSocket that does not block, with its errors. One call at a time."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, to: str) -> None:
        """Raises ValueError for what can be no name."""
        self._socket = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=to)
        self._read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]
        self._part = memoryview(bytearray(_PART))
        self._useless, self._most = 0, _HANDSHAKE  # bytes since the last that brought something
        self._fault: OSError | None = None  # that `recv` found behind what it gave
        self._leaving = memoryview(b"")  # encrypted, and not taken by the kernel
        self._begun = 0  # plain bytes that `send` has encrypted, and not said to be sent

    def do_handshake(self) -> None:
        try:
            if not self._has_shaken():
                self._leave()
                if self._leaving:
                    raise ssl.SSLWantWriteError
                count = self._take()
                if not self._has_shaken():
                    self._brought_nothing(count)
        finally:
            self._leave()  # an alert, too
        self._useless, self._most = 0, _USELESS

    def recv(self, size: int) -> bytes:
        """All of a part of what has come, for which `size` has room (asyncio's has): what stays
        here, decrypted, no poll tells of. Nor of an end, or an error, that came with it: so the
        next call finds it, and a poll tells of that one."""
        if self._fault is not None:
            raise self._fault
        room = memoryview(bytearray(min(size, _PART + _RECORD)))
        came = self.recv_into(room)
        try:
            while count := self._read_into(room[came:]):
                came += count
            has_ended = came > 0 and count is not None
        except OSError as error:
            self._fault, has_ended = error, True
        if has_ended:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)
        return bytes(room[:came])

    def recv_into(self, buffer: memoryview) -> int:
        """What has come of one record."""
        count = self._read_into(buffer)
        if count is None:
            taken = self._take()
            count = self._read_into(buffer)
            if count is None:
                self._brought_nothing(taken)
        self._useless = 0
        return count

    def send(self, data: bytes | memoryview) -> int:
        if not self._begun:
            self._begun = self._tls.write(data)
        self._leave()
        if self._leaving:
            raise ssl.SSLWantWriteError
        sent, self._begun = self._begun, 0
        return sent

    def pending(self) -> int:
        """Bytes that have come, and were not read."""
        return self._tls.pending() + self._incoming.pending

    def getpeercert(self) -> Any:
        return self._tls.getpeercert()

    def unwrap(self) -> None:
        """Says that this is the end. The other side's own end is not waited for."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._leave()

    def close(self) -> None:
        self._socket.close()

    # Not in an `except`, so that no error of the socket has one of OpenSSL's for its context.

    def _has_shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _read_into(self, buffer: memoryview) -> int | None:
        """None: there is nothing yet."""
        try:
            return self._read(len(buffer), buffer)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLEOFError:  # an end without TLS's own
            return 0

    def _brought_nothing(self, count: int) -> NoReturn:
        """So many bytes did not. Raises ssl.SSLWantReadError, and OSError where that is much."""
        self._useless += count
        if self._useless > self._most:
            raise ConnectionResetError(errno.ECONNRESET, f"TLS: {self._useless} bytes of nothing")
        raise ssl.SSLWantReadError

    def _take(self) -> int:
        """Gives OpenSSL a part of what has come; returns its bytes. Raises ssl.SSLWantReadError
        where there is none, OSError."""
        if self._outgoing.pending:  # a key update is answered by one
            self._leave()
        try:
            count = self._socket.recv_into(self._part)
        except BlockingIOError as error:
            raise ssl.SSLWantReadError from error
        if not count:
            self._incoming.write_eof()
        else:
            self._incoming.write(self._part[:count])
        return count

    def _leave(self) -> None:
        """Sends what is encrypted, as far as the kernel takes it. Raises OSError."""
        while self._leaving or self._outgoing.pending:
            if not self._leaving:
                self._leaving = memoryview(self._outgoing.read())
            try:
                sent = self._socket.send(self._leaving)
            except BlockingIOError:
                return
            self._leaving = self._leaving[sent:]
