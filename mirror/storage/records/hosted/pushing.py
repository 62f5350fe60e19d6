"""What pushes record. Each function runs within one transaction.

A repository's namespace is locked first: what a namespace has is changed by one transaction after
another. (In SQLite all are.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase

from sqlalchemy import Connection, Executable, bindparam, func, select, union, union_all, update
from sqlalchemy.dialects.postgresql import insert  # SQLite takes its ON CONFLICT as well

from ....contracts.hosted import (
    HostedManifest,
    HostedRepository,
    Missing,
    QuotaExceeded,
    TagImmutable,
    Visibility,
)
from ....contracts.webhooks import Happening, Subject
from ....frozen import dataclass
from ....oci.digest import Digest
from ....oci.reference import namespace_of
from .deliveries import tell
from .reading import repository as read_repository
from .tables import (
    children,
    links,
    manifests,
    namespaces,
    refs,
    repositories,
    tag_moves,
    tags,
)
from .words import manifest_row

_MOST_MOVES = 100
"""Entries of one tag's history."""

_MOST_MOVES_IN_ALL = 20_000
"""Entries of the histories of one repository's tags, deleted ones among them."""

_LOOK_EVERY = 500  # entries

# Apart from the repository, which is read when the lock is there: as it is then.
_LOCK = (
    select(namespaces.c.id, namespaces.c.used, namespaces.c.quota)
    .where(namespaces.c.name == bindparam("name"))
    .with_for_update()
)
_REPOSITORY = select(repositories.c.id, repositories.c.immutable).where(
    repositories.c.name == bindparam("repository")
)
_ADD_NAMESPACE = insert(namespaces).on_conflict_do_nothing()
_ADD_REPOSITORY = insert(repositories).on_conflict_do_nothing()
_HELD = union_all(
    select(links.c.repository_id).where(
        links.c.digest == bindparam("digest"), links.c.namespace_id == bindparam("namespace")
    ),
    select(manifests.c.repository_id).where(
        manifests.c.digest == bindparam("digest"),
        manifests.c.namespace_id == bindparam("namespace"),
    ),
).limit(1)
_add_link = insert(links)
_ADD_LINK = _add_link.on_conflict_do_update(
    index_elements=[links.c.repository_id, links.c.digest],
    set_={"relied_at": _add_link.excluded.relied_at},
)
_USE = (
    update(namespaces)
    .where(namespaces.c.id == bindparam("namespace"))
    .values(used=namespaces.c.used + bindparam("more"))
)
_named = (
    select(repositories.c.id)
    .where(repositories.c.name == bindparam("repository"))
    .scalar_subquery()
)
_RELY_ON_LINK = (
    update(links)
    .where(links.c.repository_id == _named, links.c.digest == bindparam("of"))
    .values(relied_at=bindparam("at"))
    .returning(links.c.size)
)
_RELY_ON_MANIFEST = (
    update(manifests)
    .where(manifests.c.repository_id == _named, manifests.c.digest == bindparam("of"))
    .values(relied_at=bindparam("at"))
)
_RELY_ON_LINKS = (
    update(links)
    .where(
        links.c.repository_id == bindparam("repository"),
        links.c.digest.in_(bindparam("digests", expanding=True)),
    )
    .values(relied_at=bindparam("at"))
    .returning(links.c.digest)
)
_RELY_ON_MANIFESTS = (
    update(manifests)
    .where(
        manifests.c.repository_id == bindparam("repository"),
        manifests.c.digest.in_(bindparam("digests", expanding=True)),
    )
    .values(relied_at=bindparam("at"))
    .returning(manifests.c.digest)
)
_PUSHED_AGAIN = (
    update(manifests)
    .where(
        manifests.c.repository_id == bindparam("repository"), manifests.c.digest == bindparam("of")
    )
    .values(pushed_at=bindparam("at"), relied_at=bindparam("at"), pushed_by=bindparam("who"))
)
_ADD_MANIFEST = insert(manifests)
_ADD_REFS = insert(refs).on_conflict_do_nothing()
_ADD_CHILDREN = insert(children)
_TAG = select(tags.c.digest).where(
    tags.c.repository_id == bindparam("repository"), tags.c.name == bindparam("tag")
)
_set_tag = insert(tags)
_SET_TAG = _set_tag.on_conflict_do_update(
    index_elements=[tags.c.repository_id, tags.c.name],
    set_={
        "digest": _set_tag.excluded.digest,
        "moved_at": _set_tag.excluded.moved_at,
        "moved_by": _set_tag.excluded.moved_by,
    },
)
_ADD_MOVE = insert(tag_moves).returning(tag_moves.c.id)
_OLDEST_MOVE = (
    select(tag_moves.c.id)
    .where(
        tag_moves.c.repository_id == bindparam("repository"), tag_moves.c.tag == bindparam("tag")
    )
    .order_by(tag_moves.c.id.desc())
    .offset(_MOST_MOVES)
    .limit(1)
)
_OLDEST_MOVE_IN_ALL = (
    select(tag_moves.c.id)
    .where(tag_moves.c.repository_id == bindparam("repository"))
    .order_by(tag_moves.c.id.desc())
    .offset(_MOST_MOVES_IN_ALL)
    .limit(1)
)
_PUSHED = (
    update(repositories)
    .where(repositories.c.id == bindparam("repository"))
    .values(pushed_at=bindparam("at"))
)


