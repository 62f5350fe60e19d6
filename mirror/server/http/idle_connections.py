"""Connections whose every request so far was answered from the response cache, as plain sockets.

asyncio's way of an arriving request (its selector, a handle, a transport, a protocol) takes as long
as the cache itself. These sockets have an epoll of their own, which the loop watches like any other
descriptor. The first request that the cache does not answer takes its connection away from here;
some that it does answer bring it back.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from .response_cache import Answer, ResponseCache

READ = 16 << 10
"""Bytes read at once: more than any plain request has."""

_AT_ONCE = 64  # requests answered before others get their turn
_NOW = socket.MSG_DONTWAIT
_ROUNDS = 4  # looks at all connections within the time that one may be idle

LetGo = Callable[[socket.SocketType, bytes, Answer | None], None]


@dataclass(frozen=True, slots=True)
class Idle:
    """A connection on which nothing is under way: its descriptor, of which client, whether anything
    was answered on it, since when (on the loop's clock) it has been idle, and how it is closed.
    What has arrived and was not read yet is not looked at."""

    descriptor: int
    address: str
    was_used: bool
    since: float
    close: Callable[[], None]


class _Client:
    __slots__ = ("address", "is_kept", "recv", "round", "send", "socket")

    def __init__(self, connection: socket.SocketType, address: str) -> None:
        self.socket = connection
        self.recv, self.send = connection.recv, connection.send  # looked up once
        self.address = address
        self.round = 0
        self.is_kept = False


class IdleConnections:
    """The kept connections. `let_go` is given one that belongs elsewhere from now on: with bytes
    that were read and are not answered, or with what is yet to be sent of an answer. `idle`, in
    seconds, is how long one may ask nothing, give or take a quarter."""

    def __init__(self, response_cache: ResponseCache, let_go: LetGo, idle: float) -> None:
        self._response_cache = response_cache
        self._let_go = let_go
        self._clients: dict[int, _Client] = {}
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._read)
        self._round = 0
        self._every = idle / _ROUNDS
        self._timer = self._loop.call_later(self._every, self._next_round)

    def limit(self, idle: float) -> None:
        if idle / _ROUNDS != self._every:  # else who says the same often keeps connections open
            self._every = idle / _ROUNDS
            self._timer.cancel()
            self._timer = self._loop.call_later(self._every, self._next_round)

    def __len__(self) -> int:
        return len(self._clients)

    def begin(self, connection: socket.SocketType, address: str) -> None:
        """Takes a new connection, in a turn of its own."""
        self._response_cache.begin_turn()
        self.take(connection, address)
        self._response_cache.end_turn()

    def take(self, connection: socket.SocketType, address: str) -> None:
        """Takes a new connection, in a turn of the response cache: answers what came with it, keeps
        it, closes it, or lets it go."""
        try:
            data = connection.recv(READ, _NOW)
        except BlockingIOError:
            data = b""  # nothing came yet: what its deadline is, others know
        except OSError:  # it left
            connection.close()
            return
        if not data or not self._answer(_Client(connection, address), data):
            self._pass_on(connection, data, None)

    def take_back(self, descriptor: int, address: str) -> bool:
        """Takes a connection that was let go, by a descriptor of its own: the caller closes this
        one. Whether it was taken."""
        if self._epoll.closed:
            return False
        try:
            connection = socket.socket(fileno=os.dup(descriptor))
        except OSError:  # there are no more, or it is gone
            return False
        client = _Client(connection, address)
        client.round = self._round
        self._keep(client)
        return True

    def idle(self) -> Iterator[Idle]:
        """All of them."""
        now = self._loop.time()
        for descriptor, client in self._clients.items():
            since = now - (self._round - client.round) * self._every
            yield Idle(descriptor, client.address, True, since, partial(self._end, client))

    def close(self) -> None:
        """Answers, or lets go, whoever has asked; then closes the rest, so that they ask elsewhere
        instead of waiting."""
        self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        for _ in range(len(self._clients) // _AT_ONCE + 1):  # and not for as long as they ask on
            self._read()
        for client in list(self._clients.values()):
            self._end(client)
        self._epoll.close()

    def _read(self) -> None:
        """Answers who has asked, and who asks meanwhile: a way through the loop costs as much as
        some answers do."""
        self._response_cache.begin_turn()
        left = _AT_ONCE
        while left > 0 and (events := self._epoll.poll(0, left)):
            left -= len(events)
            for descriptor, _ in events:
                client = self._clients[descriptor]
                try:
                    data = client.recv(READ, _NOW)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    self._end(client)
                elif not self._answer(client, data):
                    self._forget(client)
                    self._pass_on(client.socket, data, None)
        self._response_cache.end_turn()

    def _answer(self, client: _Client, data: bytes) -> bool:
        """Whether these bytes were answered here, in this turn."""
        cache = self._response_cache
        ready = cache.ready.get(data) or cache.find(data)
        if ready is None:
            return False
        cache.note(ready, client.address)
        try:
            sent = client.send(ready.data, _NOW)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end(client)
            return True
        if sent < len(ready.data):
            self._forget(client)
            self._pass_on(client.socket, b"", ready.after(sent))
        elif ready.closes:
            self._end(client)
        else:
            client.round = self._round
            if not client.is_kept:
                self._keep(client)
        return True

    def _pass_on(self, connection: socket.SocketType, data: bytes, owed: Answer | None) -> None:
        """Lets a connection go between two turns: this is no part of what others waited for."""
        self._response_cache.end_turn()
        self._let_go(connection, data, owed)
        self._response_cache.begin_turn()

    def _keep(self, client: _Client) -> None:
        client.is_kept = True
        descriptor = client.socket.fileno()
        self._clients[descriptor] = client
        self._epoll.register(descriptor, select.EPOLLIN)

    def _forget(self, client: _Client) -> None:
        if client.is_kept:
            client.is_kept = False
            descriptor = client.socket.fileno()
            del self._clients[descriptor]
            self._epoll.unregister(descriptor)

    def _end(self, client: _Client) -> None:
        self._forget(client)
        client.socket.close()

    def _next_round(self) -> None:
        self._round += 1
        for client in [
            each for each in self._clients.values() if each.round < self._round - _ROUNDS
        ]:
            self._end(client)
        self._timer = self._loop.call_later(self._every, self._next_round)
