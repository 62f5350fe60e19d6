"""The tag memory of many nodes: Redis, and a memory of this process that stands in for it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from ...clock import Clock
from ...contracts.events import TagStoreFailed
from ...contracts.tags import TagEvent, TagListing, TagRecord, TagStoreError
from ...events import Events
from ...oci.digest import Digest
from ...oci.reference import Repository
from ...redis_url import RedisAccess
from ...times import STORES
from ..redis_client import exchanged, failure_kind, is_other_type, redis_client
from ..shares import ByRepository
from .encoding import decode, encode, known_tag, tag_key
from .health import Health
from .redis_frozen import FrozenTags
from .redis_history import COUNTS, FORGOTTEN, HISTORY, NOTE, forgotten_names, noting, read_event

log = structlog.get_logger()

_PREFIX = "registry-mirror:1:tag:"

# Holds a random name that Redis keeps as long as it keeps its data. When it is gone or another,
# what else is missing was lost with it, and not deleted by another node.
_EPOCH = "registry-mirror:1:epoch"

# Seconds for one exchange with Redis: connecting, TLS and login included.
LIMIT = STORES.redis

# Records remembered here for when Redis does not answer, and writes waiting for its return.
_REMEMBERED = 10_000

# Writes made up in one exchange after Redis came back.
_BATCH = 100

# However long a record is to be kept, it is forgotten within ten years: a bound for nonsense, far
# inside what Redis accepts.
_LONGEST = 10 * 365 * 86400.0


@dataclass(slots=True, eq=False)
class _Kept:
    """A record as remembered here. `expires` by the monotonic clock."""

    record: TagRecord
    expires: float
    epoch: bytes | None  # Redis's when it was known to hold this


class RedisTags:
    """A TagStore in Redis that goes on without it.

    While Redis is away (refuses, hangs, errs, has another password …) reads are answered from what
    this process has seen, at no wait, and writes are kept; a task behind asks again after 0.5 to 5
    seconds, and brings Redis what it missed. Of what is frozen, the last that was seen holds. Only
    `history`, `freeze` and `unfreeze` raise TagStoreError: they are of Redis or of no use.

    Nothing is connected before the first use, so the store can be made with Redis down.
    """

    def __init__(
        self,
        access: RedisAccess,
        events: Events,
        clock: Clock,
        *,
        limit: float = LIMIT,
        pauses: tuple[float, float] = (1.0, 5.0),
    ) -> None:
        """No operation takes longer than `limit`; `pauses` are the shortest and the longest between
        two tries to reach a Redis that is away. All in seconds.

        Raises ValueError, without the password, for a URL of another form.
        """
        self._client: Redis = redis_client(access, limit)
        self._limit = limit
        self._events = events
        self._clock = clock
        self._pauses = pauses
        self._remembered: ByRepository[_Kept] = ByRepository(_REMEMBERED)
        # What Redis has not got yet; None: to be deleted. It goes before what Redis says.
        self._unwritten: ByRepository[_Kept | None] = ByRepository(_REMEMBERED)
        self._frozen = FrozenTags(self._client, self._exchange, self._ask, clock)
        self._reaching = Health("redis", "reach", events)
        # A replica, or a full one, still can be read.
        self._writing = Health("redis", "write", events)
        self._noting = Health("redis", "history", events)
        self._mending: asyncio.Task[None] | None = None
        self._closed = False

    async def get(self, repository: Repository, tag: str) -> TagRecord | None:
        """The record in Redis; what is remembered here while Redis cannot say."""
        key = tag_key(repository, tag)
        if key in self._unwritten:
            return self._current(self._unwritten[key])
        kept = self._remembered.get(key)
        if not self._reaching.ok or self._closed:
            return self._current(kept)
        try:
            record, keep_for, epoch = await self._load(key)
        except TagStoreError as error:
            self._failed("get", error)
            return self._current(self._remembered.get(key))
        if self._remembered.get(key) is not kept:
            pass  # put or deleted meanwhile: that is newer than what Redis said
        elif record is not None:
            self._remembered[key] = _Kept(record, self._clock.monotonic() + keep_for, epoch)
        elif kept is not None and kept.epoch != epoch:
            self._unwritten[key] = kept  # Redis lost it
            self._mend()
            return self._current(kept)
        else:
            self._remembered.pop(key)  # another node deleted it
        return record

    async def put(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        """Remembers for `keep_for` seconds; for none, forgets."""
        if not keep_for > 0:
            await self.delete(repository, tag)
            return
        key = tag_key(repository, tag)
        expires = self._clock.monotonic() + min(keep_for, _LONGEST)
        kept = self._remembered[key] = _Kept(record, expires, None)
        await self._write("put", key, kept)

    async def delete(self, repository: Repository, tag: str) -> None:
        key = tag_key(repository, tag)
        self._remembered.pop(key)
        await self._write("delete", key, None)

    async def page(self, after: str, limit: int) -> TagListing:
        """As Redis has it; a marker is the cursor of a SCAN, which looks at about `limit` of all
        keys of the database, also those of others. Raises TagStoreError, ValueError."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.scan(int(after or 0), match=f"{_PREFIX}*", count=limit)
        following, names = await self._listing(pipeline)
        values: Sequence[bytes | None] = ()
        if names:
            pipeline.mget(names)  # None for what is of another type
            values = await self._listing(pipeline)
        tags = []
        for name, data in zip(names, values, strict=True):
            with contextlib.suppress(UnicodeDecodeError):  # none of ours
                key = name.decode().removeprefix(_PREFIX)
                if data is not None and (tag := known_tag(key, data)) is not None:
                    tags.append(tag)
        return TagListing(tags, str(following) if following else None)

    async def history(self, repository: Repository, tag: str) -> Sequence[TagEvent]:
        """As Redis has it, the newest first. Raises TagStoreError."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.lrange(HISTORY + tag_key(repository, tag), 0, -1)
        (lines,) = await self._ask("get", pipeline)
        if is_other_type(lines):
            return ()
        return tuple(event for line in lines if (event := read_event(line)) is not None)

    async def has_forgotten(self, repository: Repository) -> bool:
        """Raises TagStoreError."""
        pipeline = self._client.pipeline(transaction=False)
        for name in forgotten_names(repository):
            pipeline.zscore(FORGOTTEN, name)
        answers = await self._ask("get", pipeline)
        return any(isinstance(answer, float) for answer in answers)

    async def freeze(self, repository: Repository, tag: str, digest: Digest) -> None:
        """In Redis. Raises TagStoreError."""
        await self._frozen.freeze(tag_key(repository, tag), digest)

    async def unfreeze(self, repository: Repository, tag: str) -> bool:
        """In Redis. Raises TagStoreError."""
        return await self._frozen.unfreeze(tag_key(repository, tag))

    async def frozen(self, repository: Repository, tag: str) -> Digest | None:
        """As Redis said within the last half second, or last when it does not answer."""
        frozen = await self._frozen.all(may_ask=self._reaching.ok)
        return frozen.get(tag_key(repository, tag))

    async def close(self) -> None:
        """Ends the connections; what Redis has not got by then is lost. May be called again."""
        self._closed = True
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
        with contextlib.suppress(Exception):  # nothing is left to be done about it
            async with asyncio.timeout(self._limit):
                await self._client.aclose()

    def _current(self, kept: _Kept | None) -> TagRecord | None:
        if kept is None or kept.expires <= self._clock.monotonic():
            return None
        return kept.record

    async def _write(self, operation: str, key: str, kept: _Kept | None) -> None:
        self._unwritten[key] = kept
        if self._closed or not (self._reaching.ok and self._writing.ok):
            return
        try:
            await self._store([(key, kept)])
        except TagStoreError as error:
            self._failed(operation, error)
        finally:
            if key in self._unwritten:  # it failed, or the caller left
                self._mend()

    async def _load(self, key: str) -> tuple[TagRecord | None, float, bytes | None]:
        """The record, its remaining seconds, and the epoch. Raises TagStoreError."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.get(_PREFIX + key)
        pipeline.pttl(_PREFIX + key)
        pipeline.get(_EPOCH)
        data, milliseconds, epoch = await self._exchange(pipeline)
        if is_other_type(data):
            data = None
        if is_other_type(epoch):
            epoch = None
        for answer in (data, milliseconds, epoch):
            if isinstance(answer, ResponseError):
                raise TagStoreError(failure_kind(answer)) from answer
        record = decode(key, data) if isinstance(data, bytes) else None
        return record, milliseconds / 1000, epoch

    async def _listing(self, pipeline: Pipeline) -> Any:
        """The one answer. Of a user who may get and set, but list nothing, neither reads nor writes
        are taken to fail. Raises TagStoreError."""
        if self._closed:
            raise TagStoreError("closed")
        (answer,) = await self._exchange(pipeline)
        if isinstance(answer, ResponseError):
            raise TagStoreError(failure_kind(answer)) from answer
        return answer

    async def _ask(self, operation: str, pipeline: Pipeline) -> list[Any]:
        """All answers; under our key may lie another type. Raises TagStoreError."""
        if self._closed:
            raise TagStoreError("closed")
        try:
            answers = await self._exchange(pipeline)
            for answer in answers:
                if isinstance(answer, ResponseError) and not is_other_type(answer):
                    raise _Refused(failure_kind(answer)) from answer
        except TagStoreError as error:
            self._failed(operation, error)
            raise
        return answers

    async def _store(self, writes: Sequence[tuple[str, _Kept | None]]) -> None:
        """Writes all in one exchange; without any, finds out whether Redis takes writes.

        Raises TagStoreError, of `_Refused` when Redis answers but will not write.
        """
        now = self._clock.monotonic()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(_EPOCH, secrets.token_hex(8), nx=True)
        pipeline.get(_EPOCH)
        for key, kept in writes:
            milliseconds = 0 if kept is None else int((kept.expires - now) * 1000)
            if kept is not None and milliseconds > 0:
                pipeline.set(_PREFIX + key, encode(key, kept.record), px=milliseconds)
            else:
                pipeline.delete(_PREFIX + key)
        essential = len(pipeline)
        for key, kept in writes:
            if kept is not None:
                pipeline.eval(NOTE, 2, COUNTS, FORGOTTEN, *noting(key, kept.record))
        answers = await self._exchange(pipeline)
        if is_other_type(answers[1]):
            answers[1] = await self._begin_epoch()
        for answer in answers[:essential]:
            if isinstance(answer, ResponseError):
                raise _Refused(failure_kind(answer)) from answer
        self._judge_noting(answers[essential:])
        for key, kept in writes:
            if kept is not None:
                kept.epoch = answers[1]
            if key in self._unwritten and self._unwritten[key] is kept:
                self._unwritten.pop(key)

    async def _begin_epoch(self) -> Any:
        """Overwrites whatever is there. Another node may do so at once: the latest holds."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(_EPOCH, secrets.token_hex(8))
        pipeline.get(_EPOCH)
        return (await self._exchange(pipeline))[1]

    def _judge_noting(self, answers: Sequence[Any]) -> None:
        """A user without the permission for scripts has records all the same."""
        refused = next((each for each in answers if isinstance(each, ResponseError)), None)
        if refused is not None:
            self._noting.failed(failure_kind(refused))
        elif answers:
            self._noting.worked()

    async def _exchange(self, pipeline: Pipeline) -> list[Any]:
        """All answers; of a command that was refused, a ResponseError. Raises TagStoreError."""
        try:
            return await exchanged(pipeline, self._limit)
        except Exception as error:  # whatever the client makes of whatever is at the other end
            raise TagStoreError(failure_kind(error)) from error

    def _failed(self, operation: str, error: TagStoreError) -> None:
        self._events.emit(TagStoreFailed("redis", operation))
        health = self._writing if isinstance(error, _Refused) else self._reaching
        health.failed(str(error))
        if not self._reaching.ok:
            self._frozen.away()
        self._mend()

    def _mend(self) -> None:
        if not self._closed and (self._mending is None or self._mending.done()):
            self._mending = asyncio.get_running_loop().create_task(self._mend_until_well())

    async def _mend_until_well(self) -> None:
        pause, longest = self._pauses
        with contextlib.suppress(Exception):  # those that are idle may be dead, and stay open
            await self._client.connection_pool.disconnect(inuse_connections=False)
        while not (self._reaching.ok and self._writing.ok) or self._unwritten:
            if not (self._reaching.ok and self._writing.ok):
                # Spread, so that many nodes do not fall upon a Redis that has just come back.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
                pause = min(pause * 2, longest)
            operation = "get"
            try:
                await self._load("")
                self._reaching.worked()
                operation = "put"
                await self._store(list(islice(self._unwritten.items(), _BATCH)))
                self._writing.worked()
            except TagStoreError as error:
                self._failed(operation, error)


class _Refused(TagStoreError):
    """Redis is there, but does not write: a replica, a full one, a missing permission."""
