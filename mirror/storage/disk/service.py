"""Who serves a store: one service at a time, whose bounds are the store's.

What a command does beside it, or when no mirror serves, it does within these: the bounds of its own
configuration may be another's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import structlog

from ..owner import give
from .files import PASSES, StorageUnusable, words
from .space import Bounds

log = structlog.get_logger()

_NAME = "service.json"
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_BYTES = 512  # of the file: it is overwritten in place, which a full disk allows


@contextlib.contextmanager
def serving(root: Path, bounds: Bounds) -> Iterator[None]:
    """Holds the store's lock, and notes its bounds. It ends with the process at the latest.

    Raises StorageUnusable when another holds it. Blocking.
    """
    fd = _locked(root)
    try:
        if fd is not None:
            _note(fd, root, bounds)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def bounds_of(root: Path) -> Bounds | None:
    """Those of the service that serves this store, or did last; None when none ever has."""
    try:
        fd = os.open(root / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        note = _read(fd)
    finally:
        os.close(fd)
    max_size, min_free = note.get("max_size"), note.get("min_free")
    if not isinstance(max_size, int) or not isinstance(min_free, int):
        return None
    return Bounds(max_size, min_free)


def is_held(root: Path) -> bool:
    """Whether a living process has the store's lock, as far as this user can see."""
    try:
        fd = os.open(root / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(fd)
    return struct.unpack_from("h", found) != (fcntl.F_UNLCK,)


def _locked(root: Path) -> int | None:
    """The open file, with its lock; None where there is none to be had. Raises StorageUnusable."""
    try:
        fd = os.open(root / _NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in PASSES:
            raise StorageUnusable(f"{root / _NAME} cannot be opened: {words(error)}") from error
        log.error("store_is_not_locked", path=str(root), reason=words(error))
        return None
    try:
        give(fd, root)
        # Of the open file, not of the process (fcntl(2), "Open file description locks"): this
        # process may open and close it meanwhile.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        return fd
    except (BlockingIOError, PermissionError):
        pid = _read(fd).get("pid")
        os.close(fd)
        raise StorageUnusable(
            f"storage.path {root} is served by another mirror already (process {pid}): "
            "stop that one, or name another directory"
        ) from None
    except OSError as error:  # a file system without locks
        os.close(fd)
        log.warning("store_is_not_locked", path=str(root), reason=words(error))
        return None


def _note(fd: int, root: Path, bounds: Bounds) -> None:
    note = {"pid": os.getpid(), "max_size": bounds.max_size, "min_free": bounds.min_free}
    try:
        os.pwrite(fd, json.dumps(note).encode().ljust(_BYTES), 0)
    except OSError as error:
        log.error("bounds_not_noted_for_commands", path=str(root), reason=words(error))


def _read(fd: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(fd, _BYTES, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
