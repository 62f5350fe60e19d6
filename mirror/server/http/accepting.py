"""Accepting connections, and answering at once those whose request has arrived with them.

dockerd and podman open a connection for every request, and close it after the answer. For what is
in the response cache, everything that asyncio and aiohttp build for a connection (a transport, a
parser, a task, timers: 300 µs of work) would then be thrown away after one look-up. So a connection
is taken by its plain socket first. When the request is there already (the kernel is asked to hand
out no connection before: TCP_DEFER_ACCEPT) and the response cache has the answer, it is sent and
done with; or kept (idle_connections.py), if the client keeps it.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import resource
import select
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog

from ...frozen import dataclass
from ...threads import aside
from .handshakes import Handshakes
from .idle_connections import Idle, IdleConnections
from .networks import network_of
from .response_cache import Answer, ResponseCache

log = structlog.get_logger()

_AT_ONCE = 64  # connections taken before others get their turn
_DEFERRED = 1  # second: then a client that says nothing gets its connection, and its deadline
_PAUSE = 0.2  # seconds, when descriptors or memory have run out: new connections wait
_SOON = 0.01  # seconds until idle connections are looked for, and until what was closed is gone
# Of the descriptors that a process may have: connections leave so many to what those that are there
# need (a transfer: the file, and the sender's own copies of both).
_LEFT = (1 / 8, 256)
_LEAST_LEFT = 18  # what one pull takes, with what SQLite opens beside it
_CLOSED = 1 / 16  # of all idle connections, to make room for others
_SAID = 10.0  # seconds between two lines of the log about it
_HANDING = 1.0  # seconds; only TLS takes that long, with a client that does not shake hands
BACKLOG = 1024  # dockerd opens a connection for every request

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What accept(2) fails with when descriptors or memory have run out."""

Make = Callable[[socket.socket, bytes, Answer | None], asyncio.Protocol]

_STREAM = int(socket.SOCK_STREAM)


@dataclass(frozen=True, slots=True)
class Port:
    """A socket that listens; whether TLS is spoken with those who connect to it, and the section of
    the configuration whose port it is: listen, hosted (they mean what is hosted here, whatever
    their Host says), or fleet."""

    socket: socket.socket
    tls: bool = False
    section: str = "listen"


