"""That a growing file is proven, as other processes see it before the file has its name.

It is a lock on a byte that no file has, held through the writer's open file (an "open file
description lock"). So it belongs to the very file that was proven, and goes with its writer however
that ends: nothing of it is on the disk, where it might outlive bytes that a power cut has spoilt.
"""

from __future__ import annotations

import contextlib
import fcntl
import struct

_LOCK = struct.Struct("hhqqi4x")  # of struct flock: type, whence, start, length, process
_AT = (1 << 63) - 2


def show(fd: int) -> None:
    """From now on, as long as this is open. Where a file system has no such locks, others see it
    when the file has its name."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, 0, _AT, 1, 0))


def is_shown(fd: int) -> bool:
    """By who has the same file open for writing. A lock of more than that byte is none: network
    file systems take the lock of who writes a partial for one of all its bytes."""
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _LOCK.pack(fcntl.F_RDLCK, 0, _AT, 1, 0))
    except OSError:
        return False
    kind, _, start, length, _ = _LOCK.unpack(found)
    return kind != fcntl.F_UNLCK and (start, length) == (_AT, 1)
