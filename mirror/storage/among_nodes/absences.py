"""What nodes were told is missing: others need not ask for it again for as long."""

from __future__ import annotations

import json
import math

from ...clock import Clock
from ...contracts.records import Absence
from ...oci.digest import Digest
from ...oci.errors import BlobUnknown, ManifestUnknown, NameUnknown, Unknown
from ...oci.reference import Repository
from .exchange import Command, Exchange

_PREFIX = "registry-mirror:1:missing:"
_KINDS: dict[str, type[Unknown]] = {
    kind.__name__: kind for kind in (Unknown, NameUnknown, ManifestUnknown, BlobUnknown)
}
_MOST = 4096  # bytes of a value
_MESSAGE = 500  # characters
_LONGEST = 3600.0  # seconds


class SharedAbsences:
    """Absences (see contracts), in Redis."""

    def __init__(self, exchange: Exchange, clock: Clock) -> None:
        self._exchange = exchange
        self._clock = clock

    def note(self, repository: Repository, digest: Digest, absence: Absence) -> None:
        if absence.kind.__name__ not in _KINDS:
            return
        until = self._clock.monotonic() + absence.pause
        value = json.dumps([absence.kind.__name__, absence.message[:_MESSAGE], absence.pause])
        name = _PREFIX + f"{repository}@{digest}"

        def write() -> Command | None:
            left = int((until - self._clock.monotonic()) * 1000)
            return ("SET", name, value, "PX", left) if left > 0 else None

        self._exchange.later(f"{repository}:missing {digest}", write)

    async def told(self, repository: Repository, digest: Digest) -> Absence | None:
        name = _PREFIX + f"{repository}@{digest}"
        value, left = await self._exchange.ask_all(("GET", name), ("PTTL", name))
        if not isinstance(value, bytes) or not isinstance(left, int) or left <= 0:
            return None
        return _decode(value, left / 1000)

    def forget(self, repository: Repository, digest: Digest) -> None:
        name = _PREFIX + f"{repository}@{digest}"
        self._exchange.later(f"{repository}:missing {digest}", lambda: ("DEL", name))


def _decode(value: bytes, left: float) -> Absence | None:
    """None for what is none of ours."""
    if len(value) > _MOST:
        return None
    try:
        kind, message, pause = json.loads(value)
        kind = _KINDS[kind]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_number = type(pause) in (int, float) and math.isfinite(pause) and 0 < pause <= _LONGEST
    if not isinstance(message, str) or not is_number:
        return None
    return Absence(kind, message[:_MESSAGE], float(pause), since=max(0.0, pause - left))
