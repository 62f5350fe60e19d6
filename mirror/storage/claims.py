"""Which of a node's processes just brings which small content: a lock on one byte of a file for
each, at an offset that the digest names. It costs a system call, where a file of its own costs
three and a place on the disk, and whoever dies has given it back.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import structlog

from ..oci.digest import Digest

log = structlog.get_logger()

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of Linux: type, whence, start, length, pid
_OFFSET_DIGITS = 15  # of hex: an offset of 60 bits


class Claims:
    """See contracts. Where the file takes no locks, each process has what it asks for."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Never fails."""
        self._fd: int | None = None
        self._own = set[Digest]()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("claims_cannot_be_made", path=str(path), reason=str(error))

    def take(self, digest: Digest) -> bool:
        if digest in self._own or not self._lock(digest, fcntl.F_WRLCK):
            return False
        self._own.add(digest)
        return True

    def give(self, digest: Digest) -> None:
        self._own.discard(digest)
        self._lock(digest, fcntl.F_UNLCK)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self, digest: Digest, kind: int) -> bool:
        if self._fd is None:
            return True
        start = int(digest.hex[:_OFFSET_DIGITS], 16)
        # The lock is the open file's, not the process': so two of them keep each other out anyhow.
        asked = _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, asked)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True
