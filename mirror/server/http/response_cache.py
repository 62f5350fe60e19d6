"""Small answers that were given a moment ago, given again for the price of a look-up.

A hit that goes the ordinary way (aiohttp's parser, its task and response, the handler, the cache's
rooms) costs 250 µs; of those who ask, most ask for what was asked just before: a fleet that rolls
out one image. When the bytes that arrive are one whole plain request, and its answer is in the
table, the answer is written at once, and no more is asked. Everything else goes the ordinary way,
untouched, and what that answers with a hit is put into the table. The table takes nothing but a
PublicAnswer, and a request with credentials finds nothing in it.

Whole answers are kept by the bytes of the request, for what is left of the second that their Date
names. So an answer from here has a request id only where the client has sent one: with ids of the
mirror's own no two would be the same, and there is nothing in them to be traced.

Nothing has to be told to the table when mirrored content or a tag changes: an entry lives for
seconds, a tag's for a quarter of one, and never beyond the moment at which its Age or its freshness
ends. An entry of a repository of one's own asks each time whether anything has changed there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import hdrs

from ...clock import Clock
from ..v2.access_log import AccessLog, Hit, product, written
from .browsers import BROWSER
from .public_answers import Asked, PublicAnswer
from .request_ids import HEADER, is_id

LARGEST = 64 << 10
"""Bytes of a body: a larger one costs more to send than to find, and may not go in one write."""

_TABLE_BYTES = 16 << 20
_READY_BYTES = 4 << 20
_HEADS = 2048  # different heads remembered; Docker sends its Accept fields in any order
_LONGEST_HEAD = 2048

_CONTENT_LIFE = 10.0  # seconds; what a digest names does not change, but may be denied or evicted
# All nodes are to agree within a second on what is frozen (see TagStore.freeze), of which a tag
# memory's own copy takes up to three quarters.
_TAG_LIFE = 0.25
# Of what is hosted. What changes on this host is seen at once, on others that share the records
# when this is over: all have to have it within seconds that somebody may not read any more.
_HOSTED_LIFE = 1.0

# Of an answer's life: after this part of it one request renews it. When all that are under way find
# it over together, the last of them waits for all.
_RENEWED = 0.75

_END = b"\r\n\r\n"
_FIELD = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ ]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_LINE = re.compile(r"/[\x21-\x7e]*")

# What leaves the answer as it is. Any other field, and whatever is no such line, goes the ordinary
# way: conditions, ranges, credentials, bodies, and all that browsers send (see browsers.py).
_OF_NO_ACCOUNT = frozenset((b"accept", b"accept-encoding"))
_REQUEST_ID = HEADER.lower().encode()
_TRACEPARENT = b"traceparent:"
_ONCE = frozenset((b"host", b"user-agent", b"connection", b"if-none-match", _REQUEST_ID))


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a plain request, as far as they are of account."""

    host: bytes
    closes: bool
    """The client wants the connection to end with the answer (`Connection: close`)."""
    if_none_match: bytes
    words: str
    """The client's, for the log."""
    echoed: bytes = b""
    """The line of the answer that repeats the client's request id; b"" where it sent none."""


def read_fields(lines: bytes) -> Fields | None:
    """Reads all lines of a head behind its first; None when the request is not plain.

    >>> read_fields(b"Host: m\\r\\nConnection: close\\r\\n\\r\\n").closes
    True
    >>> read_fields(b"Host: m\\r\\nRange: bytes=0-\\r\\n\\r\\n")
    """
    if len(lines) > _LONGEST_HEAD or not lines.endswith(_END):
        return None
    found: dict[bytes, bytes] = {}
    for line in lines[: -len(_END)].split(b"\r\n"):
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name = field[1].lower()
        if name in _OF_NO_ACCOUNT:
            continue
        if name not in _ONCE or name in found:
            return None
        found[name] = field[2]
    connection = found.get(b"connection", b"keep-alive").lower()
    if b"host" not in found or connection not in (b"close", b"keep-alive"):
        return None
    agent = product(found.get(b"user-agent", b"").decode("ascii"))
    request_id = found.get(_REQUEST_ID, b"").decode("ascii")
    if agent.startswith(BROWSER) or (_REQUEST_ID in found and not is_id(request_id)):
        return None
    return Fields(
        found[b"host"],
        connection == b"close",
        found.get(b"if-none-match", b""),
        written(agent=agent, request_id=request_id),
        f"{HEADER}: {request_id}\r\n".encode() if request_id else b"",
    )


