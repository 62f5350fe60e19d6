"""The keys that tokens are signed with: in the records, for all processes and nodes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping

import structlog

from ..contracts.identity import IdentityRecords
from ..oci.errors import RegistryError

log = structlog.get_logger()

TOKEN_LIFE = 300
"""Seconds. Docker takes less than 60 for 60; longer is of no use, for a client asks again."""

_USED = 86_400.0  # seconds for which new tokens are signed with one key
_KEPT = 16  # keys: as many processes may find at once that a new one is due
_LOOK = 60.0  # seconds after which the ring is read again


class KeyRing:
    """Keys by their ids. Any process that signs makes a new one when it is time."""

    def __init__(
        self,
        records: IdentityRecords,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._records = records
        self._wall = wall
        self._monotonic = monotonic
        self._keys: Mapping[str, tuple[bytes, float]] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()  # an older reading must not come after a newer one

    async def newest(self) -> tuple[str, bytes]:
        """The id and the key to sign with. Raises RegistryError where there is none, and none can
        be had."""
        await self._look(_LOOK)
        if self._is_due():
            async with self._reading:
                if self._is_due():
                    await self._records.rotate_signing_key(
                        secrets.token_hex(8), secrets.token_bytes(32), self._wall(), _KEPT
                    )
                    await self._read()  # of all that processes have made, all use the newest
        return self._newest()

    async def known(self, id: str) -> bytes | None:
        """The key by which a token may still be signed. One that is not known may have been made
        by another process a moment ago: the records are asked at once."""
        await self._look(_LOOK if id in self._keys else 0.0)
        found = self._keys.get(id)
        # A process may sign with the one before until it looks again.
        if found is None or self._wall() - found[1] > _USED + 2 * _LOOK + 2 * TOKEN_LIFE:
            return None
        return found[0]

    def _newest(self) -> tuple[str, bytes]:
        id = max(self._keys, key=lambda each: (self._keys[each][1], each))
        return id, self._keys[id][0]

    def _is_due(self) -> bool:
        return not self._keys or self._wall() - max(at for _, at in self._keys.values()) > _USED

    async def _look(self, after: float) -> None:
        """Reads the ring where it was not read so many seconds before now, or since. Whoever asks
        meanwhile shares a reading, so that tokens without a key cause one at a time."""
        asked = self._monotonic()
        if self._read_at is not None and asked - self._read_at < after:
            return
        async with self._reading:
            if self._read_at is not None and self._read_at > asked:
                return
            try:
                await self._read()
            except RegistryError as error:
                if not self._keys:
                    raise
                self._read_at = self._monotonic()
                log.warning("signing_keys_not_read", reason=str(error))

    async def _read(self) -> None:
        began = self._monotonic()
        found = await self._records.signing_keys()
        self._keys = {id: (secret, made_at) for id, secret, made_at in found}
        self._read_at = began
