"""What is taken out of repositories, and their settings. Each function is within a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, delete, select, update

from ....contracts.hosted import (
    HostedRepository,
    Needed,
    RetentionRule,
    TagImmutable,
    Visibility,
)
from ....contracts.webhooks import Happening, Subject
from ....oci.digest import Digest
from .deliveries import tell
from .pushing import freed, lock, measured, note_move
from .reading import repository as read_repository
from .tables import children, links, manifests, refs, repositories, tag_moves, tags
from .words import clean, retention_text


def change(
    connection: Connection,
    repository: str,
    visibility: Visibility | None,
    description: str | None,
    immutable: Sequence[str] | None,
    retention: Sequence[RetentionRule] | None,
) -> HostedRepository | None:
    given = {
        "visibility": None if visibility is None else visibility.value,
        "description": None if description is None else clean(description),
        "immutable": None if immutable is None else json.dumps(list(immutable)),
        "retention": None if retention is None else retention_text(retention),
    }
    values = {name: value for name, value in given.items() if value is not None}
    if values:
        connection.execute(
            update(repositories).where(repositories.c.name == repository).values(values)
        )
    return read_repository(connection, repository)


def delete_repository(connection: Connection, repository: str, now: float, by: str) -> bool:
    place = lock(connection, repository)
    if place is None:
        return False
    for table in (refs, children, tags, tag_moves, manifests, links):
        connection.execute(delete(table).where(table.c.repository_id == place.id))
    connection.execute(delete(repositories).where(repositories.c.id == place.id))
    measured(connection, place.namespace_id)
    tell(connection, place.namespace, Happening(Subject.DELETE, repository, now, by))
    return True


def delete_tag(connection: Connection, repository: str, tag: str, now: float, by: str) -> bool:
    place = lock(connection, repository)
    if place is None:
        return False
    mine = (tags.c.repository_id == place.id) & (tags.c.name == tag)
    digest = connection.execute(select(tags.c.digest).where(mine)).scalar()
    if digest is None:
        return False
    if place.keeps(tag):
        raise TagImmutable(tag)
    connection.execute(delete(tags).where(mine))
    note_move(connection, place.id, tag, None, now, by)
    happening = Happening(Subject.DELETE, repository, now, by, Digest.parse(digest), tag)
    tell(connection, place.namespace, happening)
    return True


def delete_manifest(
    connection: Connection, repository: str, digest: Digest, now: float, by: str
) -> bool:
    place = lock(connection, repository)
    if place is None:
        return False
    text = str(digest)
    tagged = (tags.c.repository_id == place.id) & (tags.c.digest == text)
    names = list(connection.execute(select(tags.c.name).where(tagged)).scalars())
    for name in names:
        if place.keeps(name):
            raise TagImmutable(name)
    connection.execute(delete(tags).where(tagged))
    mine = (manifests.c.repository_id == place.id) & (manifests.c.digest == text)
    row = connection.execute(
        delete(manifests).where(mine).returning(manifests.c.media_type, manifests.c.size)
    ).first()
    if row is None:
        return False
    for name in names:
        note_move(connection, place.id, name, None, now, by)
    freed(connection, place, text, row[1])
    happening = Happening(
        Subject.DELETE, repository, now, by, digest, media_type=row[0], size=row[1]
    )
    tell(connection, place.namespace, happening)
    return True


def delete_blob(connection: Connection, repository: str, digest: Digest) -> bool:
    place = lock(connection, repository)
    if place is None:
        return False
    text = str(digest)
    user = connection.execute(
        select(refs.c.manifest)
        .where(refs.c.repository_id == place.id, refs.c.digest == text)
        .limit(1)
    ).scalar()
    if user is not None:
        raise Needed(Digest.parse(user))
    size = connection.execute(
        delete(links)
        .where(links.c.repository_id == place.id, links.c.digest == text)
        .returning(links.c.size)
    ).scalar()
    if size is None:
        return False
    freed(connection, place, text, size)
    return True
