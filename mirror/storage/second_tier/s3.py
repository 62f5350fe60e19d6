"""A bucket of an S3-compatible store as a second tier.

    <prefix><algorithm>/<2 hex>/<hex>   content, as an object that is never replaced

Servers differ in what they hold to. `If-None-Match: *` is the one condition that all know: of
several that put the same content, one wins. Ceph's gateway ignores it at the end of a multipart
upload, so that there the content is looked for first. An upload that is cancelled, or whose file
cannot be read, is aborted: else its parts would stay, and be paid for, without being seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from ...clock import Clock
from ...contracts.files import OpenFile
from ...contracts.second_tier import SecondTierFault
from ...events import Events
from ...oci.digest import Digest
from ...oci.ranges import ByteRange
from ...threads import aside
from ...times import STORES
from .bucket import FAILURES, Bucket, has_answered, is_away, reason_of
from .health import Health

log = structlog.get_logger()

_OUTSIDE = re.compile("status code: 416")  # of a range behind the end
_PIECE = 1 << 20
_LEAST_PIECE = 512 << 10  # as they come, they are of some 100 KiB: each costs a way to the loop
_PART = 16 << 20  # of an upload; a smaller content goes in one request
_MOST_PARTS = 10_000  # that S3 takes
_PARTS_AT_ONCE = 3
_LARGE_AT_ONCE = 2  # uploads in parts: each holds its parts in memory
_SLOWEST = 1 << 20  # bytes/s, below which an upload is given up
_REST = 0.2  # seconds
_ATTRIBUTES = {"Content-Type": "application/octet-stream"}


def name_of(digest: Digest) -> str:
    """The object of a content, below the prefix."""
    return f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


class S3Tier:
    """A SecondTier."""

    def __init__(
        self, bucket: Bucket, events: Events | None = None, clock: Clock | None = None
    ) -> None:
        self._store: S3Store = bucket.opened()
        self._health = Health(events or Events(), clock or Clock())
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._uploads: dict[asyncio.Task[bool], _Source] = {}
        self._is_closed = False

    async def get(self, digest: Digest, range: ByteRange | None = None) -> S3Stream | None:
        if self._health.rests:
            raise SecondTierFault("it was away a moment ago")
        options: obstore.GetOptions = {}
        if range is not None and range.stop is not None:
            options["range"] = (range.start, range.stop)
        elif range is not None:
            options["range"] = {"offset": range.start}
        try:
            async with asyncio.timeout(STORES.far_answer):
                found = await obstore.get_async(self._store, name_of(digest), options=options)
        except FAILURES as error:
            self._tell("get", error)
            if _is_absence(error):
                return None
            raise SecondTierFault(reason_of(error)) from error
        self._health.worked("get")
        return S3Stream(found)

    async def put(self, digest: Digest, file: OpenFile, size: int) -> bool:
        """As the contract has it. What is there already stays, and counts as kept if its size is
        right."""
        if self._is_closed or self._health.rests:
            return False
        try:
            source = _Source(file.again(), size)  # the caller may be cancelled, and close it
        except OSError as error:
            _unreadable(digest, error)
            return False
        task = asyncio.create_task(self._put(digest, source))
        self._uploads[task] = source
        task.add_done_callback(self._over)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            source.give_up()
            raise

    async def contains(self, digest: Digest) -> bool:
        if self._health.rests:
            return False
        try:
            is_there = await self._size(name_of(digest)) is not None
        except FAILURES as error:
            self._tell("look", error)
            return False
        self._health.worked("look")
        return is_there

    async def close(self) -> None:
        """Uploads are given up. obstore's threads are given the time to come to rest: a process
        that ends while they hand something to Python may abort."""
        self._is_closed = True
        for source in self._uploads.values():
            source.give_up()
        if self._uploads:
            await asyncio.wait(self._uploads, timeout=_REST)
        await asyncio.sleep(_REST)

    def _over(self, task: asyncio.Task[bool]) -> None:
        self._uploads.pop(task).close()
        _looked_at(task)  # the caller may have been cancelled

    async def _put(self, digest: Digest, source: _Source) -> bool:
        name = name_of(digest)
        try:
            if source.size <= _PART:
                kept = await self._put_whole(name, source)
            else:
                async with self._large:
                    kept = await self._put_parts(name, source)
        except FAILURES as error:
            if source.fault is None:
                self._tell("put", error)
            elif not source.is_given_up:
                _unreadable(digest, source.fault)
            return False
        self._health.worked("put")
        return kept

    async def _put_whole(self, name: str, source: _Source) -> bool:
        data = await aside(source.whole)
        with contextlib.suppress(AlreadyExistsError):
            async with asyncio.timeout(STORES.far_answer + source.size / _SLOWEST):
                await obstore.put_async(
                    self._store, name, data, mode="create", attributes=dict(_ATTRIBUTES)
                )
                return True
        return await self._is_right(name, source.size)

    async def _put_parts(self, name: str, source: _Source) -> bool:
        if await self._size(name) is None:
            uploading = asyncio.ensure_future(
                obstore.put_async(
                    self._store,
                    name,
                    iter(source),
                    attributes=dict(_ATTRIBUTES),
                    chunk_size=max(_PART, -(-source.size // _MOST_PARTS)),
                    max_concurrency=_PARTS_AT_ONCE,
                )
            )
            source.is_read_by(uploading)
            try:
                async with asyncio.timeout(STORES.far_answer + source.size / _SLOWEST):
                    await asyncio.shield(uploading)
            except TimeoutError:
                source.give_up()  # cancelled, it would leave its parts
                raise
        return await self._is_right(name, source.size)

    async def _is_right(self, name: str, size: int) -> bool:
        found = await self._size(name)
        if found != size:
            log.warning("second_tier_has_another_size", name=name, size=found, wanted=size)
        return found == size

    async def _size(self, name: str) -> int | None:
        """Of an object; None where there is none. Raises FAILURES."""
        try:
            async with asyncio.timeout(STORES.far_answer):
                return int((await obstore.head_async(self._store, name))["size"])
        except FileNotFoundError:
            return None

    def _tell(self, operation: str, error: BaseException) -> None:
        if _is_absence(error):
            self._health.worked(operation)
        else:
            # One that takes no more, as it is full, may be read all the same.
            rests = not has_answered(error) if operation == "put" else is_away(error)
            self._health.failed(operation, reason_of(error), rests)


def _is_absence(error: BaseException) -> bool:
    """Whether the store has answered that it has no such object, or no byte of that range."""
    if isinstance(error, FileNotFoundError):
        return "NoSuchBucket" not in str(error)
    return _OUTSIDE.search(str(error)) is not None


class S3Stream:
    """A TierStream."""

    def __init__(self, found: obstore.GetResult) -> None:
        self.size = int(found.meta["size"])
        self.start, self._stop = found.range
        self._position = self.start
        is_small = self._stop - self.start <= _PIECE  # which comes at once, by one way to the loop
        self._bring: Callable[[], Awaitable[bytes | obstore.Bytes]] | None = (
            found.bytes_async if is_small else found.stream(_LEAST_PIECE).__anext__
        )
        self._reading: asyncio.Future[bytes | obstore.Bytes] | None = None
        self._rest = b""  # of a piece that was too large

    async def read(self) -> bytes:
        if not self._rest:
            self._rest = await self._next()
        piece, self._rest = self._rest[:_PIECE], self._rest[_PIECE:]
        self._position += len(piece)
        return piece

    async def _next(self) -> bytes:
        if self._bring is None or self._position >= self._stop:
            return b""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._bring())
        try:
            piece = await asyncio.shield(self._reading)
            self._reading = None  # not where this was cancelled: the piece may be there by now
        except StopAsyncIteration:
            raise SecondTierFault("the object has become shorter") from None
        except FAILURES as error:
            raise SecondTierFault(reason_of(error)) from error
        return bytes(piece)

    async def close(self) -> None:
        # It has the connection, with what the store has sent: whoever may still have to reject what
        # was read keeps this object for as long as a download lasts.
        self._bring = None
        if self._reading is not None:
            self._reading.add_done_callback(_looked_at)
            self._reading.cancel()
            self._reading = None


class _GivenUp(OSError):
    """Nobody wants this upload any more."""


class _Source:
    """The first `size` bytes of a file, for obstore, which reads them on a thread of its own. What
    it raises aborts the upload."""

    def __init__(self, file: OpenFile, size: int) -> None:
        self.size = size
        self._file = file
        self.is_given_up = False
        self.fault: OSError | None = None  # why it brings no more
        self._reader: asyncio.Future[obstore.PutResult] | None = None

    def is_read_by(self, upload: asyncio.Future[obstore.PutResult]) -> None:
        """Until it has ended, it may be reading the file, though nobody waits for it."""
        self._reader = upload

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        while at < self.size:
            piece = self._read(min(_PIECE, self.size - at), at)
            at += len(piece)
            yield piece

    def whole(self) -> bytes:
        """Raises OSError."""
        return b"".join(self)

    def give_up(self) -> None:
        self.is_given_up = True

    def close(self) -> None:
        if self._reader is None or self._reader.done():
            self._file.close()
        else:
            self._reader.add_done_callback(self._ended)

    def _ended(self, upload: asyncio.Future[obstore.PutResult]) -> None:
        _looked_at(upload)
        self._file.close()

    def _read(self, count: int, at: int) -> bytes:
        try:
            if self.is_given_up:
                raise _GivenUp("given up")
            piece = self._file.pread(count, at)
            if not piece:
                raise OSError(f"the file ends at {at}, before {self.size}")
        except OSError as error:
            self.fault = error
            raise
        return piece


def _unreadable(digest: Digest, error: OSError) -> None:
    log.warning("second_tier_not_given_a_file", digest=str(digest), reason=str(error))


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Its failure is nobody's to hear of any more."""
    if not future.cancelled():
        future.exception()
