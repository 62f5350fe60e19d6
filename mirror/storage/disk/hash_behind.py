"""Hashing a little behind what is written, in another thread."""

from __future__ import annotations

import threading
from collections import deque

from ...contracts.files import Hasher
from ...oci.digest import Digest


class HashBehind:
    """The hash of bytes that are put one after the other. SHA-256 takes three times as long as
    writing: so what was written waits here for whichever thread comes to hash it."""

    def __init__(self, digest: Digest) -> None:
        """By the algorithm of this digest."""
        self._hash = digest.hasher()
        self._pieces: deque[bytes | memoryview] = deque()
        self._put = 0  # bytes so far: one thread's at a time
        self._hashed = 0
        self._turn = threading.Lock()

    @property
    def waiting(self) -> int:
        """Bytes that are not hashed yet."""
        return self._put - self._hashed

    def put(self, piece: bytes | memoryview) -> None:
        """Takes the bytes that follow, which must not change any more. Not for several threads at
        once."""
        self._pieces.append(piece)
        self._put += len(piece)

    def catch_up(self, within: int = 0) -> None:
        """Returns when no more than `within` bytes wait. Blocking; for several threads at once."""
        while self.waiting > within:
            with self._turn:
                if self._pieces:
                    piece = self._pieces.popleft()
                    self._hash.update(piece)
                    self._hashed += len(piece)
                    del piece  # its memory is used again

    def hexdigest(self) -> str:
        """Of all that was put. Blocking, as long as something waits."""
        self.catch_up()
        return self._hash.hexdigest()

    def copy(self) -> Hasher:
        """The hash of all that was put, to be continued elsewhere. Blocking, as `hexdigest`."""
        self.catch_up()
        with self._turn:
            return self._hash.copy()
