"""What aiohttp's private parts mean here. Where another version means something else by them, its
connections would be answered out of turn, or closed too soon."""

from __future__ import annotations

import asyncio

from aiohttp import web

from mirror.server.http.aiohttp_parts import KeptAlive

from ..waiting import eventually

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
KEPT = 0.5  # seconds


async def test_a_connection_tells_whether_and_since_when_it_waits_for_a_request() -> None:
    loop = asyncio.get_running_loop()
    asked, may_answer = asyncio.Event(), asyncio.Event()
    made: list[KeptAlive] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await may_answer.wait()
        return web.Response()

    server = web.Server(handle)

    def make() -> KeptAlive:
        made.append(KeptAlive(server, loop=loop, keepalive_timeout=KEPT))
        return made[-1]

    listener = await loop.create_server(make, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        await eventually(lambda: bool(made))
        (connection,) = made
        begun = loop.time()
        writer.write(REQUEST)
        await asyncio.wait_for(asked.wait(), 10)
        assert not connection.awaits_request()
        may_answer.set()
        await reader.readuntil(b"\r\n\r\n")
        await eventually(connection.awaits_request)
        assert begun <= connection.idle_since() <= loop.time()

        used = loop.time()
        connection.was_used()
        assert used <= connection.idle_since() <= loop.time()
        assert await reader.read() == b""  # aiohttp closes it by the same time
        assert loop.time() >= used + KEPT
        writer.close()
    finally:
        listener.close()
        await server.shutdown(1)
