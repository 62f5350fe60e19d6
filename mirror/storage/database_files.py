"""SQLite files that several processes open, and that are begun anew when they are of no use."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

log = structlog.get_logger()

_OPENING_LIMIT = 5.0  # seconds to wait for another process that opens the same database


@contextlib.contextmanager
def opening(path: Path) -> Iterator[None]:
    """One process at a time: else one sets aside what the other has just begun.

    Raises OSError.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _OPENING_LIMIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def set_aside(path: Path, reason: str) -> None:
    """Renames the database to `….aside`, in place of an earlier one."""
    log.warning("database set aside", path=str(path), aside=f"{path}.aside", reason=reason)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.aside{suffix}")
