"""What is here, as a catalogue: a SQLite database beside the content.

Losing it costs the count of pulls; the rest is noted again from the store and the tag memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import apsw
import structlog

from ...contracts.catalogue import (
    LONGEST_PAGE,
    CatalogueUnavailable,
    Change,
    ContentEntry,
    ImageEntry,
    Kept,
    Pulled,
    Removed,
    RepositoryEntry,
    Tagged,
)
from ...oci.digest import Digest
from ...oci.reference import ImageReference, Repository
from ...threads import Threads, aside
from ..shares import surplus_of_repositories
from ..sqlite_files import OtherVersion, Patience, copied, opened
from .catalogue_walk import IS_IMAGE, Walk, digest_of, key_of

log = structlog.get_logger()

T = TypeVar("T")

_VERSION = 1

# Content by number: its digest is in each row only once. `size` is NULL of what is not here, but is
# what a manifest that is here refers to. Images by name: `registry/name:tag` or `…@digest`; their
# `digest` is the number of a manifest, which may not be here.
_SCHEMA = f"""
CREATE TABLE content (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, size INTEGER,
    media_type TEXT NOT NULL DEFAULT '', noted_at REAL NOT NULL DEFAULT 0);
CREATE TABLE needs (parent INTEGER NOT NULL, child INTEGER NOT NULL, PRIMARY KEY (parent, child))
    WITHOUT ROWID;
