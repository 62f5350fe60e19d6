"""Sessions of the page in memory."""

from __future__ import annotations

from mirror.contracts.identity import Session


class MemorySessions:
    """SessionRecords without a database."""

    def __init__(self) -> None:
        self.there: dict[bytes, Session] = {}

    async def add_session(self, key: bytes, session: Session, most: int) -> None:
        self.there[key] = session
        now = session.created_at
        self.there = {key: each for key, each in self.there.items() if each.expires_at > now}
        own = [key for key, each in self.there.items() if each.user == session.user]
        own.sort(key=lambda key: self.there[key].created_at)
        for old in own[: max(0, len(own) - most)]:
            del self.there[old]

    async def session(self, key: bytes) -> Session | None:
        return self.there.get(key)

    async def remove_session(self, key: bytes) -> None:
        self.there.pop(key, None)
