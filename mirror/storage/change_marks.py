"""Which repositories of one's own have changed: told to all processes of this host at once.

The file is mapped into the memory of each of them. A repository has the slot that its name's
checksum says; whoever changes it writes a new random number there, so that two who do so at once
need no lock, and others that share the slot look again in vain, no more.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from .owner import give

_SLOTS = 4096
_BYTES = 8 * _SLOTS


class ChangeMarks:
    """Close it when nobody asks any more."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            give(descriptor, path.parent)
            # Of a page that has no room on the disk, a write would end the process (SIGBUS).
            os.posix_fallocate(descriptor, 0, _BYTES)
            self._map = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        self._slots = memoryview(self._map).cast("Q")

    def changed(self, repository: str) -> None:
        """To be told once the change is recorded, and before anybody is told of it."""
        self._slots[_slot(repository)] = int.from_bytes(os.urandom(8))

    def still(self, repository: str) -> Callable[[], bool]:
        """Whether it is as it is now: asked for before anything of the repository is read."""
        slots, slot = self._slots, _slot(repository)
        mark = slots[slot]
        return lambda: slots[slot] == mark

    def close(self) -> None:
        self._slots.release()
        self._map.close()


def _slot(repository: str) -> int:
    return crc32(repository.encode()) % _SLOTS
