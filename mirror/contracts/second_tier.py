"""Content behind the disk: larger, slower, shared by several mirrors, and not trusted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Protocol

from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from .content import StoredContent
from .files import OpenFile


class SecondTierFault(Exception):
    """The second tier gives no answer, or broke off in the midst of a stream."""


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
    """Keeps content by its digest. Its faults are its own: what it does not take, or cannot look
    for, it does not have.

    It may hang: its callers bound the time. It knows nothing of which repository shows a digest."""

    async def get(self, digest: Digest, range: ByteRange | None = None) -> TierStream | None:
        """The content from `range.start` up to its stop, or to its end; None when the tier has it
        not, or no byte of that range. Raises SecondTierFault where it is away, or refuses: the
        content may be there."""

    async def put(self, digest: Digest, file: OpenFile, size: int) -> bool:
        """Keeps the first `size` bytes of this open file; others see all of them, or none. Whether
        it does. What it has of that digest may stay instead: who knows that to be wrong sets it
        aside first (`FarContent`), where that can be done."""

    async def contains(self, digest: Digest) -> bool:
        """Whether the tier has something of this name."""

    async def close(self) -> None:
        """Returns at once, also when the tier hangs."""


class FarFault(Exception):
    """The object store does not do what is asked; the message has its words, without secrets."""


@dataclass(frozen=True, slots=True)
class FarObject:
    """`name` is the object's key without the prefix; `digest` None: none of ours. `at`: when it was
    written or renewed, in seconds since the epoch, by the store's clock."""

    name: str
    digest: Digest | None
    size: int
    at: float


@dataclass(frozen=True, slots=True)
class FarPage:
    """`following`: what the next page comes after; None: there is no other page."""

    objects: tuple[FarObject, ...]
    following: str | None


class FarContent(Protocol):
    """What can be done with a second tier beside reading and writing it, where it is an object
    store. Each raises FarFault, and none hangs: they bound their time."""

    async def page(self, after: str, limit: int) -> FarPage:
        """Objects in the order of their names, after this one ("" for the first page)."""

    async def remove(self, names: Collection[str]) -> int:
        """Removes them, and says how many are gone now."""

    async def set_aside(self, digest: Digest) -> None:
        """What is there of this digest is wrong: it is moved to where it is read by nobody but
        people, so that a right one can take its place."""

    async def renew(self, digest: Digest) -> None:
        """It was used: its time is now."""

    async def presigned(self, digest: Digest, seconds: int) -> str:
        """A URL by which a client GETs this digest until then, signed for the endpoint that clients
        see."""


class Turn(Protocol):
    """Something that one node at a time does, and not again for a while. Thrift, not a lock: two
    that do it at once harm nothing. Raises nothing: where nobody can say, it is not one's turn."""

    async def take(self) -> bool:
        """Whether it is this node's turn now."""

    async def keep(self) -> bool:
        """Whether it still is: to be asked at each step, twice a minute at least."""

    async def give_back(self, again_after: float = 0.0) -> None:
        """It is nobody's turn for so many seconds."""

    async def close(self) -> None: ...


class FarStanding(IntEnum):
    """Of content that is here: whether the second tier has it too. `WRONG`: what it has is wrong,
    and is yet to be replaced."""

    NOT_YET = 0
    FAR = 1
    WRONG = 2


@dataclass(frozen=True, slots=True)
class Due:
    """Content that is to be given to the second tier. `came`: when it came here, in seconds since
    the epoch; 0: nobody waits for it: it was here before there was a second tier, or has gone from
    there, perhaps. `used`: when it was last used. `is_wrong`: in place of something that is there.
    """

    digest: Digest
    size: int
    came: float
    used: float
    is_wrong: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is due. `oldest`: when what waits for longest came, in seconds since the epoch; without
    what was here before there was a second tier."""

    count: int
    oldest: float | None


class FarRecords(Protocol):
    """Which content of the store is in the second tier too, as all processes of this node see it.
    Recorded with the content itself: it outlives them, and ends with it. Raises nothing: where its
    records cannot be read, nothing is far, and nothing is due."""

    def is_far(self, digest: Digest) -> bool:
        """Of what is here: a few microseconds. What is not here is not known to be."""

    async def note(self, digest: Digest, standing: FarStanding) -> None: ...

    async def given(self, due: Due) -> None:
        """It is far now, unless something else was noted of it since it was seen to be due."""

    async def sources(self) -> Sequence[str]:
        """Marks of who brought what is due, 256 at most; "" where nobody has recorded it."""

    async def due(
        self, source: str, newest: bool, passed_over: Collection[Digest], count: int
    ) -> Sequence[Due]:
        """Of this source, what came last, or first."""

    async def doubt(self, after: str, count: int, noted_before: float) -> str | None:
        """Of so many pieces of content, in the order of digests after this one, what was noted as
        far before that moment is due again: it may have been removed there. Returns the last one;
        None: there are no more."""

    async def backlog(self) -> Backlog: ...

    async def open(self, digest: Digest) -> StoredContent | None:
        """The content, which is not used by that."""
