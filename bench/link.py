"""A long way to a server: every byte is late, and only so many of them come a second.

It relays TCP connections in a process of its own. What it models:

- Latency. A byte arrives half a round trip after it was sent, in both directions. A connection
  takes a whole round trip before it carries anything. So the first byte of an answer comes one
  round trip after its question, and two after a connection was begun for it.
- Bandwidth towards the client: of each connection, and of all of them together, in the order in
  which their bytes are ready. A link that was idle makes up for 20 ms, no more.
- Failure. An endpoint is cut (its connections are reset, new ones refused), or falls silent (they
  stay open, and carry nothing).

What it does not: slow start (a connection is at its full speed at once), loss, TLS, name lookups,
and the bandwidth towards the server. The kernel's handshake is over at once: it is the first bytes
that wait for it.

    python -m bench.link --to 5000 --ports 6001,6002 --control 6000 \\
        --round-trip 0.08 --rate 5000000 --total 60000000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

_SLICE = 64 << 10
_BURST = 0.02  # seconds
_WAITING = 64  # slices on their way to a client that takes none
_BUFFER = 256 << 10  # bytes that the server is ahead of the link
_RESET = struct.pack("ii", 1, 0)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pace:
    """So many bytes a second, on a clock that runs on: a late wake-up is made up for."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def carry(self, count: int) -> None:
        """Returns when these bytes have passed."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - _BURST) + count / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Link:
    """The endpoints of one server, on ports of their own, at the other end of one link."""

    def __init__(self, to: int, round_trip: float, rate: float, total: float) -> None:
        self._to = to
        self._round_trip = round_trip
        self._rate = rate
        self._total = Pace(total)
        self._servers: dict[int, asyncio.Server] = {}
        self._open: dict[int, set[asyncio.StreamWriter]] = {}
        self._silent: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: int | None = None  # bytes until `_failing` fail
        self._failing: dict[str, Any] = {}
        self.carried = 0
        self.connections = 0

    async def listen(self, port: int) -> None:
        def arrives(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._relay(port, (reader, writer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._silent.discard(port)
        if port not in self._servers:
            self._open[port] = set()
            self._servers[port] = await asyncio.start_server(
                arrives, "127.0.0.1", port, limit=_SLICE, backlog=1024
            )

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One order, and what has been carried so far."""
        order = json.loads(await reader.readline())
        for port in order.get("mend", []):
            await self.listen(port)
        if "fail" in order:
            self._left, self._failing = order["after"], order
        counts = {"carried": self.carried, "connections": self.connections}
        writer.write(json.dumps(counts).encode() + b"\n")
        writer.close()

    async def _relay(self, port: int, client: Stream) -> None:
        self.connections += 1
        writers = {client[1]}
        self._open[port].add(client[1])
        try:
            await asyncio.sleep(self._round_trip)
            server = await self._connected()
            writers.add(server[1])
            down = self._pump(port, server[0], client[1], self._narrow(Pace(self._rate)))
            up = self._pump(port, client[0], server[1], self._wide)
            ways = {asyncio.create_task(down), asyncio.create_task(up)}
            # Either side's end is the connection's: nobody here half-closes one.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._open[port].discard(client[1])
            for writer in writers:
                writer.close()

    async def _connected(self) -> Stream:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._to))
        return await asyncio.open_connection(sock=connection, limit=_SLICE)

    async def _pump(
        self,
        port: int,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        carry: Callable[[int], Awaitable[None]],
    ) -> None:
        """Carries one direction to its end."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING)

        async def arrive() -> None:
            while True:
                due, piece = await under_way.get()
                await asyncio.sleep(due - loop.time())
                if not piece:
                    return
                if port not in self._silent:
                    sink.write(piece)
                    await sink.drain()

        arriving = asyncio.create_task(arrive())
        try:
            with suppress(OSError):
                while piece := await source.read(_SLICE):
                    await carry(len(piece))
                    await under_way.put((loop.time() + self._round_trip / 2, piece))
            await under_way.put((loop.time() + self._round_trip / 2, b""))
            await arriving
        finally:
            arriving.cancel()

    def _narrow(self, own: Pace) -> Callable[[int], Awaitable[None]]:
        async def carry(count: int) -> None:
            await own.carry(count)
            await self._total.carry(count)
            self.carried += count
            if self._left is not None:
                self._left -= count
                if self._left <= 0:
                    self._left = None
                    self._fail()

        return carry

    async def _wide(self, count: int) -> None:
        """Towards the server only questions go."""

    def _fail(self) -> None:
        for port in self._failing["fail"]:
            if self._failing["how"] == "silent":
                self._silent.add(port)
                continue
            self._servers.pop(port).close()
            for writer in self._open[port]:
                end = writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()


async def _serve(options: argparse.Namespace) -> None:
    link = Link(options.to, options.round_trip, options.rate, options.total)
    for port in options.ports.split(","):
        await link.listen(int(port))
    control = await asyncio.start_server(link.control, "127.0.0.1", options.control)
    async with control:
        await control.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.link",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--ports", required=True, help="of the endpoints, with commas between")
    parser.add_argument("--control", type=int, required=True, metavar="PORT")
    parser.add_argument("--round-trip", type=float, required=True, help="seconds")
    parser.add_argument("--rate", type=float, required=True, help="bytes a second of each")
    parser.add_argument("--total", type=float, required=True, help="bytes a second of all")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
