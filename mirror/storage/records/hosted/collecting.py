"""CollectionRecords: what no record needs any more, found and taken out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    select,
    text,
    union,
)

from ....contracts.hosted import Garbage, HostedManifest, HostedTag, LooseBlob, Visibility
from ....contracts.webhooks import Happening, Subject
from ....oci.digest import Digest
from ....oci.reference import namespace_of
from ....threads import aside
from ...owner import give
from .database import Database
from .deliveries import tell
from .pushing import Locked, freed, lock, note_move
from .tables import children, links, manifests, namespaces, refs, repositories, tags
from .words import slices

_LOCK = 0x6D6972726F73  # of PostgreSQL's advisory locks: whoever collects

_relied_before: BindParameter[float] = bindparam("relied_before")

_other = links.alias()
_is_loose = (links.c.relied_at < _relied_before) & ~select(refs.c.manifest).where(
    refs.c.repository_id == links.c.repository_id, refs.c.digest == links.c.digest
).exists()
_LOOSE = (
    select(
        repositories.c.name,
        links.c.digest,
        links.c.size,
        select(func.count())
        .select_from(_other)
        .where(_other.c.digest == links.c.digest)
        .scalar_subquery(),
    )
    .where(repositories.c.id == links.c.repository_id, _is_loose)
    .order_by(links.c.repository_id, links.c.digest)
    .limit(bindparam("count"))
)
_is_empty = (
    (repositories.c.created_at < _relied_before)
    & (repositories.c.visibility == Visibility.PRIVATE.value)
    & repositories.c.pushed_at.is_(None)
    & (repositories.c.description == "")
    & (repositories.c.immutable == "[]")
    & (repositories.c.retention == "[]")
    & ~select(links.c.digest).where(links.c.repository_id == repositories.c.id).exists()
    & ~select(manifests.c.digest).where(manifests.c.repository_id == repositories.c.id).exists()
)
_EMPTY = (
    select(repositories.c.name)
    .where(_is_empty)
    .order_by(repositories.c.name)
    .limit(bindparam("count"))
)
_REMOVE_LINK = (
    delete(links)
    .where(
        links.c.repository_id == bindparam("repository"),
        links.c.digest == bindparam("of"),
        _is_loose,
    )
    .returning(links.c.size)
)
_REMOVE_REPOSITORY = delete(repositories).where(
    repositories.c.name == bindparam("repository"), _is_empty
)


class CollectingRecords:
    """CollectionRecords (see contracts)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read = database.read
        self._write = database.write

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        taking = asyncio.ensure_future(self._database.aside(_lock))
        try:
            lock = await asyncio.shield(taking)
        except asyncio.CancelledError:  # a thread may have it by now
            taking.add_done_callback(_left)
            raise
        if lock is None:
            yield False
            return
        try:
            yield True
        finally:
            await asyncio.shield(aside(lock))

    async def garbage(self, relied_before: float, count: int) -> Garbage:
        return await self._read(_garbage, relied_before, count)

    async def remove(self, garbage: Garbage, relied_before: float) -> Garbage:
        return await self._write(_remove, garbage, relied_before)

    async def expire(
        self,
        repository: str,
        tags: Sequence[HostedTag],
        manifests: Sequence[HostedManifest],
        relied_before: float,
        now: float,
        by: str,
    ) -> tuple[Sequence[HostedTag], Sequence[HostedManifest]]:
        return await self._write(_expire, repository, tags, manifests, relied_before, now, by)

    async def needed(self, digests: Collection[Digest]) -> Collection[Digest]:
        return await self._read(needed, digests)

    async def content(self, after: Digest | None, count: int) -> Sequence[Digest]:
        return await self._read(_content, after, count)


def _left(taking: asyncio.Future[Callable[[], None] | None]) -> None:
    """Nobody collects under the lock that was taken: it is given back."""
    if not taking.cancelled() and taking.exception() is None and (end := taking.result()):
        aside(end)


def _lock(database: Database) -> Callable[[], None] | None:
    """Takes the collectors' lock, and gives what ends it; None where another one has it."""
    if database.engine.dialect.name == "postgresql":
        connection = database.connect().execution_options(isolation_level="AUTOCOMMIT")
        asked = text(f"SELECT pg_try_advisory_lock({_LOCK})")
        if not connection.execute(asked).scalar():
            connection.close()
            return None

        def end() -> None:
            # A connection that is gone has taken its lock with it.
            connection.invalidate()
            connection.close()

        return end
    path = f"{database.engine.url.database}.collects"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        give(fd, database.folder)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return lambda: os.close(fd)


def _garbage(connection: Connection, relied_before: float, count: int) -> Garbage:
    asked = {"relied_before": relied_before, "count": count}
    return Garbage(
        [
            LooseBlob(name, Digest.parse(digest), size, owners)
            for name, digest, size, owners in connection.execute(_LOOSE, asked)
        ],
        list(connection.execute(_EMPTY, asked).scalars()),
    )


