"""TLS handshakes, before anything else is made for a connection.

The first step of one costs as much as a hundred small answers, since a key signs: it goes to a
thread, and the loop answers others meanwhile. A connection is handed over when its first request
has arrived behind the handshake, as the kernel does without TLS (TCP_DEFER_ACCEPT). Whoever does
not speak TLS, or has no certificate where one is asked for, is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial

import structlog

from ...sockets.tls import TlsSocket, Wait
from ...threads import Threads
from .idle_connections import Idle

log = structlog.get_logger()

WITHIN = 10.0
"""Seconds for a handshake: what clients written in Go give it."""

_THREADS = min(4, os.cpu_count() or 1)
_HANDSHAKE = 0x16  # the first byte of a TLS connection: RFC 8446, section 5.1
_LINGER = 2.0  # seconds in which a last word may be read; else the kernel resets it away
_MOST_READ = 64 << 10  # bytes, of what is sent meanwhile by whoever gets that word

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate, and tls.client_ca demands one",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not by an authority of tls.client_ca",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of tls.cert",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses the certificate of tls.cert",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses the certificate of tls.cert",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of tls.cert is not valid any more for it",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS of 1.2 or newer",
    "NO_SHARED_CIPHER": "it knows no cipher that is good enough",
}

Ready = Callable[[socket.socket, str], None]


class Handshakes:
    """Connections that shake hands. `ready` is given each, with its client's address, when it has
    asked something. `refusal` makes the answer, in HTTP, to a request without TLS."""

    def __init__(self, ready: Ready, refusal: Callable[[], bytes]) -> None:
        self._ready = ready
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(_THREADS, "handshake")
        self._all: set[_Shaking] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __len__(self) -> int:
        return len(self._all)

    def begin(
        self, client: socket.socket, address: str, context: ssl.SSLContext, idle: float
    ) -> None:
        """Takes a new connection. `idle`: seconds that a client may be silent."""
        client.setblocking(False)
        shaking = _Shaking(client, address, context, idle, self._loop.time())
        self._set_timer(shaking, min(idle, WITHIN), self._overdue)
        self._all.add(shaking)
        self._none_left.clear()
        self._peek(shaking)

    def idle(self) -> Iterator[Idle]:
        """Those that wait for their client."""
        for each in self._all:
            if each.watched is not None:
                close = partial(self._end, each)
                yield Idle(each.watched, each.address, False, each.since, close)

    async def close(self, within: float) -> None:
        """Those that are about to be done may be so within these seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_left.wait(), within)
        for shaking in list(self._all):
            self._end(shaking)
        self._threads.leave()

    def _peek(self, shaking: _Shaking) -> None:
        """The first byte tells whether it is TLS."""
        try:
            first = shaking.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self._when_readable(shaking, self._peek)
            return
        except OSError:
            first = b""
        if not first:
            self._end(shaking)
        elif first.isalpha():
            log.info("request_without_tls", client=shaking.address)
            self._say(shaking, self._refusal())
        elif first[0] == _HANDSHAKE:
            self._wrap(shaking)
        else:
            self._refused(shaking, "what it sends is not TLS")

    def _wrap(self, shaking: _Shaking) -> None:
        try:
            shaking.tls = shaking.socket = TlsSocket(shaking.socket, shaking.context)
        except (OSError, ValueError):  # it is gone
            self._end(shaking)
            return
        self._threads.begin(shaking.tls.shake).add_done_callback(
            lambda future: self._shaken(shaking, future.result, future.cancelled())
        )

    def _shake(self, shaking: _Shaking) -> None:
        assert shaking.tls is not None  # noqa: S101 - it has been wrapped
        self._shaken(shaking, shaking.tls.shake)

    def _shaken(
        self, shaking: _Shaking, outcome: Callable[[], Wait], was_cancelled: bool = False
    ) -> None:
        if shaking not in self._all or was_cancelled:  # closed meanwhile
            return
        try:
            wait = outcome()
        except ssl.SSLError as error:
            reason = str(error.reason or "it ended in the middle")
            self._refused(shaking, _REASONS.get(reason, reason.replace("_", " ").lower()))
        except (OSError, ValueError):
            self._end(shaking)
        else:
            if wait is Wait.READABLE:
                self._when_readable(shaking, self._shake)
            elif wait is Wait.WRITABLE:
                self._when_writable(shaking, self._shake)
            else:
                self._await_request(shaking)

    def _await_request(self, shaking: _Shaking) -> None:
        """A client sends its request right behind its part of the handshake, or a moment later."""
        self._set_timer(shaking, shaking.idle, self._end)
        try:  # below TLS, which would take it off the wire
            arrived = socket.socket.recv(shaking.socket, 1, socket.MSG_PEEK)
        except BlockingIOError:
            self._when_readable(shaking, self._hand_over)
            return
        except OSError:
            arrived = b""
        if arrived:
            self._hand_over(shaking)
        else:
            self._end(shaking)

    def _hand_over(self, shaking: _Shaking) -> None:
        self._forget(shaking)
        self._ready(shaking.socket, shaking.address)

    # How they end otherwise

    def _overdue(self, shaking: _Shaking) -> None:
        log.info("tls_refused", client=shaking.address, reason="it takes too long")
        self._end(shaking)

    def _refused(self, shaking: _Shaking, reason: str) -> None:
        log.info("tls_refused", client=shaking.address, reason=reason)
        self._say(shaking, b"")

    def _say(self, shaking: _Shaking, words: bytes) -> None:
        """A last word; where OpenSSL has said it, by an alert, none. What the client sends
        meanwhile is read, since the kernel would reset the connection, and the word with it."""
        descriptor = shaking.socket.fileno()
        with contextlib.suppress(OSError):
            if words:
                os.write(descriptor, words)
            shaking.socket.shutdown(socket.SHUT_WR)
            self._set_timer(shaking, _LINGER, self._end)
            self._drain(shaking)
            return
        self._end(shaking)

    def _drain(self, shaking: _Shaking) -> None:
        try:
            read = os.read(shaking.socket.fileno(), _MOST_READ)
        except BlockingIOError:
            self._when_readable(shaking, self._drain)
            return
        except OSError:
            read = b""
        shaking.drained += len(read)
        if not read or shaking.drained > _MOST_READ:
            self._end(shaking)
        else:
            self._when_readable(shaking, self._drain)

    def _end(self, shaking: _Shaking) -> None:
        if shaking in self._all:
            self._forget(shaking)
            shaking.socket.close()

    def _forget(self, shaking: _Shaking) -> None:
        self._all.discard(shaking)
        if not self._all:
            self._none_left.set()
        self._unwatch(shaking)
        if shaking.timer is not None:
            shaking.timer.cancel()

    # What they wait for

    def _set_timer(
        self, shaking: _Shaking, seconds: float, then: Callable[[_Shaking], None]
    ) -> None:
        if shaking.timer is not None:
            shaking.timer.cancel()
        shaking.timer = self._loop.call_later(seconds, then, shaking)

    def _when_readable(self, shaking: _Shaking, then: Callable[[_Shaking], None]) -> None:
        shaking.watched = shaking.socket.fileno()
        self._loop.add_reader(shaking.watched, self._go_on, shaking, then)

    def _when_writable(self, shaking: _Shaking, then: Callable[[_Shaking], None]) -> None:
        shaking.watched = shaking.socket.fileno()
        self._loop.add_writer(shaking.watched, self._go_on, shaking, then)

    def _go_on(self, shaking: _Shaking, then: Callable[[_Shaking], None]) -> None:
        self._unwatch(shaking)
        then(shaking)

    def _unwatch(self, shaking: _Shaking) -> None:
        if shaking.watched is not None:
            self._loop.remove_reader(shaking.watched)
            self._loop.remove_writer(shaking.watched)
            shaking.watched = None


class _Shaking:
    """One connection. `idle`: seconds that its client has, once it has shaken hands. `watched`: its
    descriptor, while the loop waits for its client."""

    __slots__ = (
        "address",
        "context",
        "drained",
        "idle",
        "since",
        "socket",
        "timer",
        "tls",
        "watched",
    )

    def __init__(
        self,
        client: socket.socket,
        address: str,
        context: ssl.SSLContext,
        idle: float,
        since: float,
    ) -> None:
        self.socket = client
        self.address = address
        self.context = context
        self.idle = idle
        self.since = since
        self.timer: asyncio.TimerHandle | None = None
        self.tls: TlsSocket | None = None
        self.watched: int | None = None
        self.drained = 0
