"""A port that answers also when clients have taken all descriptors: that of the operator.

Some descriptors are held back by keeping /dev/null open on them. When none is left to accept a
connection with, one of these is given up for it, and taken again once there are any.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Callable, Sequence

from .accepting import SHORT, open_sockets

SPARE = 16
_SHARE = 1 / 16  # at most, of the descriptors that a process may have
_BACKLOG = 128
_AGAIN = 1.0  # seconds until descriptors that were given up are tried to be had again


class SparePort:
    """Listens on all addresses of a host, and hands connections over to protocols of `make`. They
    end when what was sent is not read for `patience` seconds."""

    def __init__(
        self,
        make: Callable[[], asyncio.BaseProtocol],
        spare: int = SPARE,
        patience: float = 60.0,
    ) -> None:
        self._patience = patience
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(spare, int(allowed * _SHARE))
        self._spare: list[int] = []
        self._handing: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [each.getsockname()[:2] for each in self._sockets]

    async def listen(self, host: str, port: int) -> None:
        """Raises OSError when an address cannot be had."""
        self.take(await open_sockets(host, port, _BACKLOG))

    def take(self, sockets: Sequence[socket.socket]) -> None:
        """Listens on these, which listen already, and are its own from now on."""
        for each in sockets:
            each.setblocking(False)
        self._sockets = [*sockets]
        self._refill()

    def close(self) -> None:
        """Accepts nothing any more. What it has accepted goes on."""
        if self._timer is not None:
            self._timer.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        while self._spare:
            os.close(self._spare.pop())

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in SHORT:  # else this one connection is gone: accept(2)
                self._give_up_one(listening)
            return
        client.setblocking(False)
        with contextlib.suppress(OSError):  # it is gone already
            # Linux counts a closed window too.
            client.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(self._patience * 1000))
            )
        task = self._loop.create_task(self._hand(client))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)

    def _give_up_one(self, listening: socket.socket) -> None:
        """For the connection that waits. Without any left, it waits until there are some again."""
        if self._timer is None:
            self._timer = self._loop.call_later(_AGAIN, self._refill)
        if self._spare:
            os.close(self._spare.pop())
            self._accept(listening)  # at once: others want it too
        else:
            self._loop.remove_reader(listening)

    async def _hand(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, client)
        except OSError:  # it left
            client.close()

    def _refill(self) -> None:
        self._timer = None
        with contextlib.suppress(OSError):
            while len(self._spare) < self._most:
                self._spare.append(os.open(os.devnull, os.O_RDONLY))
        if len(self._spare) < self._most:
            self._timer = self._loop.call_later(_AGAIN, self._refill)
        for listening in self._sockets:  # also those that had to be left alone
            self._loop.add_reader(listening, self._accept, listening)
