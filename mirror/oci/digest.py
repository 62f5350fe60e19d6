"""Digests: the one name that proves what it names."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from ..frozen import dataclass
from .errors import DigestInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

# The registered algorithms of the OCI image-spec (descriptor.md, "Registered algorithms"), with the
# length of their hex. Others are refused: what cannot be computed cannot be verified.
ALGORITHMS = {"sha256": 64, "sha512": 128}

_HEX = {name: re.compile(rf"[0-9a-f]{{{length}}}") for name, length in ALGORITHMS.items()}


@dataclass(frozen=True, slots=True)
class Digest:
    """`algorithm:hex`, strict: sha256 or sha512, lower-case hex of the exact length.

    There is no other Digest, however it was made (the constructor raises DigestInvalid): it may
    go into a path, a key or a header as it is.

    >>> Digest.of(b"").hex[:8]
    'e3b0c442'
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        grammar = _HEX.get(self.algorithm)
        if grammar is None or not grammar.fullmatch(self.hex):
            raise DigestInvalid(str(self))

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Reads `sha256:…` or `sha512:…`. Raises DigestInvalid for anything else."""
        algorithm, colon, hexadecimal = text.partition(":")
        if not colon:
            raise DigestInvalid(text)
        return cls(algorithm, hexadecimal)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes, by one of `ALGORITHMS`."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """Whether these bytes are the content this digest names."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    def hasher(self) -> _Hash:
        """A fresh hash of this digest's algorithm; its hexdigest() is to equal `hex`."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
