"""What is on its way to the disk: content of a digest, from one source.

Until it is proven, what a source has sent is that source's word. So each goes on only with what it
has sent itself: strangers who answer for the same digest neither spoil what others read, nor read
what others may.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from ...oci.digest import Digest

_NAME = re.compile(r"([0-9a-f]+)(?:\.([0-9a-f]{16}))?")


@dataclass(frozen=True, slots=True)
class IngestKey:
    """`source` is a mark of it; "" where all the bytes are here at once."""

    digest: Digest
    source: str = ""

    @classmethod
    def of(cls, digest: Digest, source: str) -> Self:
        """Of a source with this name, which may be any."""
        return cls(digest, hashlib.sha256(source.encode()).hexdigest()[:16] if source else "")

    @classmethod
    def named(cls, algorithm: str, name: str) -> Self | None:
        """What a file of this name is; None when it is nothing of the kind.

        Raises DigestInvalid when there is no such digest.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(Digest.parse(f"{algorithm}:{found[1]}"), found[2] or "")

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.digest.hex}.{self.source}" if self.source else self.digest.hex

    def __str__(self) -> str:
        return f"{self.digest.algorithm}:{self.name}"
