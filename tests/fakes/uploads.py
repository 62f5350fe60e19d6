"""Sessions of uploads, and what they become, in memory."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from mirror.contracts.registry import Body, Outcome
from mirror.contracts.uploads import Bring
from mirror.oci.digest import Digest
from mirror.oci.errors import ContentMismatch, SizeInvalid, UploadRangeInvalid, UploadUnknown

from .content import MemoryFile, MemoryHit
from .hosted import MemoryHeld


class MemoryShelf:
    """What a MemoryHeld has, as the part of a ContentStore that a hosted registry asks."""

    def __init__(self, held: MemoryHeld) -> None:
        self._held = held

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        data = self._held.here.get(digest)
        return None if data is None or len(data) > limit else data

    async def open(self, digest: Digest) -> MemoryHit | None:
        data = self._held.here.get(digest)
        return None if data is None else MemoryHit(digest, data, Outcome.HIT)


@dataclass
class MemoryUploads:
    """An Uploads without a disk."""

    held: MemoryHeld
    sessions: dict[tuple[str, str], bytearray] = field(default_factory=dict)

    async def begin(self, repository: str) -> str:
        session = secrets.token_hex(16)
        self.sessions[repository, session] = bytearray()
        return session

    async def append(self, repository: str, session: str, start: int | None, body: Body) -> int:
        data = self._of(repository, session)
        if start is not None and start != len(data):
            raise UploadRangeInvalid(len(data))
        before = len(data)
        try:
            await body.pour(data.extend)
        except SizeInvalid:
            del data[before:]
            raise
        return len(data)

    async def size(self, repository: str, session: str) -> int:
        return len(self._of(repository, session))

    async def under_way(self, repository: str) -> int:
        namespace = repository.partition("/")[0]
        return sum(
            len(data)
            for (name, _), data in self.sessions.items()
            if name.partition("/")[0] == namespace
        )

    async def finish(
        self, repository: str, session: str, digest: Digest, bring: Bring | None = None
    ) -> int:
        data = bytes(self._of(repository, session))
        if bring is not None:
            await bring(digest, MemoryFile.of(data), len(data))
        del self.sessions[repository, session]
        if not digest.matches(data):
            raise ContentMismatch(f"the bytes are not {digest}")
        await self.held.put_held(digest, data)
        return len(data)

    async def cancel(self, repository: str, session: str) -> None:
        self._of(repository, session)
        del self.sessions[repository, session]

    def _of(self, repository: str, session: str) -> bytearray:
        found = self.sessions.get((repository, session))
        if found is None:
            raise UploadUnknown("there is no such upload")
        return found
