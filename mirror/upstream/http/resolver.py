"""Names → addresses."""

from __future__ import annotations

import asyncio
import errno
import socket
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from ...threads import Threads


class Resolver(AbstractResolver):
    """getaddrinfo in threads of its own, and not for longer than `timeout` seconds.

    A name server that hangs would else hold the threads that hash and write.
    """

    def __init__(self, timeout: float, threads: int = 4) -> None:
        self._timeout = timeout
        self._threads = Threads(threads, "dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        # AI_ADDRCONFIG: no IPv6 addresses on a machine that has none.
        ask = partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            flags=socket.AI_ADDRCONFIG,
        )
        if not self._threads.can_run():  # it would hold up the event loop
            raise OSError(errno.EAGAIN, "no thread can be started to ask for an address")
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._threads.run(ask)
        except TimeoutError:
            # Not a TimeoutError: the connector takes only an OSError with a number for DNS's.
            raise OSError(0, f"no answer within {self._timeout:g} s") from None
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for found_family, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.leave()