class Acceptor:
    """Accepts on ports, and hands connections over to protocols.

    `make` is given the connection, and the bytes that were read already, or what is yet to be sent
    of an answer to them. `idle`: see IdleConnections. `tls`: what is shown at the ports that speak
    it; `refusal`: the answer, in HTTP, to who does not. `others` are the idle connections among
    those that were handed over.
    """

    def __init__(
        self,
        make: Make,
        response_cache: ResponseCache,
        idle: float,
        tls: ssl.SSLContext | None = None,
        refusal: Callable[[], bytes] = bytes,
        others: Callable[[], Iterable[Idle]] = tuple,
    ) -> None:
        self._make = make
        self._response_cache = response_cache
        self._others = others
        self._tls = tls
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._kept = IdleConnections(response_cache, self._hand, idle)
        self._handshakes = Handshakes(self._kept.begin, refusal)
        self._ports: dict[socket.socket, Port] = {}
        self._most = 0  # the first descriptor that is not for a connection
        self._pauses, self._say_at = 0, 0.0  # since they were last told of
        self._say_closed_at = 0.0
        self._handing: set[asyncio.Task[object]] = set()

    def limit(self, idle: float) -> None:
        self._idle = idle
        self._kept.limit(idle)

    def show(self, tls: ssl.SSLContext | None) -> None:
        """To connections that come from now on. None: TLS is spoken nowhere."""
        self._tls = tls

    @property
    def take_back(self) -> Callable[[int, str], bool]:
        """See IdleConnections."""
        return self._kept.take_back

    @property
    def kept(self) -> int:
        """Connections that were not handed over."""
        return len(self._kept) + len(self._handshakes)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [each.getsockname()[:2] for each in self._ports]

    def listen(self, ports: Iterable[Port]) -> None:
        """They are this acceptor's from now on."""
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        share, most_left = _LEFT
        self._most = allowed - min(max(int(allowed * share), _LEAST_LEFT), most_left)
        for port in ports:
            port.socket.setblocking(False)
            port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFERRED)
            self._ports[port.socket] = port
            self._loop.add_reader(port.socket, self._accept, port.socket, _AT_ONCE)

    async def close(self) -> None:
        """Takes what has connected already, and nothing any more."""
        for listening in self._ports:
            self._loop.remove_reader(listening)
            self._accept(listening, BACKLOG + 1)  # Linux lets one more wait
        self.leave()
        await self._handshakes.close(_HANDING)
        self._kept.close()
        if self._handing:
            _, late = await asyncio.wait(self._handing, timeout=_HANDING)
            for task in late:
                task.cancel()

    def leave(self) -> None:
        """Accepts nothing any more, and leaves who has connected to others that have the ports."""
        for listening in self._ports:
            self._loop.remove_reader(listening)
            listening.close()
        self._ports.clear()

    def _accept(self, listening: socket.socket, most: int) -> None:
        """Takes who has connected, and answers them in one turn of the response cache."""
        self._response_cache.begin_turn()
        self._accept_some(listening, most)
        self._response_cache.end_turn()

    def _accept_some(self, listening: socket.socket, most: int) -> None:
        port = self._ports[listening]
        # Neither socket.accept nor the class socket.socket, which look up two enums and run a
        # dozen lines of Python for each connection: what is answered and closed needs none of it.
        accept, family, protocol = listening._accept, int(listening.family), listening.proto  # type: ignore[attr-defined]
        for _ in range(most):
            try:
                descriptor, address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in SHORT:  # of this one connection: it is gone (accept(2))
                    log.info("connection_lost", reason=error.strerror)
                    continue
                self._loop.remove_reader(listening)
                self._make_room(listening, str(error.strerror))
                return
            client = socket.SocketType(family, _STREAM, protocol, descriptor)
            if self._tls is not None and port.tls:
                self._handshakes.begin(_whole(client), address[0], self._tls, self._idle)
            else:
                self._kept.take(client, address[0])
            if descriptor >= self._most:
                # What was just accepted is handed over meanwhile: most of it is not idle.
                self._loop.remove_reader(listening)
                self._loop.call_later(_SOON, self._resume, listening, "few descriptors are left")
                return

    def _close_idle(self) -> bool:
        """Makes room for whoever comes: closes a part of the idle connections, of the clients that
        have most of them. Whether there were any."""
        idle = _silent((*self._kept.idle(), *self._handshakes.idle(), *self._others()))
        if not idle:
            return False
        closed = _in_turn(idle)[: math.ceil(len(idle) * _CLOSED)]
        for connection in closed:
            connection.close()
        now = self._loop.time()
        if now >= self._say_closed_at:
            log.warning(
                "idle_connections_closed",
                reason="few descriptors are left",
                client=network_of(closed[0].address),
            )
            self._say_closed_at = now + _SAID
        return True

    def _resume(self, listening: socket.socket, reason: str) -> None:
        if listening not in self._ports:
            return
        if self._has_few_left(listening):
            self._make_room(listening, reason)
        else:
            self._loop.add_reader(listening, self._accept, listening, _AT_ONCE)

    def _make_room(self, listening: socket.socket, reason: str) -> None:
        """New connections wait until idle ones are closed, or others have ended."""
        pause = _SOON
        if not self._close_idle():
            pause = _PAUSE
            self._pauses += 1
            now = self._loop.time()
            if now >= self._say_at:
                log.warning("connections_wait", reason=reason, times=self._pauses)
                self._pauses, self._say_at = 0, now + _SAID
        self._loop.call_later(pause, self._resume, listening, reason)

    def _has_few_left(self, any_file: socket.socket) -> bool:
        """A new descriptor has the lowest number that is free."""
        try:
            lowest = os.dup(any_file.fileno())
        except OSError:
            return True
        os.close(lowest)
        return lowest >= self._most

    def _hand(self, client: socket.SocketType, first: bytes, owed: Answer | None) -> None:
        whole = _whole(client)
        whole.setblocking(False)
        task = self._loop.create_task(self._hand_over(whole, first, owed))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)

    async def _hand_over(self, client: socket.socket, first: bytes, owed: Answer | None) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make(client, first, owed), client
            )
        except OSError as error:  # it left
            log.info("connection_lost", reason=str(error))
            client.close()


def _whole(client: socket.SocketType) -> socket.socket:
    """A socket as asyncio and ssl want it; `client` is of no use any more, unless it is one."""
    if isinstance(client, socket.socket):
        return client
    return socket.socket(client.family, client.type, client.proto, client.detach())


def _silent(connections: Sequence[Idle]) -> list[Idle]:
    """Those on which nothing has arrived. A request that waits to be read, while the loop is held
    up, would be lost with its connection: the kernel resets it then."""
    poll = select.poll()
    for each in connections:
        poll.register(each.descriptor, select.POLLIN)
    arrived = {descriptor for descriptor, _ in poll.poll(0)}
    return [each for each in connections if each.descriptor not in arrived]


def _in_turn(connections: Sequence[Idle]) -> list[Idle]:
    """In the order in which they are closed: of the client that has most, until others have as
    many. Of one client, and of equals, those first on which nothing was asked yet, then those that
    have been idle for longest."""
    clients: defaultdict[str, list[Idle]] = defaultdict(list)
    for each in sorted(connections, key=lambda each: (each.was_used, each.since)):
        clients[network_of(each.address)].append(each)
    turns = [
        (place - len(own), each.was_used, each.since, each)
        for own in clients.values()
        for place, each in enumerate(own)
    ]
    return [each for *_, each in sorted(turns, key=lambda turn: turn[:3])]


async def open_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listening sockets on all addresses of a host; of every address of this machine for "".
    Raises OSError when one cannot be had."""
    found = await aside(
        partial(
            socket.getaddrinfo,
            host or None,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    )
    opened: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            try:
                listening = socket.create_server(address, family=family, backlog=backlog)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                continue  # a kernel without IPv6: its other addresses will do
            listening.setblocking(False)
            opened.append(listening)
        if not opened:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    except OSError:
        for listening in opened:
            listening.close()
        raise
    return opened
