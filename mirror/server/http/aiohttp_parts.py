"""The private parts of aiohttp that this mirror uses, all of them: what its connections do not tell
by public means. tests/server/test_aiohttp_parts.py fails where another version means something else
by them, and pyproject.toml bounds the version.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from ...sockets.tls import TlsSocket


def ends_connection(request: web.BaseRequest) -> None:
    """Has the connection end with the answer to this request, which says so: what was left of its
    body did not go through aiohttp's parser, which so waits for it."""
    request._message = request._message._replace(should_close=True)
    request.content.feed_eof()


def speaks_tls(request: web.BaseRequest) -> bool:
    """Whether the client does: aiohttp itself sees a plain connection, or none that it knows."""
    return request.scheme == "https" or getattr(request.protocol, "tls", None) is not None


class KeptAlive(web.RequestHandler):
    """A connection of aiohttp's that tells whether and since when it waits for a request: so bytes
    can be answered before its parser sees them, and idle connections can be taken from it."""

    __slots__ = ("tls",)

    tls: TlsSocket | None
    """What it is sent by, where it speaks TLS."""

    def awaits_request(self) -> bool:
        """Whether every request that the parser has seen is answered, and aiohttp waits for the
        next: its task waits for a future that the parser sets. False before the parser has seen
        anything."""
        return self._waiter is not None and not self._waiter.done()

    def idle_since(self) -> float:
        """When it was last used, on the loop's clock: aiohttp notes when it will close it."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    def was_used(self) -> None:
        """It was used without aiohttp's knowledge: its time to be idle begins anew."""
        now = asyncio.get_running_loop().time()
        self._next_keepalive_close_time = now + self._keepalive_timeout
