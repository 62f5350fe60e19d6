"""Bytes that clients push, before anybody knows their digest; and content that must stay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from ..frozen import dataclass
from ..oci.digest import Digest
from .files import OpenFile
from .registry import Body

Bring = Callable[[Digest, OpenFile, int], Awaitable[None]]
"""Brings the first bytes of this open file, so many, to where they have to be besides. Raises
RegistryError."""


class Uploads(Protocol):
    """Sessions of a store, shared by its processes: one may begin a session and another end it.

    The bytes of a session take room as those of a download do. A session that nobody has written to
    for a day is removed. Every method but `begin` raises UploadUnknown for a session that is none.
    """

    async def begin(self, repository: str) -> str:
        """Opens a session for this repository, and gives its id: 128 random bits or more, in
        letters and digits. Raises RateLimited where the repository's namespace has too many open.
        """

    async def append(self, repository: str, session: str, start: int | None, body: Body) -> int:
        """As Writer.append. One writer at a time: raises Unavailable while another one writes.
        Raises StoreFull, or a SizeInvalid of the body's, and then the session has what it had."""

    async def size(self, repository: str, session: str) -> int:
        """Bytes of it that are here."""

    async def under_way(self, repository: str) -> int:
        """Bytes of all sessions of this repository's namespace."""

    async def finish(
        self, repository: str, session: str, digest: Digest, bring: Bring | None = None
    ) -> int:
        """Makes it content of the store that is held, durably, and ends the session; returns its
        size. Where the store has that content already, it is kept once. Raises ContentMismatch,
        and removes the session, when the bytes are another than `digest`; StoreFull, where the
        session stays; Unavailable while another one writes.

        `bring` is given the proven bytes before that, and what it raises is raised: the session
        stays. What it has brought elsewhere is not held here."""

    async def cancel(self, repository: str, session: str) -> None:
        """Removes it."""


@dataclass(frozen=True, slots=True)
class Held:
    """`held_at`: when it was last held anew, in seconds since the epoch."""

    digest: Digest
    size: int
    held_at: float


class CollectedContent(Protocol):
    """What a collection asks of content that stays until it is released."""

    @property
    def is_shared(self) -> bool:
        """Whether all processes that share the records share this, too: then one at a time looks
        after it."""

    async def release(self, digest: Digest, held_before: float) -> int:
        """Removes content that was held, unless it was held anew at or after `held_before` (seconds
        since the epoch), is pinned, or is needed by content of the mirror's: then it is evicted
        like any other. Returns the bytes that were removed.

        What holds it again meanwhile waits until the file is gone, and then finds that it is not
        here: content is never removed behind a `hold`, `put_held` or `finish` that has returned.
        """

    async def held(self, held_before: float, after: Digest | None, count: int) -> Sequence[Held]:
        """What is held, and was not held anew at or after that moment, in the order of digests."""

    async def keep(self, digests: Collection[Digest]) -> Sequence[Digest]:
        """Holds what is here of these and not held, as after the index was lost; leaves what is
        held as it is, with its time. Gives those that are not here."""


class HeldContent(CollectedContent, Protocol):
    """Content that is never evicted: what was pushed is nowhere else."""

    async def put_held(self, digest: Digest, data: bytes) -> None:
        """Small content, whole: it is here, durably, and held, when this returns. Raises StoreFull,
        and ContentMismatch when the bytes are another."""

    async def hold(self, digest: Digest) -> int | None:
        """Has content that is here stay, from now on; its size, None when it is not here. Raises
        StoreFull where that cannot be recorded."""

    async def let_go(self, digest: Digest) -> None:
        """It may be evicted from now on: it is elsewhere, durably."""


class OthersUploads(Protocol):
    """Sessions of other nodes of the fleet, by the URL of the node: what is asked is done there,
    and answered as by Uploads. UploadUnknown, too, where that node is gone: what it had of the
    upload is gone with it, and clients begin anew."""

    async def append(
        self, url: str, repository: str, session: str, start: int | None, body: Body
    ) -> int:
        """The body goes there as it comes, at the pace at which it is written there."""

    async def size(self, url: str, repository: str, session: str) -> int: ...

    async def finish(self, url: str, repository: str, session: str, digest: Digest) -> int: ...

    async def cancel(self, url: str, repository: str, session: str) -> None: ...
