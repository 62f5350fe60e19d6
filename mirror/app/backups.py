"""Backups of repositories of one's own: all that is recorded, and the content that it needs, as one
tar. docs/hosting.md describes what is in it.

What is recorded is copied first, as of one moment, and while the backup goes on nothing is
collected: so all content of that moment is there, whatever is pushed and deleted meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..clock import Clock
from ..contracts.content import StoredContent, StoreFull
from ..contracts.hosted import CollectionRecords, CopyRefused, RecordCopies
from ..contracts.second_tier import FarFault
from ..frozen import dataclass
from ..hosted.registry import Far
from ..oci.digest import Digest
from ..oci.errors import ContentMismatch, DigestInvalid, RegistryError
from ..oci.image_layout import blob_of, blob_path
from ..oci.tar import BLOCK, END, Header, TarInvalid, file_header
from ..server.control import Command, CommandFailed, GivesBytes, Parameters
from ..storage.disk.store import DiskContent
from ..threads import aside
from .administering import NOT_CONFIGURED
from .archive import Archive

Line = Mapping[str, Any]

HEAD, RECORDS = "backup.json", "records.jsonl"
_VERSION = 1
_SLICE = 1 << 20
_LISTED = 500  # digests that the object store is asked for at once
_LARGEST_HEAD = 16 << 20  # bytes: it names what was lost
_MOST_ENTRIES = 50_000_000
_MOST_RECORDS = 1 << 40  # bytes
_NAMED = 5  # digests in a message
_OWNED = re.compile(rb'^\["(?:links|manifests)",')
_SESSIONS = "restored/content"  # what sessions of a restore are of: no repository of anybody's


def backup_commands(backups: Callable[[], Backups | None]) -> Mapping[str, Command]:
    """What a mirror does that runs. (What is restored comes before the first start.)"""

    async def backup(given: Parameters) -> AsyncGenerator[bytes, None]:
        found = backups()
        if found is None:
            raise CommandFailed(NOT_CONFIGURED, 2)
        async with contextlib.aclosing(found.backup(given)) as pieces:
            async for piece in pieces:
                yield piece

    return {"backup": GivesBytes(backup)}


@dataclass(frozen=True, slots=True)
class Backups:
    """Of one mirror. Whoever restores holds the store. `far`: where content is kept besides."""

    copies: RecordCopies
    collection: CollectionRecords
    store: DiskContent
    clock: Clock
    far: Far | None = None

    async def backup(self, given: Parameters) -> AsyncGenerator[bytes, None]:
        """`incomplete`: also where content that is recorded has been lost."""
        async with self.collection.alone() as alone:
            if not alone:
                raise CommandFailed("content is being collected: try again in some minutes")
            with _spool(self.store.root) as records:
                async for piece in self.copies.dump():
                    await aside(records.write, piece)
                length = records.tell()
                needed = await aside(_needed, records)
                lost = await self._lost(needed)
                if lost and not given.get("incomplete"):
                    raise CommandFailed(
                        f"{_named(lost)} recorded and not in the store: push the images once more, "
                        "or delete them; with --incomplete they are left out"
                    )
                for digest in lost:
                    del needed[digest]
                async for piece in _written(records, length, needed, lost):
                    yield piece
                for digest, size in needed.items():
                    yield file_header(blob_path(digest), size)
                    async for piece in self._pieces(digest, size):
                        yield piece
                    yield bytes(-size % BLOCK)
                yield END

    async def restore(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[Line, None]:
        """All of a backup, or nothing. Tells how far it is, and last what there is."""
        taken: list[Digest] = []
        is_kept = False
        try:
            with _spool(self.store.root) as records:
                archive = Archive(pieces, _MOST_ENTRIES)
                entries = archive.entries()
                lost = _read_head(await _entry(entries, HEAD), await archive.read(_LARGEST_HEAD))
                await _entry(entries, RECORDS)
                async for piece in archive.pieces():
                    await aside(records.write, piece)
                    if records.tell() > _MOST_RECORDS:
                        raise TarInvalid("its records have no end")
                needed = await aside(_needed, records)
                if await self.collection.content(None, 1):
                    raise CommandFailed(_NOT_EMPTY)
                total, done = sum(needed.values()), 0
                async for header in entries:
                    digest = blob_of(header.name)
                    if digest is None or needed.pop(digest, None) != header.size:
                        raise TarInvalid(f"{header.name} in it is not what its records need")
                    taken.append(digest)
                    await self._take(digest, header.size, archive)
                    done += header.size
                    yield {"done": done, "total": total}
                if missing := [digest for digest in needed if digest not in lost]:
                    raise TarInvalid(f"it lacks content: {_named(missing)} not in it")
                await aside(records.seek, 0)
                rows = await self.copies.restore(_slices(records))
                is_kept = True
            yield {"rows": rows, "content": len(taken), "bytes": done, "lost": len(lost)}
        except (TarInvalid, CopyRefused) as error:
            raise CommandFailed(f"the backup is not taken: {error}") from None
        except ContentMismatch as error:
            raise CommandFailed(f"the backup is not taken, it is damaged: {error}") from None
        except (StoreFull, RegistryError) as error:
            raise CommandFailed(f"it could not be restored: {error}") from None
        finally:
            if not is_kept:
                for digest in taken:
                    await self.store.held.release(digest, self.clock.wall() + 1.0)

    async def _lost(self, needed: Mapping[Digest, int]) -> list[Digest]:
        lost = [digest for digest in needed if self.store.size(digest) is None]
        if self.far is None:
            return lost
        there: set[Digest] = set()
        lost.sort(key=str)
        try:
            for start in range(0, len(lost), _LISTED):
                there.update(await self.far.shelf.there(lost[start : start + _LISTED]))
        except FarFault as error:
            raise CommandFailed(f"the object store gives no answer: {error}") from None
        return [digest for digest in lost if digest not in there]

    async def _pieces(self, digest: Digest, size: int) -> AsyncIterator[bytes]:
        """Raises CommandFailed where it is not all there, or another."""
        content = await self.store.open(digest)
        if content is not None:
            try:
                async for piece in _read(content, digest, size):
                    yield piece
            finally:
                content.close()
            return
        if self.far is None:
            raise CommandFailed(f"{digest} was lost while it was read")
        hasher, came = digest.hasher(), 0
        try:
            async for piece in self.far.reader.pieces(digest):
                await aside(hasher.update, piece)
                came += len(piece)
                yield piece
        except RegistryError as error:
            raise CommandFailed(f"{digest} could not be read: {error}") from None
        if came != size or hasher.hexdigest() != digest.hex:
            raise CommandFailed(f"{digest} is another in the object store than it was")

    async def _take(self, digest: Digest, length: int, archive: Archive) -> None:
        uploads = self.store.uploads
        session = await uploads.begin(_SESSIONS)
        try:
            await uploads.append(_SESSIONS, session, 0, _Entry(length, archive.pieces()))
            bring = None if self.far is None else self.far.shelf.bring_file
            await uploads.finish(_SESSIONS, session, digest, bring)
        except BaseException:
            with contextlib.suppress(RegistryError):  # it may have ended by itself
                await uploads.cancel(_SESSIONS, session)
            raise


_NOT_EMPTY = (
    "this mirror hosts images already: restore into an empty storage folder and empty records"
)


class _Entry:
    """A Body: one file of the archive."""

    def __init__(self, length: int, pieces: AsyncIterator[bytes]) -> None:
        self._length = length
        self._pieces = pieces

    @property
    def size(self) -> int | None:
        return self._length

    async def read(self) -> bytes:
        return await anext(self._pieces, b"")

    async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
        async for piece in self._pieces:
            await aside(take, piece)


def _spool(folder: Path) -> IO[bytes]:
    """A file without a name, beside the content: /tmp may be memory."""
    return tempfile.TemporaryFile(dir=folder)


async def _slices(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await aside(file.read, _SLICE):
        yield piece


def _needed(records: IO[bytes]) -> dict[Digest, int]:
    """What is recorded of content, with its size, manifests before blobs. Raises TarInvalid."""
    records.seek(0)
    manifests: dict[Digest, int] = {}
    blobs: dict[Digest, int] = {}
    for line in records:
        if not _OWNED.match(line):
            continue
        try:
            table, row = json.loads(line)
            digest, length = Digest.parse(row["digest"]), int(row["size"])
        except (ValueError, KeyError, TypeError, DigestInvalid):
            raise TarInvalid("its records are malformed") from None
        (manifests if table == "manifests" else blobs)[digest] = length
    records.seek(0, os.SEEK_END)
    return {**manifests, **blobs}


async def _written(
    records: IO[bytes],
    length: int,
    needed: Mapping[Digest, int],
    lost: Sequence[Digest],
) -> AsyncIterator[bytes]:
    """What is before the content."""
    head = json.dumps(
        {
            "version": _VERSION,
            "content": len(needed),
            "bytes": sum(needed.values()),
            "lost": [str(digest) for digest in lost],
        }
    ).encode()
    yield file_header(HEAD, len(head)) + head + bytes(-len(head) % BLOCK)
    yield file_header(RECORDS, length)
    await aside(records.seek, 0)
    async for piece in _slices(records):
        yield piece
    yield bytes(-length % BLOCK)


async def _read(content: StoredContent, digest: Digest, size: int) -> AsyncIterator[bytes]:
    at = 0
    while at < size:
        piece = await aside(content.pread, min(_SLICE, size - at), at)
        if not piece:
            raise CommandFailed(f"{digest} is shorter than it was")
        at += len(piece)
        yield piece


async def _entry(entries: AsyncIterator[Header], name: str) -> Header:
    header = await anext(entries, None)
    if header is None or header.name != name:
        raise TarInvalid(f"it is no backup of this program: {name} is not in its place")
    return header


def _read_head(header: Header, data: bytes) -> frozenset[Digest]:
    """What the backup says to have lost."""
    try:
        found = json.loads(data)
        version, lost = found["version"], frozenset(map(Digest.parse, found["lost"]))
    except (ValueError, KeyError, TypeError, DigestInvalid):
        raise TarInvalid(f"its {header.name} is malformed") from None
    if version != _VERSION:
        raise TarInvalid(f"it is of version {version}, which a newer program takes")
    return lost


def _named(digests: Sequence[Digest]) -> str:
    more = len(digests) - _NAMED
    words = ", ".join(map(str, digests[:_NAMED])) + (f" and {more} more" if more > 0 else "")
    return f"{words} {'is' if len(digests) == 1 else 'are'}"