@dataclass(frozen=True, slots=True)
class Locked:
    """A repository that this transaction alone changes, until it ends."""

    id: int
    namespace_id: int
    namespace: str
    used: int
    quota: int | None
    immutable: tuple[str, ...]

    def keeps(self, tag: str) -> bool:
        return any(fnmatchcase(tag, pattern) for pattern in self.immutable)


def lock(connection: Connection, repository: str) -> Locked | None:
    """None where there is no such repository."""
    namespace = namespace_of(repository)
    locked = connection.execute(_LOCK, {"name": namespace}).first()
    if locked is None:
        return None
    row = connection.execute(_REPOSITORY, {"repository": repository}).first()
    if row is None:
        return None
    patterns = () if row[1] == "[]" else tuple(json.loads(row[1]))
    return Locked(row[0], locked[0], namespace, locked[1], locked[2], patterns)


def made(
    connection: Connection, repository: str, visibility: Visibility, now: float, by: str
) -> Locked:
    """The repository, locked; made where there is none."""
    found = lock(connection, repository)
    while found is None:
        name = namespace_of(repository)
        connection.execute(_ADD_NAMESPACE, {"name": name, "created_at": now})
        connection.execute(
            _ADD_REPOSITORY,
            {
                "namespace_id": connection.execute(_LOCK, {"name": name}).scalar_one(),
                "name": repository,
                "visibility": visibility.value,
                "created_at": now,
                "created_by": by,
            },
        )
        found = lock(connection, repository)
    return found


def create(
    connection: Connection, repository: str, visibility: Visibility, now: float, by: str
) -> HostedRepository:
    made(connection, repository, visibility, now, by)
    found = read_repository(connection, repository)
    assert found is not None  # noqa: S101 - it is locked
    return found


def add_blob(
    connection: Connection, repository: str, digest: Digest, size: int, now: float, by: str
) -> None:
    place = made(connection, repository, Visibility.PRIVATE, now, by)
    _link(connection, place, str(digest), size, now, by)


def mount(
    connection: Connection,
    repository: str,
    digest: Digest,
    sources: Sequence[str],
    now: float,
    by: str,
) -> bool:
    # Before rows of others: what waits for this namespace must not hold what its holder needs.
    connection.execute(_LOCK, {"name": namespace_of(repository)})
    size = None
    for source in sources:
        # The row is locked by that: while it is there, its content is.
        size = rely_on_blob(connection, source, digest, now)
        if size is not None:
            break
    if size is None:
        return False
    place = made(connection, repository, Visibility.PRIVATE, now, by)
    _link(connection, place, str(digest), size, now, by)
    return True


def rely_on_blob(connection: Connection, repository: str, digest: Digest, now: float) -> int | None:
    """The size of the blob, which stays as if it were pushed now."""
    asked = {"repository": repository, "of": str(digest), "at": now}
    size: int | None = connection.execute(_RELY_ON_LINK, asked).scalar()
    return size


def rely_on_manifest(connection: Connection, repository: str, digest: Digest, now: float) -> bool:
    asked = {"repository": repository, "of": str(digest), "at": now}
    return connection.execute(_RELY_ON_MANIFEST, asked).rowcount > 0


def put_manifest(
    connection: Connection,
    repository: str,
    manifest: HostedManifest,
    tag: str | None,
    now: float,
    by: str,
) -> Digest | None:
    place = made(connection, repository, Visibility.PRIVATE, now, by)
    digest = str(manifest.digest)
    _all_here(connection, place, manifest, now)
    before = None
    if tag is not None:
        before = connection.execute(_TAG, {"repository": place.id, "tag": tag}).scalar()
        if before not in (None, digest) and place.keeps(tag):
            raise TagImmutable(tag)
    again = connection.execute(
        _PUSHED_AGAIN, {"repository": place.id, "of": digest, "at": now, "who": by}
    )
    if not again.rowcount:
        _add_manifest(connection, place, manifest, now, by)
    if manifest.foreign:  # clients may send such layers, and then rely on them here
        asked = {"repository": place.id, "digests": sorted(map(str, manifest.foreign)), "at": now}
        sent = connection.execute(_RELY_ON_LINKS, asked).scalars().all()
        _refer(connection, place, manifest, _ADD_REFS, sent)
    if tag is not None:
        row = {"repository_id": place.id, "name": tag, "digest": digest}
        connection.execute(_SET_TAG, {**row, "moved_at": now, "moved_by": by})
        if before != digest:
            note_move(connection, place.id, tag, digest, now, by, is_new=before is None)
    connection.execute(_PUSHED, {"repository": place.id, "at": now})
    tell(
        connection,
        place.namespace,
        Happening(
            Subject.PUSH,
            repository,
            now,
            by,
            manifest.digest,
            tag or "",
            manifest.media_type,
            manifest.size,
        ),
    )
    return None if before is None else Digest.parse(before)