def is_bare(data: bytes) -> bool:
    """Whether these bytes are one whole head, and no body follows it: a parser that was given them
    is as it was before. Of other methods it may wait for more (PRI is HTTP/2's first half)."""
    if not data.startswith((b"GET ", b"HEAD ")) or data.find(_END) != len(data) - len(_END):
        return False
    lower = data.lower()
    return not any(
        name in lower for name in (b"\ncontent-length", b"\ntransfer-encoding", b"\nupgrade")
    )


@dataclass(slots=True)
class _Prepared:
    """An answer but for its Date. `not_modified`: the head for who has it already, b"" where such
    a request goes the ordinary way. `until` is monotonic, in seconds; from `renew_at` on, one
    request goes the ordinary way to renew it, and the others are not kept from this one."""

    head: bytes
    body: bytes
    etag: bytes
    not_modified: bytes
    renew_at: float
    until: float
    asked: Asked
    method: str
    still: Callable[[], bool] | None = None
    """Whether it is the answer still; None: nothing but time changes that."""
    told: Hit | None = None
    told_not_modified: Hit | None = None
    """Made when there is one to tell: most of what is prepared is asked for once."""

    def hit(self) -> Hit:
        if self.told is None:
            self.told = self.asked.told(self.method, 200, len(self.body))
        return self.told

    def hit_not_modified(self) -> Hit:
        if self.told_not_modified is None:
            self.told_not_modified = self.asked.told(self.method, 304, 0)
        return self.told_not_modified


class Answer(NamedTuple):
    """Bytes for the socket, and whether the connection ends with them."""

    data: bytes
    closes: bool


class Ready:
    """What one request, as its bytes came, is answered with for the rest of this second. `words`
    are the client's, for the log; `clients`: the addresses of those whom this turn has answered."""

    __slots__ = ("clients", "closes", "data", "hit", "words")

    def __init__(self, data: bytes, closes: bool, hit: Hit, words: str) -> None:
        self.data, self.closes = data, closes
        self.hit, self.words = hit, words
        self.clients = list[str]()

    def after(self, sent: int) -> Answer:
        """What is left of the answer when so many bytes have left."""
        return Answer(self.data[sent:], self.closes)


