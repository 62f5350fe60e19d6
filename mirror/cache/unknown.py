"""What the upstream said it does not have, remembered for a short time."""

from __future__ import annotations

from cachetools import TTLCache

from ..interfaces import Clock
from ..oci.digest import Digest
from ..oci.errors import Unknown
from ..oci.reference import Repository

_MOST = 10_000
_SECONDS = 30.0


class UnknownDigests:
    """Digests that a repository lacks. Bounded: a flood of made-up digests forgets older ones."""

    def __init__(self, clock: Clock) -> None:
        self._errors: TTLCache[tuple[Repository, Digest], Unknown] = TTLCache(
            _MOST, _SECONDS, clock.monotonic
        )

    def note(self, repository: Repository, digest: Digest, error: Unknown) -> None:
        self._errors[repository, digest] = error

    def check(self, repository: Repository, digest: Digest) -> None:
        """Raises the error that was noted, if one was."""
        error = self._errors.get((repository, digest))
        if error is not None:
            raise error.with_traceback(None)