def note_move(
    connection: Connection,
    repository_id: int,
    tag: str,
    digest: str | None,
    now: float,
    by: str,
    *,
    is_new: bool = False,
) -> None:
    id = connection.execute(
        _ADD_MOVE,
        {"repository_id": repository_id, "tag": tag, "digest": digest, "at": now, "by": by},
    ).scalar_one()
    mine = tag_moves.c.repository_id == repository_id
    if not is_new:
        oldest = connection.execute(
            _OLDEST_MOVE, {"repository": repository_id, "tag": tag}
        ).scalar()
        if oldest is not None:
            connection.execute(
                tag_moves.delete().where(mine, tag_moves.c.tag == tag, tag_moves.c.id <= oldest)
            )
    if id % _LOOK_EVERY == 0:
        oldest = connection.execute(_OLDEST_MOVE_IN_ALL, {"repository": repository_id}).scalar()
        if oldest is not None:
            connection.execute(tag_moves.delete().where(mine, tag_moves.c.id <= oldest))


def measured(connection: Connection, namespace_id: int) -> None:
    """Looks anew how many bytes a namespace has, whose row is locked."""
    of_namespace = repositories.c.namespace_id == namespace_id
    has = union(
        *(
            select(table.c.digest, table.c.size).where(
                table.c.repository_id == repositories.c.id, of_namespace
            )
            for table in (links, manifests)
        )
    ).subquery()
    used = select(func.coalesce(func.sum(has.c.size), 0)).scalar_subquery()
    connection.execute(update(namespaces).where(namespaces.c.id == namespace_id).values(used=used))


def freed(connection: Connection, place: Locked, digest: str, size: int) -> None:
    """Something that had this content is gone from the repository: where it was the last of the
    namespace, that has less."""
    if not _has(connection, place, digest):
        connection.execute(_USE, {"namespace": place.namespace_id, "more": -size})


def _link(
    connection: Connection, place: Locked, digest: str, size: int, now: float, by: str
) -> None:
    _use(connection, place, digest, size)
    connection.execute(
        _ADD_LINK,
        {
            "repository_id": place.id,
            "digest": digest,
            "namespace_id": place.namespace_id,
            "size": size,
            "relied_at": now,
            "linked_by": by,
        },
    )


def _use(connection: Connection, place: Locked, digest: str, size: int) -> None:
    """The namespace gets this content, if it has it not. Raises QuotaExceeded."""
    if _has(connection, place, digest):
        return
    if place.quota is not None and place.used + size > place.quota:
        raise QuotaExceeded(place.namespace, place.used, place.quota, size)
    connection.execute(_USE, {"namespace": place.namespace_id, "more": size})


def _has(connection: Connection, place: Locked, digest: str) -> bool:
    asked = {"digest": digest, "namespace": place.namespace_id}
    return connection.execute(_HELD, asked).first() is not None


def _all_here(connection: Connection, place: Locked, manifest: HostedManifest, now: float) -> None:
    """What the manifest refers to is the repository's, and stays. Raises Missing."""
    missing: list[Digest] = []
    for statement, digests in (
        (_RELY_ON_LINKS, manifest.blobs),
        (_RELY_ON_MANIFESTS, manifest.manifests),
    ):
        if digests:
            asked = {
                "repository": place.id,
                "digests": sorted(map(str, digests)),
                "at": now,
            }
            found = set(connection.execute(statement, asked).scalars())
            missing += (each for each in digests if str(each) not in found)
    if missing:
        raise Missing(missing)


def _add_manifest(
    connection: Connection, place: Locked, manifest: HostedManifest, now: float, by: str
) -> None:
    row = manifest_row(manifest)
    _use(connection, place, str(manifest.digest), manifest.size)
    mine = {"repository_id": place.id, "namespace_id": place.namespace_id}
    connection.execute(
        _ADD_MANIFEST, {**row, **mine, "pushed_at": now, "relied_at": now, "pushed_by": by}
    )
    _refer(connection, place, manifest, _ADD_REFS, [str(each) for each in manifest.blobs])
    _refer(connection, place, manifest, _ADD_CHILDREN, [str(each) for each in manifest.manifests])


def _refer(
    connection: Connection,
    place: Locked,
    manifest: HostedManifest,
    statement: Executable,
    digests: Sequence[str],
) -> None:
    mine = {"repository_id": place.id, "manifest": str(manifest.digest)}
    if digests:
        rows = [{**mine, "digest": each} for each in dict.fromkeys(digests)]
        connection.execute(statement, rows)