class ResponseCache:
    """The table of prepared answers. `log` is where they are noted.

    Who has many requests at once answers them in one turn: what depends on the time is looked at
    when the turn begins, and what was answered is noted when it ends. Nothing is awaited in one.
    """

    def __init__(self, log: AccessLog, clock: Clock | None = None, is_traced: bool = False) -> None:
        """`is_traced`: requests that are part of a client's trace go the ordinary way."""
        self._log = log
        self._is_traced = is_traced
        clock = clock or Clock()
        self._wall, self._monotonic = clock.wall, clock.monotonic
        self._prepared: dict[tuple[bytes, bytes], _Prepared] = {}
        self._bytes = 0
        self._has_ended = False
        self._fields: dict[bytes, Fields | None] = {}
        self.ready: dict[bytes, Ready] = {}
        """By the request's bytes, for this turn: what is here need not be looked for."""
        self._ready_bytes = 0
        self._ready_until = 0.0  # monotonic
        self._turn: list[Ready] = []
        self._began = self._now = 0.0
        self._next_second = 0
        self._ends = (b"", b"")

    def answer(self, data: bytes, client: str) -> Answer | None:
        """The answer to these bytes, if they are a request that is answered here: it is noted, and
        has to be sent. `client` is an address. A turn of its own."""
        self.begin_turn()
        ready = self.ready.get(data) or self.find(data)
        if ready is not None:
            self.note(ready, client)
        self.end_turn()
        return None if ready is None else Answer(ready.data, ready.closes)

    def begin_turn(self) -> None:
        """Begins a turn."""
        self._began, self._now = self._monotonic(), self._wall()
        if not self._next_second - 1 <= self._now < self._next_second:
            self._new_second(self._now)
            self._drop_ready()
        elif self._began >= self._ready_until:
            self._drop_ready()

    def find(self, data: bytes) -> Ready | None:
        """What answers these bytes, if they are a request that is answered here. It has to be noted
        and sent."""
        line, _, lines = data.partition(b"\r\n")
        try:
            fields = self._fields[lines]
        except KeyError:
            fields = self._read(lines)
        if fields is None:
            return None
        prepared = self._prepared.get((line, fields.host))
        if prepared is None or (prepared.still is not None and not prepared.still()):
            return None
        if self._began >= prepared.renew_at:
            prepared.renew_at = prepared.until
            return None
        if fields.if_none_match:
            if fields.if_none_match != prepared.etag or not prepared.not_modified:
                return None
            told, head, body = prepared.hit_not_modified(), prepared.not_modified, b""
        else:
            told, head, body = prepared.hit(), prepared.head, prepared.body
        end = fields.echoed + self._ends[fields.closes]
        ready = Ready(head + end + body, fields.closes, told, fields.words)
        # Of a request with an id of its own there is no second.
        if prepared.still is None and not fields.echoed:
            self._make_ready(data, ready, prepared.renew_at)
        return ready

    def note(self, ready: Ready, client: str) -> None:
        """It is sent to this client."""
        if not ready.clients:
            self._turn.append(ready)
        ready.clients.append(client)

    def end_turn(self) -> None:
        """Notes what was answered since the turn began, each with its part of the time."""
        turn = self._turn
        if not turn:
            return
        self._turn = []
        took = (self._monotonic() - self._began) / sum([len(ready.clients) for ready in turn])
        for ready in turn:
            clients, ready.clients = ready.clients, []
            self._log.note_hits(ready.hit, clients, took, ready.words, self._now)

    def put(self, answer: PublicAnswer, still: Callable[[], bool] | None = None) -> None:
        """Puts into the table what a GET was answered with; where the answer has headers for who
        has it already, HEAD and If-None-Match of it too. `still`: it is given as long as this
        says so, which is asked each time."""
        target, host, body = answer.asked.target, answer.asked.host, answer.body
        if self._has_ended or len(body) > LARGEST or (still is not None and not still()):
            return
        if not _LINE.fullmatch(target) or not host.isascii():
            return
        self._drop_ready()
        most = _CONTENT_LIFE if still is None else _HOSTED_LIFE
        if answer.life is not None:
            most = min(answer.life, _TAG_LIFE)
        now = self._monotonic()
        renew_at, until = now + most * _RENEWED, now + most
        head = _head(200, {"Content-Length": str(len(body)), **answer.headers})
        etag = answer.headers[hdrs.ETAG].encode()
        other = b"" if answer.not_modified is None else _head(304, answer.not_modified)
        kinds = {"GET": body} if answer.not_modified is None else {"GET": body, "HEAD": b""}
        for method, sent in kinds.items():
            key = (f"{method} {target} HTTP/1.1".encode(), host.encode())
            self._forget(key)
            self._prepared[key] = _Prepared(
                head, sent, etag, other, renew_at, until, answer.asked, method, still
            )
            self._bytes += _cost(key, self._prepared[key])
        while self._bytes > _TABLE_BYTES:
            self._forget(next(iter(self._prepared)))

    def clear(self) -> None:
        """What was answered until now may not be the answer any more."""
        self._prepared.clear()
        self._bytes = 0
        self._drop_ready()

    def end(self) -> None:
        """Answers nothing from now on."""
        self._has_ended = True
        self.clear()

    def _make_ready(self, data: bytes, ready: Ready, until: float) -> None:
        self._ready_bytes += len(data) + len(ready.data)
        if self._ready_bytes > _READY_BYTES:
            self._drop_ready()
            return
        self.ready[data] = ready
        self._ready_until = min(self._ready_until, until)

    def _drop_ready(self) -> None:
        self.ready.clear()
        self._ready_bytes, self._ready_until = 0, math.inf

    def _forget(self, key: tuple[bytes, bytes]) -> None:
        old = self._prepared.pop(key, None)
        if old is not None:
            self._bytes -= _cost(key, old)

    def _read(self, lines: bytes) -> Fields | None:
        if len(self._fields) >= _HEADS:
            self._fields.clear()
        if self._is_traced and _TRACEPARENT in lines.lower():
            return None
        fields = read_fields(lines)
        # Of a request with an id of its own there is no second.
        if len(lines) <= _LONGEST_HEAD and not (fields is not None and fields.echoed):
            self._fields[lines] = fields
        return fields

    def _new_second(self, now: float) -> None:
        """Makes the ends of a head: what depends on when and to whom it is sent."""
        date = f"Date: {formatdate(now, usegmt=True)}\r\n".encode()
        self._ends = (date + b"\r\n", date + b"Connection: close\r\n\r\n")
        self._next_second = int(now) + 1


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _cost(key: tuple[bytes, bytes], prepared: _Prepared) -> int:
    """About the bytes that it takes. A client chooses how long its key is."""
    return sum(map(len, (*key, prepared.head, prepared.body, prepared.not_modified))) + 1024
