"""The handler of the peer port: content by its digest, to nodes that prove to be of the fleet.

Content that is private at its registry is given, too: which node shows it to whom is decided at
that node. So whoever has the fleet's secret can read all that is cached here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

import structlog
from aiohttp import hdrs, web

from ...clock import Clock
from ...contracts.context import RequestContext
from ...contracts.events import PeerAnswered
from ...contracts.fleet import Elsewhere, Wanted
from ...contracts.registry import FileContent
from ...events import Events
from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.errors import BadRequest, DigestInvalid, RangeInvalid, RegistryError
from ...oci.ranges import ByteRange, ContentRange, format_unsatisfied, parse_range
from ...oci.registries import is_registry, parse_registry
from ...peering import CONTENT_PATH, ELSEWHERE, NODE_PATH, UPLOADS_PATH, Ask, Proof, Refused
from ..http.networks import network_of
from ..http.request_ids import request_id
from ..http.sending import Sender
from ..v2.access_log import Exchange
from ..v2.answering import Responder
from .uploads import PeerUploads

log = structlog.get_logger()

_PATIENCE = 60.0  # seconds for which a node may take nothing of what it has asked for
_TOLD = 60.0  # seconds between two lines of the log about nodes that are refused
_JSON: Mapping[str, str] = {hdrs.CONTENT_TYPE: "application/json"}
_BYTES: Mapping[str, str] = {hdrs.CONTENT_TYPE: "application/octet-stream"}


class Given(Protocol):
    """Content for another node; `growing`: it is still coming. To be closed."""

    @property
    def content(self) -> FileContent: ...

    @property
    def size(self) -> int: ...

    @property
    def growing(self) -> bool: ...

    def close(self) -> None: ...


class Gives(Protocol):
    """What another node may have."""

    async def content(
        self, wanted: Wanted, part: ByteRange | None, node: str
    ) -> Given | Elsewhere | None:
        """Raises RegistryError where it comes no more."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """One that is all here. `result`: as in PeerAnswered."""

    result: str
    status: int
    body: bytes
    headers: Mapping[str, str]


def _told(result: str, status: int, **words: object) -> _Answer:
    return _Answer(result, status, json.dumps(words).encode(), _JSON)


_NOTHING = _told("nothing", 404, error="nothing of it is here, or comes")


class PeerPort:
    """Answers `GET` and `HEAD` of CONTENT_PATH and NODE_PATH, and nobody who does not sign."""

    def __init__(
        self,
        gives: Gives,
        uploads: PeerUploads | None,
        proof: Proof,
        sender: Sender,
        events: Events,
        clock: Clock,
        store: str,
    ) -> None:
        """`uploads` None: nothing is hosted here. `store`: by which this node tells itself from one
        that was given the same URL."""
        self._gives = gives
        self._uploads = uploads
        self._proof = proof
        self._responder = Responder(sender, clock, _PATIENCE)
        self._events = events
        self._clock = clock
        self._store = store
        self._tell_at = 0.0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = Exchange(
            RequestContext(request_id(()), network_of(request.remote or "")),
            request.method,
            request.remote or "",
            "",
            self._clock.monotonic(),
        )
        ask = Ask(request.method, request.raw_path, request.headers.get(hdrs.RANGE, ""))
        try:
            node = self._proof.asker(ask, request.headers.get(hdrs.AUTHORIZATION, ""))
        except Refused as error:
            return await self._whole(request, exchange, self._refused(exchange, error))
        try:
            return await self._answer(request, exchange, node)
        except RegistryError as error:
            told = _told("nothing", 404, error=error.message)
        except Exception:
            number = exchange.context.request_id
            log.exception("request_failed_unexpectedly", kind="peer", request_id=number)
            told = _told("nothing", 500, error="this node failed; its log says more")
        return await self._whole(request, exchange, told)

    async def _answer(
        self, request: web.BaseRequest, exchange: Exchange, node: str
    ) -> web.StreamResponse:
        if self._uploads is not None and request.raw_path.startswith(UPLOADS_PATH):
            return await self._uploads.answer(request)
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return await self._whole(request, exchange, _told("nothing", 405, error="only GET"))
        path = request.raw_path
        if path == NODE_PATH:
            lives = _told("lives", 200, at=int(self._clock.wall()), store=self._store)
            return await self._whole(request, exchange, lives)
        wanted = parse_content(path)
        if wanted is None:
            return await self._whole(request, exchange, _NOTHING)
        part = parse_range(request.headers.get(hdrs.RANGE), None)
        given = await self._gives.content(wanted, part, node)
        if given is None:
            return await self._whole(request, exchange, _NOTHING)
        if isinstance(given, Elsewhere):
            told = _told("elsewhere", ELSEWHERE, nodes=list(given.urls))
            return await self._whole(request, exchange, told)
        try:
            return await self._stream(request, exchange, given)
        finally:
            given.close()

    async def _stream(
        self, request: web.BaseRequest, exchange: Exchange, given: Given
    ) -> web.StreamResponse:
        size = given.size
        try:
            part = parse_range(request.headers.get(hdrs.RANGE), size)
        except RangeInvalid:
            unsatisfied = {hdrs.CONTENT_RANGE: format_unsatisfied(size), **_JSON}
            answer = _Answer("nothing", 416, b"{}", unsatisfied)
            return await self._whole(request, exchange, answer)
        status, start, stop = 200, 0, size
        headers: dict[str, str] = dict(_BYTES)
        if part is not None and part.stop is not None:
            status, start, stop = 206, part.start, part.stop
            headers[hdrs.CONTENT_RANGE] = str(ContentRange(start, stop, size))
        if request.method == hdrs.METH_HEAD:
            headers[hdrs.CONTENT_LENGTH] = str(stop - start)
            return await self._responder.whole(request, exchange, status, headers, None)
        result = "cut"
        try:
            sent = await self._responder.content(
                request, exchange, status, headers, given.content, start, stop
            )
            if exchange.sent == stop - start:
                result = "growing" if given.growing else "here"
            return sent
        finally:
            self._events.emit(PeerAnswered(result, exchange.sent))

    async def _whole(
        self, request: web.BaseRequest, exchange: Exchange, answer: _Answer
    ) -> web.StreamResponse:
        if answer.result not in ("lives", "refused"):
            self._events.emit(PeerAnswered(answer.result))
        return await self._responder.whole(
            request, exchange, answer.status, answer.headers, answer.body
        )

    def _refused(self, exchange: Exchange, error: Refused) -> _Answer:
        self._events.emit(PeerAnswered("refused", reason=error.reason))
        now = self._clock.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + _TOLD
            log.warning("peer_refused", client=exchange.client, reason=str(error))
        return _told("refused", 401, error=str(error))


def parse_content(path: str) -> Wanted | None:
    """What is asked for; None where that is no content's path, in its one form."""
    if not path.startswith(CONTENT_PATH):
        return None
    registry, _, digest = path.removeprefix(CONTENT_PATH).partition("/")
    try:
        if not is_registry(registry) or parse_registry(registry) != registry:
            return None
        return Wanted(registry, Digest.parse(digest))
    except (BadRequest, DigestInvalid):
        return None
