"""The upkeep of a store: its account is mended, old files are forgotten, rot is looked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import apsw
import structlog

from ...contracts.events import ContentLost, UpkeepEnded
from ...events import Events
from ...frozen import dataclass
from ...oci.digest import ALGORITHMS, Digest
from ...oci.errors import DigestInvalid
from ..sqlite_files import Identity
from .files import words
from .index import Exceeded
from .ingest_key import FOLDERS, IngestKey, PartialKey, SessionKey
from .left_partials import left, remove
from .partial import held
from .store import DiskContent

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class UpkeepPolicy:
    """In seconds, and bytes a second.

    `partial_ttl`: how long a download that was given up is kept for resuming. `every`:
    between two rounds of tidying. `look`: between two looks at what processes that were killed have
    reserved. `scrub`: within which time all content is rehashed, at most at
    `scrub_speed`; 0: never.
    """

    partial_ttl: float = 24 * 3600.0
    every: float = 60.0
    look: float = 5.0
    scrub: float = 7 * 86400.0
    scrub_speed: float = 32 << 20


_QUARANTINE = 0.05  # of the store's size
_QUARANTINED_FOR = 30 * 86400  # seconds
_PAGE = 500  # rows
_DIRECTORIES = 256  # of content, each named by the first two digits of what is in it
_LEFT_FOR = 3600.0  # seconds: far longer than any such file lives


@dataclass(frozen=True, slots=True)
class _Unequal:
    """Records that have neither a file nor a row; files, and rows, that have no record."""

    lost: list[Digest]
    files: list[Digest]
    rows: list[Digest]


class Upkeep:
    """The background work of one node's store: one process does it, however many serve."""

    def __init__(
        self, store: DiskContent, policy: UpkeepPolicy, events: Events | None = None
    ) -> None:
        self._events = events or Events()
        self._store = store
        self._policy = policy
        # The databases that were found in order last: the index, and small content.
        self._mended: tuple[Identity | None, Identity | None] | None = None

    async def run(self) -> None:
        """Until cancelled. Its faults are logged; it raises nothing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy_for_ever())
            if self._policy.scrub:
                group.create_task(self._scrub_for_ever())

    async def mend(self) -> None:
        """After a crash: records without a file go, files without a record are proven, and what is
        reserved for a partial is what it holds."""
        store, index = self._store, self._store.async_index.index
        unknown: list[tuple[str, int, int]] = []
        for algorithm in ALGORITHMS:
            following = 0
            while following < _DIRECTORIES:
                begin = following
                following, found = await store.on_files(self._compared, algorithm, begin)
                for at in range(0, len(found.lost), _PAGE):
                    lost = found.lost[at : at + _PAGE]
                    await store.async_index.note(index.remove, lost)
                    for digest in lost:
                        self._events.emit(ContentLost(digest))
                if found.files or found.rows:
                    unknown.append((algorithm, begin, following))
        # Once all of those have gone: a file that is taken into an account of what is not there any
        # more may be too much for it, and what was not used for longest would go.
        for algorithm, following, end in unknown:
            while following < end:
                following, found = await store.on_files(self._compared, algorithm, following)
                for digest in found.files:
                    await self._adopt(digest)
                for at in range(0, len(found.rows), _PAGE):
                    await store.adopt_rows(found.rows[at : at + _PAGE])
        # What was in it is fetched again, and it counts against no size.
        await store.on_files(store.small.forget_set_aside)
        await self.settle()

    async def settle(self) -> None:
        """What is reserved is what is there, but for partials with a writer: one that was killed
        has left its lock, and not what it had reserved."""
        for path in await self._partials():
            await self._store.on_files(self._account, path)
        await self._settle_reservations()

    async def tidy(self) -> None:
        """Forgets old partials and what is in quarantine, and evicts down to the marks."""
        store = self._store
        await store.on_files(self._empty_quarantine)
        await store.on_files(store.small.give_back)
        await store.on_files(self._sweep)
        for path in await self._partials():
            key = await store.on_files(self._forget, path)
            if key is not None:
                log.info("partial_forgotten", partial=str(key))
                await store.space.release(key)
        await self.settle()
        await store.space.tidy()

    async def _partials(self) -> list[Path]:
        folders = [self._store.root / "partials" / folder for folder in FOLDERS]
        return [path for each in folders for path in await self._store.on_files(_sorted, each)]

    async def _adopt(self, digest: Digest) -> None:
        """Takes a file without a record into the account, once it is proven."""
        if (content := await self._store.open(digest)) is not None:
            content.close()

    async def _settle_reservations(self) -> None:
        """Gives back what is reserved for nothing. A process that was killed in the moment in
        which it gave content its name has left that without a record."""
        store, index = self._store, self._store.async_index.index
        for key in await store.async_index.ask(index.reservations):
            if not await store.on_files(store.ingest.path(key).exists):
                if isinstance(key, IngestKey) and (
                    await store.async_index.ask(index.size, key.digest) is None
                ):
                    await self._adopt(key.digest)
                await store.space.release(key)

    def _sweep(self) -> None:
        """Removes what killed processes have left of files that live for a moment. Blocking."""
        before = time.time() - _LEFT_FOR
        for pattern in ("login-*.json.*", ".probe-*"):
            for path in self._store.root.glob(pattern):
                with contextlib.suppress(OSError):
                    if path.lstat().st_mtime < before:
                        path.unlink()
        for path in self._store.root.glob("partials/*/*.ahead"):
            partial = path.with_suffix("")
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < before and not partial.exists():
                    path.unlink()

    def _empty_quarantine(self) -> None:
        """Removes what has been in quarantine for long, or is beyond a bound: it is there to be
        looked at, and counts against no size. Blocking."""
        left = int(self._store.space.bounds.max_size * _QUARANTINE)
        since = time.time_ns() - _QUARANTINED_FOR * 10**9
        for path in sorted(_sorted(self._store.root / "quarantine"), key=_set_aside, reverse=True):
            with contextlib.suppress(OSError):
                size = path.lstat().st_size
                if size > left or _set_aside(path) < since:
                    path.unlink()
                else:
                    left -= size

    async def scrub(self) -> AsyncIterator[tuple[Digest, bool]]:
        """Rehashes all content, without haste; tells of each piece whether it is sound."""
        async for digest, size in self._files():
            sound = await self._store.verify(digest)
            if sound is not None:
                yield digest, sound
            await asyncio.sleep(size / self._policy.scrub_speed)

    async def _files(self) -> AsyncIterator[tuple[Digest, int]]:
        """What is on the disk, recorded or not, with its size in bytes."""
        async for page in self._rows():
            for row in page:
                yield row
        async for directory, digests in self._directories():
            for digest in digests:
                with contextlib.suppress(OSError):
                    path = directory / digest.hex
                    yield digest, (await self._store.on_files(path.lstat)).st_size

    async def _directories(self) -> AsyncIterator[tuple[Path, list[Digest]]]:
        """The directories of content, each with the digests that its files are named by."""
        for algorithm in ALGORITHMS:
            root = self._store.root / "blobs" / algorithm
            for directory in await self._store.on_files(_sorted, root):
                yield directory, await self._store.on_files(_content, directory, algorithm)

    async def _rows(self) -> AsyncIterator[list[tuple[Digest, int]]]:
        """Small content in pages, with its sizes in bytes."""
        after = ""
        while page := await self._store.on_files(self._store.small.page, after, _PAGE):
            yield page
            after = str(page[-1][0])

    def _compared(self, algorithm: str, begin: int) -> tuple[int, _Unequal]:
        """What the account has of some directories of content, and what is there; and the number of
        the directory that follows. Blocking. Names are compared as text, all of a directory
        together: to look for each would take longer than all else at a start."""
        store, index = self._store, self._store.async_index.index
        unequal = _Unequal([], [], [])
        seen = 0
        while begin < _DIRECTORIES and seen < _PAGE:
            prefix = f"{algorithm}:{begin:02x}"
            recorded = index.recorded(prefix)
            rows = store.small.among(prefix)
            names = _names(store.root / "blobs" / algorithm / f"{begin:02x}")
            files = {f"{algorithm}:{name}" for name in names}
            # What has come or gone since the account was read is looked at once more.
            lost = (Digest.parse(name) for name in sorted(recorded - rows - files))
            unequal.lost.extend(digest for digest in lost if not store.is_here(digest))
            for found, others in (
                (unequal.files, files - rows - recorded),
                (unequal.rows, rows - recorded),
            ):
                found.extend(digest for digest in _digests(others) if index.size(digest) is None)
            seen += len(recorded | rows | files)
            begin += 1
        return begin, unequal

    async def _tidy_for_ever(self) -> None:
        while True:
            # At the start, and when the account, or small content, was begun anew or, after a time
            # in memory, is that of the disk again.
            index = self._store.async_index.index
            if (found := (index.database.identity, self._store.small.identity)) != self._mended:
                self._mended = found
                await self._surviving("mend", self.mend)
            await self._surviving("tidy", self.tidy)
            for _ in range(max(1, round(self._policy.every / self._policy.look))):
                await asyncio.sleep(min(self._policy.look, self._policy.every))
                await self._surviving("settle", self.settle)

    async def _scrub_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._policy.scrub / 100)
            started = time.monotonic()
            await self._surviving("scrub", self._scrub)
            took = time.monotonic() - started
            await asyncio.sleep(max(0.0, self._policy.scrub - took))

    async def _scrub(self) -> None:
        count = 0
        async for _ in self.scrub():
            count += 1
        log.info("content_scrubbed", pieces=count)

    async def _surviving(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        went_well = False
        try:
            await work()
            went_well = True
        except (OSError, apsw.Error) as error:  # a disk that fails: it is tried again
            log.error("upkeep_failed", work=name, reason=words(error))
        except Exception:
            log.exception("upkeep_failed", work=name)
        self._events.emit(UpkeepEnded(name, time.time(), went_well))

    def _forget(self, path: Path) -> PartialKey | None:
        """Removes a partial that is old, and has no writer. Blocking."""
        try:
            if time.time() - path.lstat().st_mtime < self._policy.partial_ttl:
                return None
        except FileNotFoundError:
            return None
        with left(path) as found:
            if found is None:
                return None
            remove(path)
            return found[0]

    def _account(self, path: Path) -> None:
        """Reserves what a partial without a writer holds: its writer, or the account, may
        have been killed. It goes where that is nothing, or finds no room. Blocking."""
        with left(path) as found:
            if found is None:
                return
            key, size = found
            index, taken = self._store.async_index.index, held(path)
            known = index.held(key)
            if size and known == index.taken(taken):
                return
            if not size and isinstance(key, SessionKey):  # whose first bytes are yet to come
                if known:
                    self._store.async_index.note_here(index.release, key)
                return
            try:
                if size and taken <= known:
                    self._store.async_index.ask_here(index.keep, key, taken)
                    return
                if size:
                    self._store.async_index.ask_here(index.reserve, key, taken, None)
                    return
            except Exceeded as error:
                log.info(
                    "partial_forgotten",
                    partial=str(key),
                    reason=f"{error.lacking} bytes too many",
                )
            remove(path)


def _set_aside(path: Path) -> int:
    """When a file was put into quarantine, in nanoseconds since the epoch: its name ends so."""
    moment = path.name.rpartition(".")[2]
    return int(moment) if moment.isdecimal() else 0


def _sorted(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _names(directory: Path) -> set[str]:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()


def _content(directory: Path, algorithm: str) -> list[Digest]:
    return _digests({f"{algorithm}:{name}" for name in _names(directory)})


def _digests(names: Iterable[str]) -> list[Digest]:
    """Of these, those that are digests, in their order."""
    found = []
    for name in sorted(names):
        with contextlib.suppress(DigestInvalid):
            found.append(Digest.parse(name))
    return found
