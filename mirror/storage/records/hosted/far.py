"""ShelfRecords: what there may be in the object store, and what is about to go from there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert  # SQLite takes its ON CONFLICT as well

from ....contracts.far_shelf import Gone, Kept
from ....contracts.uploads import Held
from ....oci.digest import Digest
from .collecting import CollectingRecords, needed
from .tables import contents

_add = insert(contents)
_HOLD = _add.on_conflict_do_update(
    index_elements=[contents.c.digest],
    set_={"held_at": _add.excluded.held_at, "size": _add.excluded.size},
    where=contents.c.removing_at.is_(None),
).returning(contents.c.digest)
_ADOPT = _add.on_conflict_do_nothing().returning(contents.c.digest)
_RELY = (
    update(contents)
    .where(contents.c.digest == bindparam("of"), contents.c.removing_at.is_(None))
    .values(held_at=bindparam("at"))
)
_MARK = (
    update(contents)
    .where(
        contents.c.digest == bindparam("of"),
        (contents.c.held_at < bindparam("before")) | contents.c.removing_at.is_not(None),
    )
    .values(removing_at=bindparam("at"))
    .returning(contents.c.size)
)
_UNMARK = update(contents).where(contents.c.digest == bindparam("of")).values(removing_at=None)
_REMOVE = delete(contents).where(
    contents.c.digest == bindparam("of"), contents.c.removing_at.is_not(None)
)
_MARKED = select(contents.c.removing_at).where(contents.c.digest == bindparam("of"))


def rely_on(connection: Connection, digest: Digest, now: float) -> None:
    """To be called first in a transaction that records this content: until that ends, nobody
    begins to remove it. Raises Gone."""
    if not connection.execute(_RELY, {"of": str(digest), "at": now}).rowcount:
        raise Gone(digest)


def rely_on_nothing(connection: Connection, digest: Digest, now: float) -> None:
    """Where there is no object store: what is recorded is held on the disk."""


class FarContentRecords(CollectingRecords):
    """ShelfRecords (see contracts), beside CollectionRecords, whose lock its marks go by."""

    async def hold(self, digest: Digest, size: int, now: float) -> bool:
        return await self._write(_hold, digest, size, now)

    async def begin_removal(self, digest: Digest, held_before: float, now: float) -> int | None:
        return await self._write(_begin_removal, digest, held_before, now)

    async def end_removal(self, digest: Digest) -> None:
        await self._write(_end_removal, digest)

    async def abandoned(self, digest: Digest, marked_before: float) -> bool:
        marked_at = await self._read(_marked_at, digest)
        if marked_at is None:
            return True
        if marked_at >= marked_before:
            return False
        async with self.alone() as is_alone:
            if not is_alone:  # its collector lives, or another one does, who takes it over
                return False
            await self._write(_unmark, digest)
        return True

    async def held_far(
        self, held_before: float, after: Digest | None, count: int
    ) -> Sequence[Held]:
        return await self._read(_held_far, held_before, after, count)

    async def adopt(self, found: Collection[Kept]) -> int:
        return await self._write(_adopt, found) if found else 0


def _hold(connection: Connection, digest: Digest, size: int, now: float) -> bool:
    row = {"digest": str(digest), "size": size, "held_at": now}
    return connection.execute(_HOLD, row).first() is not None


def _begin_removal(
    connection: Connection, digest: Digest, held_before: float, now: float
) -> int | None:
    """The row is locked first. A push that was before that is seen by the second statement, and
    one that is after it finds the mark."""
    asked = {"of": str(digest), "before": held_before, "at": now}
    size: int | None = connection.execute(_MARK, asked).scalar()
    if size is None:
        return None
    if needed(connection, [digest]):
        connection.execute(_UNMARK, {"of": str(digest)})
        return None
    return size


def _end_removal(connection: Connection, digest: Digest) -> None:
    connection.execute(_REMOVE, {"of": str(digest)})


def _marked_at(connection: Connection, digest: Digest) -> float | None:
    marked_at: float | None = connection.execute(_MARKED, {"of": str(digest)}).scalar()
    return marked_at


def _unmark(connection: Connection, digest: Digest) -> None:
    connection.execute(_UNMARK, {"of": str(digest)})


def _held_far(
    connection: Connection, held_before: float, after: Digest | None, count: int
) -> Sequence[Held]:
    wanted = (
        select(contents.c.digest, contents.c.size, contents.c.held_at)
        .where((contents.c.held_at < held_before) | contents.c.removing_at.is_not(None))
        .order_by(contents.c.digest)
        .limit(count)
    )
    if after is not None:
        wanted = wanted.where(contents.c.digest > str(after))
    return [
        Held(Digest.parse(digest), size, held_at)
        for digest, size, held_at in connection.execute(wanted)
    ]


def _adopt(connection: Connection, found: Collection[Kept]) -> int:
    rows = [{"digest": str(one.digest), "size": one.size, "held_at": one.at} for one in found]
    return sum(connection.execute(_ADOPT, row).first() is not None for row in rows)
