"""What a file system has left."""

from __future__ import annotations

import os
from pathlib import Path

from ...frozen import dataclass

# A network file system tells how much it likes to transfer at a time (1 MiB) where others tell what
# a file takes at least, which is not more than this.
_LARGEST_BLOCK = 64 << 10
_USUAL_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Bytes, but for `files`: how many more there may be, None where no number is set. `free` is
    what an ordinary user may take."""

    total: int
    free: int
    block: int
    files: int | None

    @classmethod
    def at(cls, path: Path) -> FreeSpace:
        """Raises OSError."""
        disk = os.statvfs(path)
        return cls(
            total=disk.f_blocks * disk.f_frsize,
            free=disk.f_bavail * disk.f_frsize,
            block=disk.f_frsize if 0 < disk.f_frsize <= _LARGEST_BLOCK else _USUAL_BLOCK,
            files=disk.f_favail if disk.f_files else None,
        )