def _remove(connection: Connection, garbage: Garbage, relied_before: float) -> Garbage:
    # A push that was before this is seen by what follows, and one that is after it waits.
    named = {namespace_of(blob.repository) for blob in garbage.blobs}
    named |= {namespace_of(name) for name in garbage.repositories}
    connection.execute(
        select(namespaces.c.id)
        .where(namespaces.c.name.in_(sorted(named)))
        .order_by(namespaces.c.name)
        .with_for_update()
    )
    places: dict[str, Locked | None] = {}
    blobs: list[LooseBlob] = []
    for blob in garbage.blobs:
        if blob.repository not in places:
            places[blob.repository] = lock(connection, blob.repository)
        place, digest = places[blob.repository], str(blob.digest)
        if place is None:
            continue
        size = connection.execute(
            _REMOVE_LINK, {"repository": place.id, "of": digest, "relied_before": relied_before}
        ).scalar()
        if size is not None:
            freed(connection, place, digest, size)
            blobs.append(blob)
    gone = [
        name
        for name in garbage.repositories
        if connection.execute(
            _REMOVE_REPOSITORY, {"repository": name, "relied_before": relied_before}
        ).rowcount
    ]
    return Garbage(blobs, gone)


def _expire(
    connection: Connection,
    repository: str,
    old_tags: Sequence[HostedTag],
    old_manifests: Sequence[HostedManifest],
    relied_before: float,
    now: float,
    by: str,
) -> tuple[Sequence[HostedTag], Sequence[HostedManifest]]:
    place = lock(connection, repository)
    if place is None:
        return (), ()
    gone = []
    for tag in old_tags:
        removed = connection.execute(
            delete(tags).where(
                tags.c.repository_id == place.id,
                tags.c.name == tag.name,
                tags.c.digest == str(tag.digest),
                tags.c.moved_at == tag.moved_at,
            )
        )
        if removed.rowcount:
            gone.append(tag)
            note_move(connection, place.id, tag.name, None, now, by)
            happening = Happening(Subject.DELETE, repository, now, by, tag.digest, tag.name)
            tell(connection, place.namespace, happening)
    leaving = _unneeded(
        connection, place, [str(one.digest) for one in old_manifests], relied_before
    )
    expired = [one for one in old_manifests if str(one.digest) in leaving]
    for one in expired:
        digest = str(one.digest)
        connection.execute(
            delete(manifests).where(
                manifests.c.repository_id == place.id, manifests.c.digest == digest
            )
        )
        freed(connection, place, digest, one.size)
        happening = Happening(
            Subject.DELETE, repository, now, by, one.digest, "", one.media_type, one.size
        )
        tell(connection, place.namespace, happening)
    return gone, expired


def _unneeded(
    connection: Connection, place: Locked, digests: Sequence[str], relied_before: float
) -> set[str]:
    """Those of these manifests that no tag refers to, and no manifest that stays."""
    leaving: set[str] = set()
    listed_by: dict[str, set[str]] = {}
    for some in slices(digests):
        tagged = tags.c.repository_id == place.id, tags.c.digest == manifests.c.digest
        # Locked: whoever relies on one meanwhile has done so, or waits and finds it gone.
        leaving.update(
            connection.execute(
                select(manifests.c.digest)
                .where(
                    manifests.c.repository_id == place.id,
                    manifests.c.digest.in_(some),
                    manifests.c.relied_at < relied_before,
                    ~select(tags.c.name).where(*tagged).exists(),
                )
                .order_by(manifests.c.digest)
                .with_for_update(of=manifests)
            ).scalars()
        )
        for index, child in connection.execute(
            select(children.c.manifest, children.c.digest).where(
                children.c.repository_id == place.id, children.c.digest.in_(some)
            )
        ):
            listed_by.setdefault(child, set()).add(index)
    while True:
        needed = {each for each in leaving if listed_by.get(each, set()) - leaving}
        if not needed:
            return leaving
        leaving -= needed


def needed(connection: Connection, digests: Collection[Digest]) -> Collection[Digest]:
    """What a manifest refers to as a blob is its repository's blob: see the foreign key."""
    found: set[str] = set()
    for some in slices([str(each) for each in digests]):
        for table in (links, manifests, children):
            found.update(
                connection.execute(
                    select(table.c.digest).where(table.c.digest.in_(some)).distinct()
                ).scalars()
            )
    return {each for each in digests if str(each) in found}


def _content(connection: Connection, after: Digest | None, count: int) -> Sequence[Digest]:
    def of(column: Column[str]) -> Select[tuple[str]]:
        some = select(column).distinct().order_by(column).limit(count)
        if after is not None:
            some = some.where(column > str(after))
        return select(some.subquery().c[0].label("digest"))

    both = union(of(links.c.digest), of(manifests.c.digest)).subquery()
    page = select(both.c.digest).order_by(both.c.digest).limit(count)
    return [Digest.parse(each) for each in connection.execute(page).scalars()]
