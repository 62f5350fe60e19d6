"""Asking the other nodes of the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp
import structlog
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from cachetools import TTLCache
from yarl import URL

from ... import __version__
from ...clock import Clock
from ...contracts.events import PeerAsked
from ...contracts.fleet import Elsewhere, Nodes, Wanted
from ...events import Events
from ...oci.errors import quoted
from ...oci.ranges import ByteRange, ContentRange, format_range
from ...peering import CONTENT_PATH, ELSEWHERE, NODE_PATH, Ask, Proof
from ...tasks import ended
from ...times import FLEET
from ..endpoint import KIB, MIB
from ..http.connecting import Connector
from .stream import PeerStream

log = structlog.get_logger()

_MOST_WORDS = 16 * KIB  # bytes of an answer that is no content
_MOST_AWAY = 10_000  # nodes
_MOST_MISSED = 3  # looks in a row at whether a node lives that an upload is sent to
_MOST_ELSEWHERE = 64  # nodes that one answer names
_TOLD = 60.0  # seconds between two lines of the log about the same node


class Sent(Protocol):
    """A body on its way; `size` None: not known before its end."""

    size: int | None

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class HttpPeers:
    """The Peers of a process. `tls`: by what the others are verified, and what they are shown."""

    def __init__(
        self,
        nodes: Nodes,
        proof: Proof,
        events: Events,
        clock: Clock,
        resolver: AbstractResolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._nodes = nodes
        self._proof = proof
        self._events = events
        self._resolver = resolver
        self._tls = tls
        self._sessions: aiohttp.ClientSession | None = None
        self._away: TTLCache[str, None] = TTLCache(_MOST_AWAY, FLEET.rests, clock.monotonic)
        self._told: TTLCache[str, None] = TTLCache(_MOST_AWAY, _TOLD, clock.monotonic)
        self._looks: dict[str, asyncio.Task[bool]] = {}

    async def content(
        self, url: str, wanted: Wanted, range: ByteRange | None = None
    ) -> PeerStream | Elsewhere | None:
        if url == self._nodes.own or not self._nodes.knows(url) or self.is_away(url):
            return None
        response = await self._answer(url, _content(wanted, range))
        if response is None:
            return None
        stream: PeerStream | Elsewhere | None = None
        try:
            result, stream = await self._read(url, response, range)
            self._events.emit(PeerAsked(result))
        finally:
            if not isinstance(stream, PeerStream):
                response.close()
        return stream

    def is_away(self, url: str) -> bool:
        return url in self._away

    def forgive(self, url: str) -> None:
        self._away.pop(url, None)

    @contextlib.asynccontextmanager
    async def sending(
        self, url: str, ask: Ask, body: Sent | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request with this body, for which is waited as long as the node lives:
        it may take what it needs for what it has been sent. Raises aiohttp.ClientError, OSError."""
        asking = asyncio.ensure_future(self._ask(url, ask, body))
        missed = 0
        try:
            while not (await asyncio.wait([asking], timeout=FLEET.silent))[0]:
                missed = 0 if await self._lives(url) else missed + 1
                if missed == _MOST_MISSED:
                    raise aiohttp.ServerTimeoutError("it gives no sign of life")
            response = asking.result()
        except BaseException:
            _drop(asking)
            raise
        try:
            yield response
        finally:
            response.release()

    async def close(self) -> None:
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        await ended(looks)
        if self._sessions is not None:
            await self._sessions.close()

    async def _answer(self, url: str, ask: Ask) -> aiohttp.ClientResponse | None:
        """The answer's head, for which is waited as long as the node lives."""
        asking = asyncio.ensure_future(self._ask(url, ask))
        try:
            while not (await asyncio.wait([asking], timeout=FLEET.silent / 2))[0]:
                if not await self._lives(url):
                    _drop(asking)
                    return None
            return asking.result()
        except (aiohttp.ClientError, OSError) as error:
            self._is_gone(url, type(error).__name__)
            return None
        except asyncio.CancelledError:
            _drop(asking)
            raise

    async def _ask(self, url: str, ask: Ask, body: Sent | None = None) -> aiohttp.ClientResponse:
        headers = {hdrs.AUTHORIZATION: self._proof.of(ask, url)}
        if ask.range:
            headers[hdrs.RANGE] = ask.range
        if body is not None and body.size is not None:
            headers[hdrs.CONTENT_LENGTH] = str(body.size)
        return await self._session.request(
            ask.method,
            URL(url + ask.path, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
        )

    async def _read(
        self, url: str, response: aiohttp.ClientResponse, range: ByteRange | None
    ) -> tuple[str, PeerStream | Elsewhere | None]:
        """What it is, as PeerAsked has it, and what is of use of it."""
        if response.status in (200, 206):
            part = _part(response, range)
            if part is None:
                self._is_unusable(url, f"{response.status}, and another range")
                return "wrong", None
            start, size = part
            lives = functools.partial(self._lives, url)
            return "stream", PeerStream(response, start, size, lives, FLEET.silent / 2)
        words = await self._words(response)
        if response.status == ELSEWHERE:
            nodes = words.get("nodes")
            named = nodes[:_MOST_ELSEWHERE] if isinstance(nodes, list) else []
            known = [one for one in named if isinstance(one, str) and self._nodes.knows(one)]
            return "elsewhere", Elsewhere(known)
        if response.status == 401:
            self._away[url] = None
            if self._is_news(url):
                reason = quoted(str(words.get("error", "")), 300)
                log.warning("peer_refuses_us", node=url, reason=reason)
            return "refused", None
        if response.status not in (404, 416):
            self._is_unusable(url, str(response.status))
        return "nothing", None

    async def _words(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        """What it says; nothing, where that is of another form or takes long."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            async with asyncio.timeout(FLEET.silent):
                found = json.loads(await response.content.read(_MOST_WORDS))
                if isinstance(found, dict):
                    return found
        return {}

    async def _lives(self, url: str) -> bool:
        """Whether the node answers at all; all who wonder at the same time ask once."""
        look = self._looks.get(url)
        if look is None:
            look = self._looks[url] = asyncio.create_task(self._look(url), name=f"lives {url}")
            look.add_done_callback(lambda _: self._looks.pop(url, None))
        return await asyncio.shield(look)

    async def _look(self, url: str) -> bool:
        try:
            async with asyncio.timeout(FLEET.silent / 2):
                response = await self._ask(url, Ask(hdrs.METH_GET, NODE_PATH))
                await response.read()
                return True
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._is_gone(url, type(error).__name__)
            return False

    def _is_gone(self, url: str, reason: str) -> None:
        self._away[url] = None
        self._events.emit(PeerAsked("away"))
        if self._is_news(url):
            log.warning("peer_is_away", node=url, reason=reason)

    def _is_unusable(self, url: str, reason: str) -> None:
        if self._is_news(url):
            log.warning("peer_answer_unusable", node=url, reason=reason)

    def _is_news(self, url: str) -> bool:
        """Whether nothing was told of this node for a while: from now on it was."""
        is_news = url not in self._told
        self._told.setdefault(url, None)
        return is_news

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._sessions is None:
            connector = Connector(
                limit=0,  # each is a fill's, and those are bounded
                ssl=self._tls or True,
                resolver=self._resolver,
                family=socket.AF_UNSPEC,
                keepalive_timeout=30.0,
            )
            self._sessions = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=FLEET.connect),
                headers={hdrs.USER_AGENT: f"registry-mirror/{__version__}"},
                skip_auto_headers=(hdrs.ACCEPT_ENCODING,),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=MIB,
                trust_env=False,
            )
        return self._sessions


def _content(wanted: Wanted, range: ByteRange | None) -> Ask:
    path = f"{CONTENT_PATH}{wanted.registry}/{wanted.digest}"
    return Ask(hdrs.METH_GET, path, "" if range is None else format_range(range))


def _part(response: aiohttp.ClientResponse, range: ByteRange | None) -> tuple[int, int] | None:
    """The first byte that comes, and the size of the whole; None where that is not what was asked
    for, or not the length of what comes."""
    length = response.content_length
    if length is None:
        return None
    if response.status == 200:
        return 0, length
    part = ContentRange.parse(response.headers.get(hdrs.CONTENT_RANGE))
    if part is None or part.total is None or part.stop - part.start != length or range is None:
        return None
    stop = part.total if range.stop is None else min(range.stop, part.total)
    return (part.start, part.total) if (part.start, part.stop) == (range.start, stop) else None


def _drop(asking: asyncio.Future[aiohttp.ClientResponse]) -> None:
    """Nobody waits for this answer any more."""
    asking.cancel()
    asking.add_done_callback(_close)


def _close(asked: asyncio.Future[aiohttp.ClientResponse]) -> None:
    if not asked.cancelled() and asked.exception() is None:
        asked.result().close()
