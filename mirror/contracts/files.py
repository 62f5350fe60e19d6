"""Open files, as their readers see them."""

from __future__ import annotations

from typing import Protocol

_PIECE = 1 << 20


class OpenFile(Protocol):
    """An open file, whole or growing, that is read by offset. The holder closes it; until then its
    bytes stay, whatever eviction and commit do with its name."""

    def fileno(self) -> int:
        """The descriptor, for `sendfile` and the like; -1 where there is none, and `pread` alone
        has the bytes. The file's own position is shared: nobody reads by it."""

    def pread(self, count: int, offset: int) -> bytes:
        """As os.pread. Blocking; raises OSError."""

    def again(self) -> OpenFile:
        """The same file, to be closed on its own. Raises OSError where descriptors have run out."""

    def close(self) -> None:
        """Returns at once. On an event loop."""


class Hasher(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...

    def hexdigest(self) -> str: ...


def hash_span(hasher: Hasher, file: OpenFile, start: int, stop: int) -> int:
    """Hashes the bytes of a file from `start` to `stop`, as far as they are there; returns how far.
    Blocking; raises OSError."""
    while start < stop and (piece := file.pread(min(_PIECE, stop - start), start)):
        hasher.update(piece)
        start += len(piece)
    return start