CREATE INDEX needs_by_child ON needs (child);
CREATE TABLE images (name TEXT PRIMARY KEY, repository TEXT NOT NULL, tag TEXT,
    digest INTEGER NOT NULL, used_at REAL NOT NULL DEFAULT 0, pulls INTEGER NOT NULL DEFAULT 0,
    noted_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX images_of_repository ON images (repository, name);
CREATE INDEX images_by_digest ON images (digest, repository);
PRAGMA user_version = {_VERSION};
"""

_REPOSITORIES = f"""
SELECT repository, count(*), sum(pulls), max(used_at) FROM images
WHERE repository > ? AND {IS_IMAGE} GROUP BY repository ORDER BY repository LIMIT ?
"""  # noqa: S608 - all words of ours

_IMAGES = f"""
SELECT name, repository, tag, images.digest, content.digest, used_at, pulls
FROM images JOIN content ON id = images.digest
WHERE name > ? AND {{of}} AND {IS_IMAGE} ORDER BY name LIMIT ?
"""  # noqa: S608

_CONTENT = """
SELECT id, digest, size, media_type FROM content
WHERE digest > ? AND size IS NOT NULL ORDER BY digest LIMIT ?
"""

_KEEP = """
INSERT INTO content (digest, size, media_type, noted_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (digest) DO UPDATE SET size = ?2, noted_at = max(noted_at, ?4),
    media_type = CASE ?3 WHEN '' THEN media_type ELSE ?3 END
RETURNING id
"""

# A new row keeps what was counted under its name.
_SHOW = """
INSERT INTO images (name, repository, tag, digest, noted_at) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (name) DO UPDATE SET digest = ?4, noted_at = max(noted_at, ?5)
"""

_PULLED = "UPDATE images SET pulls = pulls + ?2, used_at = max(used_at, ?3) WHERE name = ?1"

# What is not here is known only as long as something that is known refers to it.
_UNKNOWN = """
DELETE FROM content WHERE size IS NULL AND NOT EXISTS (SELECT 1 FROM needs WHERE child = id)
    AND NOT EXISTS (SELECT 1 FROM images WHERE images.digest = id)
"""

# Milliseconds that a write waits for another process's (see Patience).
_BUSY_MS = 1000


@dataclass(frozen=True, slots=True)
class CatalogueBounds:
    """Of all images and of all rows of content, what one manifest is known to refer to, and after
    how many changes the bounds are looked at."""

    images: int = 100_000
    content: int = 1_000_000
    needs_of_one: int = 1024
    tidy_every: int = 4096


class CatalogueRecords:
    """Catalogue and CatalogueNotes (see contracts). Several processes may share the file; open it
    after forking.

    Of too many images those of the registry, and of its repository, that has most are forgotten,
    those that were not used or noted for longest first. Beyond its bound, new content is not taken.
    """

    @classmethod
    def open(cls, path: Path, bounds: CatalogueBounds | None = None) -> CatalogueRecords:
        """Opens or makes the database. Never fails: one that is of no use is set aside, and where
        no file can be opened, what is in it is read into the memory of this process alone."""
        try:
            writer = opened(path, _prepare, _BUSY_MS)
            reader = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
        except (apsw.Error, OSError) as error:
            log.error("catalogue_kept_in_memory_only", path=str(path), reason=str(error))
            writer, reader = copied(path, _prepare)
        return cls(writer, reader, bounds or CatalogueBounds())

    def __init__(
        self, writer: apsw.Connection, reader: apsw.Connection, bounds: CatalogueBounds
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._bounds = bounds
        self._patience = Patience(_BUSY_MS)
        self._untidied = bounds.tidy_every  # at the first change
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

    async def content(self, after: Digest | None, limit: int) -> Sequence[ContentEntry]:
        return await self._read(self._content, after, limit)

    async def note(self, changes: Sequence[Change]) -> bool:
        return await self._write(self._note, changes)

    async def forget_older(self, than: float) -> bool:
        return await self._write(self._forget_older, than)

    async def close(self) -> None:
        await aside(self._writing.close)
        await aside(self._reading.close)
        self._reader.close()
        self._writer.close()

    async def _read(self, read: Callable[..., T], *arguments: object) -> T:
        try:
            return await self._reading.run(read, *arguments)
        except (apsw.Error, RuntimeError) as error:  # RuntimeError: it was closed
            raise CatalogueUnavailable(f"{type(error).__name__}: {error}") from error

    async def _write(self, work: Callable[..., None], *arguments: object) -> bool:
        try:
            await self._writing.run(self._apply, work, *arguments)
        except (apsw.Error, RuntimeError) as error:
            if self._well:  # said once, not by each batch
                log.warning("catalogue_cannot_be_kept", reason=f"{type(error).__name__}: {error}")
            self._well = False
            return False
        return True

    # From here on: on the reading thread.

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[apsw.Connection]:
        """A page is of one moment, whatever is written meanwhile."""
        self._reader.execute("BEGIN")
        try:
            yield self._reader
        finally:
            self._reader.execute("ROLLBACK")

    def _repositories(self, after: str, limit: int) -> list[RepositoryEntry]:
        with self._snapshot() as db:
            found = db.execute(_REPOSITORIES, (after, _length(limit))).fetchall()
        return [
            RepositoryEntry(_repository(str(name)), int(images), int(pulls), float(used_at))  # type: ignore[arg-type]
            for name, images, pulls, used_at in found
        ]

    def _images(self, after: str, limit: int, repository: Repository | None) -> list[ImageEntry]:
        of = "true" if repository is None else "repository = ?"
        values = (
            (after, _length(limit))
            if repository is None
            else (after, str(repository), _length(limit))
        )
        with self._snapshot() as db:
            walk = Walk(db)
            return [
                self._image(walk, row)
                for row in db.execute(_IMAGES.format(of=of), values).fetchall()
            ]

    def _image(self, walk: Walk, row: tuple[object, ...]) -> ImageEntry:
        name, place, tag, number, key, used_at, pulls = row
        digest = digest_of(key)
        sums = walk.sums(str(name), number, digest)  # type: ignore[arg-type]
        return ImageEntry(
            ImageReference(_repository(str(place)), digest if tag is None else str(tag)),
            digest,
            sums.size,
            sums.own,
            float(used_at),  # type: ignore[arg-type]
            int(pulls),  # type: ignore[call-overload]
            sums.missing,
        )

    def _content(self, after: Digest | None, limit: int) -> list[ContentEntry]:
        key = b"" if after is None else key_of(after)
        with self._snapshot() as db:
            walk = Walk(db)
            return [
                ContentEntry(digest_of(key), size, str(media_type), walk.needed_by(number))  # type: ignore[arg-type]
                for number, key, size, media_type in db.execute(
                    _CONTENT, (key, _length(limit))
                ).fetchall()
            ]

    # From here on: on the writing thread.

    def _apply(self, work: Callable[..., None], *arguments: object) -> None:
        with self._patience.writing(self._writer):
            self._writer.execute("BEGIN IMMEDIATE")
        try:
            work(*arguments)
            if self._untidied >= self._bounds.tidy_every:
                self._tidy()
            self._writer.execute("COMMIT")
        finally:
            if self._writer.in_transaction:  # a full disk may have ended it already
                self._writer.execute("ROLLBACK")
        self._well = True

    def _note(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Kept):
                self._keep(change)
            elif isinstance(change, Removed):
                self._remove(change.digest)
            elif isinstance(change, Tagged):
                self._tag(change)
            else:
                self._pull(change)
        self._untidied += len(changes)

    def _keep(self, kept: Kept) -> None:
        if self._is_full and self._number(kept.digest) is None:
            return
        [(number,)] = self._writer.execute(
            _KEEP, (key_of(kept.digest), kept.size, kept.media_type, kept.at)
        ).fetchall()
        children = [(number, self._known(child)) for child in _few(kept, self._bounds)]
        self._writer.executemany("INSERT OR IGNORE INTO needs VALUES (?, ?)", children)
        if kept.media_type and kept.repository is not None:
            self._show(ImageReference(kept.repository, kept.digest), kept.digest, kept.at)

    def _remove(self, digest: Digest) -> None:
        number = self._number(digest)
        if number is not None:
            self._writer.execute(
                "UPDATE content SET size = NULL, media_type = '' WHERE id = ?", (number,)
            )
            self._writer.execute("DELETE FROM needs WHERE parent = ?", (number,))
            self._writer.execute("DELETE FROM images WHERE digest = ? AND tag IS NULL", (number,))

    def _tag(self, tagged: Tagged) -> None:
        image = ImageReference(tagged.repository, tagged.tag)
        if tagged.digest is None:
            self._writer.execute("DELETE FROM images WHERE name = ?", (str(image),))
        else:
            self._show(image, tagged.digest, tagged.at)

    def _pull(self, pulled: Pulled) -> None:
        image = ImageReference(pulled.repository, pulled.reference)
        if isinstance(pulled.reference, Digest) and self._is_manifest(pulled.reference):
            self._show(image, pulled.reference, pulled.at)
        self._writer.execute(_PULLED, (str(image), pulled.count, pulled.at))

    def _show(self, image: ImageReference, digest: Digest, at: float) -> None:
        tag = image.reference if isinstance(image.reference, str) else None
        self._writer.execute(
            _SHOW, (str(image), str(image.repository), tag, self._known(digest), at)
        )

    def _is_manifest(self, digest: Digest) -> bool:
        query = "SELECT 1 FROM content WHERE digest = ? AND size IS NOT NULL AND media_type != ''"
        return bool(self._writer.execute(query, (key_of(digest),)).fetchall())

    def _number(self, digest: Digest) -> int | None:
        query = "SELECT id FROM content WHERE digest = ?"
        for (number,) in self._writer.execute(query, (key_of(digest),)).fetchall():
            return number  # type: ignore[return-value]
        return None

    def _known(self, digest: Digest) -> int:
        """Its number, from now on if need be."""
        number = self._number(digest)
        if number is None:
            self._writer.execute("INSERT INTO content (digest) VALUES (?)", (key_of(digest),))
            number = self._writer.last_insert_rowid()
        return number

    def _forget_older(self, than: float) -> None:
        select = "SELECT digest FROM content WHERE size IS NOT NULL AND noted_at < ?"
        for (key,) in self._writer.execute(select, (than,)).fetchall():
            self._remove(digest_of(key))
        self._writer.execute(_UNKNOWN)

    def _tidy(self) -> None:
        self._writer.execute(_UNKNOWN)
        self._is_full = self._count("content") >= self._bounds.content
        excess = self._count("images") - self._bounds.images
        if excess > 0:
            counts = self._writer.execute(
                "SELECT repository, count(*) FROM images GROUP BY repository"
            ).fetchall()
            given = surplus_of_repositories({str(name): int(n) for name, n in counts}, excess)  # type: ignore[arg-type]
            self._writer.executemany(
                "DELETE FROM images WHERE name IN (SELECT name FROM images WHERE repository = ? "
                "ORDER BY max(used_at, noted_at), name LIMIT ?)",
                list(given.items()),
            )
        self._untidied = 0

    def _count(self, table: str) -> int:
        [(count,)] = self._writer.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
        return count  # type: ignore[return-value]


def _few(kept: Kept, bounds: CatalogueBounds) -> Sequence[Digest]:
    return kept.refers_to[: bounds.needs_of_one]


def _length(limit: int) -> int:
    return max(0, min(limit, LONGEST_PAGE))


def _repository(text: str) -> Repository:
    registry, _, name = text.partition("/")
    return Repository(registry, name)


def _prepare(db: apsw.Connection) -> None:
    """Makes the tables, or finds that they are ours."""
    db.execute("BEGIN IMMEDIATE")
    [(version,)] = db.execute("PRAGMA user_version").fetchall()
    if version == 0:
        db.execute(_SCHEMA)
    elif version != _VERSION:
        raise OtherVersion(f"made by another version of this program ({version})")
    db.execute("COMMIT")
    for query, first in ((_REPOSITORIES, ""), (_IMAGES.format(of="true"), ""), (_CONTENT, b"")):
        db.execute(query, (first, 0)).fetchall()  # the tables are there, and of our shape
