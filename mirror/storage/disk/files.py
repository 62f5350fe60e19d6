"""What the store does with files and folders. Blocking, all of it."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

from ...oci.digest import ALGORITHMS, Digest
from ..owner import make_folder
from .ingest_key import UPLOADS
from .space import FULL

log = structlog.get_logger()

_SLICE = 1 << 20

# A store that others have made may be served from, also where nothing can be written now.
PASSES = FULL | {errno.EROFS}
"""Errors of a file system that takes no writes, for now."""


class StorageUnusable(Exception):
    """The configured path cannot hold content; the message says why and what to do."""


def prepare(root: Path) -> None:
    """Makes the store's folders, or finds them. One that takes no writes now, because its file
    system is full or read-only, is told of, and is good for what it holds.

    Raises StorageUnusable.
    """
    was_there = os.path.isdir(root / "blobs")  # not of Path: another user's raises
    try:
        for directory in _directories(root):
            make_folder(directory)
        probe = root / f".probe-{os.getpid()}"
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        finally:
            with contextlib.suppress(FileNotFoundError):
                probe.unlink()
        _refuse_others(root)
    except OSError as error:
        if was_there and error.errno in PASSES:
            log.error(
                "store_takes_no_writes",
                path=str(root),
                reason=words(error),
                advice="what is kept is served, the rest passes through until it does",
            )
            return
        raise StorageUnusable(
            f"storage.path {root} cannot be used: {words(error)}; {_advice(root)}"
        ) from error
    if root.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        log.warning("storage_is_writable_by_others", path=str(root), advice="chmod go-w")


def _advice(root: Path) -> str:
    with contextlib.suppress(OSError):
        owner = root.stat().st_uid
        if owner != os.geteuid():
            with contextlib.suppress(KeyError):
                return f"it belongs to {pwd.getpwuid(owner).pw_name}: try as that user"
            return f"it belongs to user {owner}: try as that one"
    return "name a directory that this user may write to"


def _refuse_others(root: Path) -> None:
    """Raises PermissionError for what another user has left in the place of the store's own."""
    for name in ("index.db", "small.db", "links.db", "tags.db", *map(str, _relative_directories())):
        path = root / name
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, f"{name} belongs to another user")


def write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    """Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        at += written
        view = view[written:]


def sync_directory(path: Path) -> None:
    """The names in it are on the disk when this returns. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_whole(fd: int, limit: int) -> bytes:
    pieces = []
    offset = 0
    while offset <= limit and (piece := os.pread(fd, _SLICE, offset)):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def hash_of(fd: int, digest: Digest) -> str:
    hasher = digest.hasher()
    offset = 0
    while piece := os.pread(fd, _SLICE, offset):
        hasher.update(piece)
        offset += len(piece)
    return hasher.hexdigest()


def words(error: Exception) -> str:
    """The error without Python's decoration."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _directories(root: Path) -> Iterator[Path]:
    yield root
    yield from (root / relative for relative in _relative_directories())


def _relative_directories() -> Iterator[Path]:
    yield Path("quarantine")
    for kind in (Path("blobs"), Path("partials")):
        yield kind
        yield from (kind / algorithm for algorithm in ALGORITHMS)
    yield Path("partials") / UPLOADS
