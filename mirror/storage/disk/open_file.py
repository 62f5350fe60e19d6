"""Open files of the store, for readers."""

from __future__ import annotations

import os
from collections.abc import Callable

from ...contracts.registry import Outcome, Provenance
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.digest import Digest
from ...threads import aside


class DiskFile:
    """An OpenFile. The descriptor is its own from now on."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def reopened(cls, fd: int) -> DiskFile:
        """The file behind this descriptor, by a new open file description: with a dup, a reader
        would share the writer's lock, and keep it held. Raises OSError."""
        return cls(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))

    def fileno(self) -> int:
        return self._fd

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def again(self) -> DiskFile:
        return DiskFile(os.dup(self._fd))

    def close(self) -> None:
        # Closing the last descriptor of an evicted file frees its blocks: 100 ms for a big one.
        if os.fstat(self._fd).st_nlink == 0:
            aside(os.close, self._fd)
        else:
            os.close(self._fd)


class StoredFile(DiskFile):
    """A StoredContent: a hit. `damaged` is called with the reason when it cannot be read."""

    __slots__ = ("_damaged", "descriptor", "outcome", "size")

    def __init__(
        self, fd: int, digest: Digest, size: int, outcome: Outcome, damaged: Callable[[str], None]
    ) -> None:
        super().__init__(fd)
        self.descriptor = Descriptor(OCTET_STREAM, digest, size)
        self.outcome = outcome
        self.size = size
        self._damaged = damaged

    def damaged(self, reason: str) -> None:
        self._damaged(reason)

    @property
    def provenance(self) -> Provenance:
        return Provenance.HERE

    async def proven(self) -> None:
        """It is."""

    async def readable(self, beyond: int) -> int:
        return self.size
