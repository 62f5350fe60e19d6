"""Content behind the disk: larger, slower, shared by several mirrors, and not trusted."""

from __future__ import annotations

from typing import Protocol

from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from .files import OpenFile


class SecondTierFault(Exception):
    """The second tier broke off in the midst of a stream."""


class TierStream(Protocol):
    """A part of a content, as the tier has it: nothing of it is proven. The holder closes it."""

    @property
    def size(self) -> int:
        """Bytes of the whole content, as the tier has it."""

    @property
    def start(self) -> int:
        """The offset of the first byte that comes."""

    async def read(self) -> bytes:
        """The next bytes, at most a MiB; b"" at the end. Raises SecondTierFault.

        Cancelled, it may be called again, and no byte is lost."""

    async def close(self) -> None:
        """Returns at once, also when the tier hangs. Closed again, it stays as it is."""


class SecondTier(Protocol):
    """Keeps content by its digest. Its faults are its own: what it cannot say, it does not have.

    It may hang: its callers bound the time. It knows nothing of which repository shows a digest."""

    async def get(self, digest: Digest, range: ByteRange | None = None) -> TierStream | None:
        """The content from `range.start` up to its stop, or to its end; None when the tier has it
        not, or no byte of that range."""

    async def put(self, digest: Digest, file: OpenFile, size: int) -> bool:
        """Keeps the first `size` bytes of this open file, in place of what it has of that digest;
        others see all of them, or none. Whether it does."""

    async def contains(self, digest: Digest) -> bool:
        """Whether the tier has something of this name."""

    async def close(self) -> None:
        """Returns at once, also when the tier hangs."""
