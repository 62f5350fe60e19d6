"""What is here, as a catalogue: a SQLite database beside the content.

Losing it costs the count of pulls; the rest is noted again from the store and the tag memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw
import structlog

from ...clock import Clock
from ...contracts.catalogue import (
    LONGEST_PAGE,
    CatalogueUnavailable,
    Change,
    ContentEntry,
    ImageEntry,
    ImageUse,
    Leaving,
    Piece,
    Removal,
    RepositoryEntry,
)
from ...oci.digest import Digest
from ...oci.reference import ImageReference, Repository
from ...threads import Threads, aside
from ..shared_database import SharedDatabase
from ..sqlite_files import DAMAGED, Schema, rows
from .catalogue_removal import RemovalWalk
from .catalogue_tables import (
    TABLES,
    CatalogueBounds,
    Writer,
    losses,
    note_loss,
    note_made_good,
)
from .catalogue_walk import IS_IMAGE, Walk, digest_of, key_of

log = structlog.get_logger()

T = TypeVar("T")

_REPOSITORIES = f"""
SELECT repository, count(*), sum(pulls), max(used_at) FROM images
WHERE repository > ? AND {IS_IMAGE} GROUP BY repository ORDER BY repository LIMIT ?
"""  # noqa: S608 - all words of ours

_IMAGES = f"""
SELECT name, repository, tag, images.digest, content.digest, used_at, pulls
FROM images JOIN content ON id = images.digest
WHERE name > ? AND {{of}} AND {IS_IMAGE} ORDER BY name LIMIT ?
"""  # noqa: S608

_USES = f"""
SELECT repository, tag, content.digest, used_at, pulls, images.noted_at
FROM images JOIN content ON id = images.digest WHERE name > ? AND {IS_IMAGE} ORDER BY name LIMIT ?
"""  # noqa: S608

_IMAGE = _IMAGES.format(of="true").replace("name > ?", "name = ?")

_CONTENT = """
SELECT id, digest, size, media_type FROM content
WHERE digest > ? AND size IS NOT NULL ORDER BY digest LIMIT ?
"""


def _check(db: apsw.Connection) -> None:
    """The tables are there, and of our shape."""
    for query, first in ((_REPOSITORIES, ""), (_IMAGES.format(of="true"), ""), (_CONTENT, b"")):
        rows(db, query, first, 0)
    losses(db)


_SCHEMA = Schema((TABLES,), _check)

# Milliseconds that a write waits for another process's (see Patience).
_BUSY_MS = 1000

_PAUSE = 0.02  # seconds between two transactions of many, in which other processes have their turn


class CatalogueRecords:
    """Catalogue and CatalogueNotes (see contracts). Several processes may share the file; open it
    after forking.

    Of too many images those of the registry, and of its repository, that has most are forgotten,
    those that were not used or noted for longest first. Beyond its bound, new content is not taken.
    """

    def __init__(self, path: Path, clock: Clock, bounds: CatalogueBounds | None = None) -> None:
        """Opens or makes the database. Never fails (see SharedDatabase)."""
        self._database = SharedDatabase(path, _SCHEMA, _BUSY_MS, clock, what="catalogue")
        self._bounds = bounds or CatalogueBounds()
        self._untidied = self._bounds.tidy_every  # at the first change
        self._is_full = False
        self._well = True
        self._writing = Threads(1, "catalogue")
        self._reading = Threads(1, "catalogue_pages")

    async def repositories(self, after: str, limit: int) -> Sequence[RepositoryEntry]:
        return await self._read(self._repositories, after, limit)

    async def images(
        self, after: str, limit: int, repository: Repository | None = None
    ) -> Sequence[ImageEntry]:
        return await self._read(self._images, after, limit, repository)

    async def count_images(self) -> int:
        """How many there are. Raises CatalogueUnavailable."""
        [(count,)] = await self._read(self._database.read, "SELECT count(*) FROM images")
        return int(count)

    async def content(self, after: Digest | None, limit: int) -> Sequence[ContentEntry]:
        return await self._read(self._content, after, limit)

    async def uses(self, after: str, limit: int) -> Sequence[ImageUse]:
        return await self._read(self._uses, after, limit)

    async def image(self, reference: ImageReference) -> ImageEntry | None:
        return await self._read(self._image, reference)

    async def pieces(self, reference: ImageReference) -> Sequence[Piece]:
        return await self._read(self._pieces, reference)

    async def removal(self, reference: ImageReference, leaving: Leaving) -> Removal | None:
        return await self._read(self._removal, reference, leaving)

    async def needed_by(self, digest: Digest) -> Sequence[str]:
        return await self._read(self._needed_by, digest)

    async def note(self, changes: Sequence[Change]) -> bool:
        if await self._write(self._note, changes) is None:
            return False
        if self._untidied >= self._bounds.tidy_every:
            self._untidied = 0
            await self._forget_unknown()
            await self._write(self._keep_to_bounds)
        return True

    async def forget_older(self, than: float) -> bool:
        more: bool | None = True
        while more:
            more = await self._write(self._change, lambda writer: writer.forget_older(than))
            await asyncio.sleep(_PAUSE)
        return more is not None and await self._forget_unknown()

    async def lose(self) -> int | None:
        return await self._write(self._database.write, note_loss)

    async def lost(self) -> int | None:
        latest, made_good = await self._read(self._database.snapshot, losses)
        return None if latest == made_good else latest

    async def made_good(self, number: int) -> None:
        await self._write(self._database.write, lambda db: note_made_good(db, number))

    async def close(self) -> None:
        await aside(self._writing.close)
        await aside(self._reading.close)
        self._database.close()

    async def _forget_unknown(self) -> bool:
        after: int | None = 0
        while after is not None:
            found = await self._write(self._forget_some_unknown, after)
            if found is None:
                return False
            (after,) = found
            if after is not None:
                await asyncio.sleep(_PAUSE)
        return True

    async def _read(self, read: Callable[..., T], *arguments: object) -> T:
        identity = self._database.identity
        try:
            try:
                return await self._reading.run(read, *arguments)
            except DAMAGED:
                await self._writing.run(self._database.begin_anew, identity)
                return await self._reading.run(read, *arguments)
        except (apsw.Error, OSError, RuntimeError) as error:  # RuntimeError: it was closed
            raise CatalogueUnavailable(f"{type(error).__name__}: {error}") from error

    async def _write(self, work: Callable[..., T], *arguments: object) -> T | None:
        """None where it cannot be done."""
        try:
            done = await self._writing.run(work, *arguments)
        except (apsw.Error, OSError, RuntimeError) as error:
            if self._well:  # said once, not by each batch
                log.warning("catalogue_cannot_be_kept", reason=f"{type(error).__name__}: {error}")
            self._well = False
            return None
        self._well = True
        return done

    # From here on: on the reading thread.

    def _repositories(self, after: str, limit: int) -> list[RepositoryEntry]:
        return [
            RepositoryEntry(_repository(name), images, pulls, used_at)
            for name, images, pulls, used_at in self._database.read(
                _REPOSITORIES, after, _length(limit)
            )
        ]

    def _images(self, after: str, limit: int, repository: Repository | None) -> list[ImageEntry]:
        of = "true" if repository is None else "repository = ?"
        values = (
            (after, _length(limit))
            if repository is None
            else (after, str(repository), _length(limit))
        )

        def read(db: apsw.Connection) -> list[ImageEntry]:
            walk = Walk(db)
            return [_image(walk, *row) for row in rows(db, _IMAGES.format(of=of), *values)]

        return self._database.snapshot(read)

    def _uses(self, after: str, limit: int) -> list[ImageUse]:
        return [
            ImageUse(_reference(place, tag, key), used_at, pulls, noted_at)
            for place, tag, key, used_at, pulls, noted_at in self._database.read(
                _USES, after, _length(limit)
            )
        ]

    def _image(self, reference: ImageReference) -> ImageEntry | None:
        def read(db: apsw.Connection) -> ImageEntry | None:
            return next(
                (_image(Walk(db), *row) for row in rows(db, _IMAGE, str(reference), 1)), None
            )

        return self._database.snapshot(read)

    def _pieces(self, reference: ImageReference) -> Sequence[Piece]:
        return self._database.snapshot(lambda db: RemovalWalk(db, Leaving(set())).pieces(reference))

    def _removal(self, reference: ImageReference, leaving: Leaving) -> Removal | None:
        return self._database.snapshot(lambda db: RemovalWalk(db, leaving).removal(reference))

    def _needed_by(self, digest: Digest) -> Sequence[str]:
        def read(db: apsw.Connection) -> Sequence[str]:
            found = rows(db, "SELECT id FROM content WHERE digest = ?", key_of(digest))
            return Walk(db).needed_by(found[0][0]) if found else ()

        return self._database.snapshot(read)

    def _content(self, after: Digest | None, limit: int) -> list[ContentEntry]:
        key = b"" if after is None else key_of(after)

        def read(db: apsw.Connection) -> list[ContentEntry]:
            walk = Walk(db)
            return [
                ContentEntry(digest_of(key), size, media_type, walk.needed_by(number))
                for number, key, size, media_type in rows(db, _CONTENT, key, _length(limit))
            ]

        return self._database.snapshot(read)

    # From here on: on the writing thread.

    def _note(self, changes: Sequence[Change]) -> bool:
        self._change(lambda writer: writer.note(changes))
        self._untidied += len(changes)
        return True

    def _forget_some_unknown(self, after: int) -> tuple[int | None]:
        return (self._change(lambda writer: writer.forget_unknown(after)),)

    def _keep_to_bounds(self) -> bool:
        self._change(lambda writer: writer.forget_images())
        [(count,)] = self._database.scan("SELECT count(*) FROM content")
        self._is_full = count >= self._bounds.content
        return True

    def _change(self, work: Callable[[Writer], T]) -> T:
        return self._database.write(lambda db: work(Writer(db, self._bounds, self._is_full)))


def _image(
    walk: Walk,
    name: str,
    place: str,
    tag: str | None,
    number: int,
    key: bytes,
    used_at: float,
    pulls: int,
) -> ImageEntry:
    digest = digest_of(key)
    sums = walk.sums(name, number, digest)
    return ImageEntry(
        _reference(place, tag, key), digest, sums.size, sums.own, used_at, pulls, sums.missing
    )


def _reference(place: str, tag: str | None, key: bytes) -> ImageReference:
    return ImageReference(_repository(place), digest_of(key) if tag is None else tag)


def _length(limit: int) -> int:
    return max(0, min(limit, LONGEST_PAGE))


def _repository(text: str) -> Repository:
    registry, _, name = text.partition("/")
    return Repository(registry, name)
