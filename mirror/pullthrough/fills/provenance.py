"""Who brought what of a blob, so that of several sources only the one that lied is blamed.

Bytes of one source that turn out wrong are its fault. Of several, nobody can tell at once whose it
is: then it is remembered what each has brought, as hashes, and the blob comes again over one
connection. Once it is proven, whoever had brought other bytes, or told another size, has lied.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from itertools import zip_longest

import structlog
from cachetools import TTLCache

from ...clock import Clock
from ...contracts.files import OpenFile, hash_span
from ...contracts.upstream import StreamContent
from ...frozen import dataclass
from ...oci.digest import Digest
from ...threads import aside

log = structlog.get_logger()

_MOST_SPANS = 4096  # of one download: of what more there is, nobody is found out
_MOST_BLOBS = 64
_MOST_STATEMENTS = 4  # of one blob that comes wrong again and again
_REMEMBERED_FOR = 3600.0  # seconds

Reject = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that one source brought."""

    start: int
    stop: int
    source: str


class Sources:
    """Those of one download. `strangers`: whether somebody who is not known here had a part in it,
    as when some of the bytes were there before."""

    def __init__(self, strangers: bool) -> None:
        self.strangers = strangers
        self.spans: list[Span] = []
        self.sizes: dict[str, int] = {}
        self.rejects: dict[str, Reject] = {}

    def add(self, stream: StreamContent) -> None:
        """Bytes of this stream are going to be part of the whole."""
        self.rejects[stream.source] = stream.reject
        if stream.descriptor.size is not None:
            self.sizes[stream.source] = stream.descriptor.size

    def brought(self, source: str, start: int, stop: int) -> None:
        last = self.spans[-1] if self.spans else None
        if last is not None and (last.source, last.stop) == (source, start):
            self.spans[-1] = Span(last.start, stop, source)
        elif len(self.spans) < _MOST_SPANS:
            self.spans.append(Span(start, stop, source))

    @property
    def culprit(self) -> str | None:
        """Whose fault it is that the whole is wrong; None: it may have been another's."""
        if self.strangers or len(self.spans) == _MOST_SPANS or len(set(self.sizes.values())) > 1:
            return None
        names = {span.source for span in self.spans} or set(self.rejects)
        return names.pop() if len(names) == 1 else None


@dataclass(frozen=True, slots=True)
class _Statement:
    """What sources said of a blob when it came wrong: its size, and the hash of each span."""

    sizes: dict[str, int]
    spans: Sequence[tuple[Span, bytes]]
    rejects: dict[str, Reject]


class Doubts:
    """The blobs of which several sources brought something wrong."""

    def __init__(self, clock: Clock) -> None:
        self._statements: TTLCache[Digest, list[_Statement]] = TTLCache(
            _MOST_BLOBS, _REMEMBERED_FOR, clock.monotonic
        )

    def __contains__(self, digest: Digest) -> bool:
        """Whether it should come from one source this time."""
        return digest in self._statements

    async def wrong(
        self, digest: Digest, sources: Sources, file: OpenFile | None, reason: str
    ) -> None:
        """It came wrong. `file` has what came; None: it is gone."""
        if sources.culprit is not None:
            sources.rejects[sources.culprit](reason)
            return
        if not sources.rejects:
            return
        spans = [] if file is None else _apart(sources.spans)
        hashes = await _hashed(file, spans)
        statement = _Statement(
            sources.sizes, list(zip(spans, hashes, strict=True)), sources.rejects
        )
        statements = self._statements.get(digest, [])
        self._statements[digest] = [*statements, statement][:_MOST_STATEMENTS]
        log.warning(
            "some_source_sent_wrong_bytes",
            digest=str(digest),
            sources=sorted(sources.rejects),
            reason=reason,
        )

    async def proven(self, digest: Digest, file: OpenFile, size: int) -> None:
        """These are its bytes: finds out who had brought others."""
        for statement in self._statements.pop(digest, ()):
            liars = {source for source, said in statement.sizes.items() if said != size}
            hashes = await _hashed(file, [span for span, _ in statement.spans])
            for (span, wrong), right in zip(statement.spans, hashes, strict=True):
                if wrong != right:
                    liars.add(span.source)
            for liar in liars:
                statement.rejects[liar](f"what it sent of {digest} is not what was proven since")


def _apart(spans: Sequence[Span]) -> list[Span]:
    """Those that overlap no other: what is there of the others may be somebody else's."""
    spans = sorted(spans, key=lambda span: span.start)
    apart, reached = [], 0  # by those before
    for span, following in zip_longest(spans, spans[1:]):
        if span.start >= reached and (following is None or following.start >= span.stop):
            apart.append(span)
        reached = max(reached, span.stop)
    return apart


async def _hashed(file: OpenFile | None, spans: Sequence[Span]) -> list[bytes]:
    """The hash of each of these spans of a file."""
    if file is None or not spans:
        return []
    own = file.again()  # its owner may close it meanwhile
    hashing = aside(_hash_all, own, spans)
    hashing.add_done_callback(lambda _: own.close())
    return await asyncio.shield(hashing)


def _hash_all(file: OpenFile, spans: Sequence[Span]) -> list[bytes]:
    hashes = []
    for span in spans:
        hasher = hashlib.sha256()
        hash_span(hasher, file, span.start, span.stop)
        hashes.append(hasher.digest())
    return hashes
