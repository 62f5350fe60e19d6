"""What is asked of hosted records about repositories. Each function is one statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from sqlalchemy import ColumnElement, Connection, bindparam, false, func, or_, select, true

from ....contracts.hosted import (
    HostedManifest,
    HostedRepository,
    HostedTag,
    Quota,
    Seen,
    TagMove,
    TagOrder,
    Visibility,
)
from ....oci.digest import Digest
from .tables import links, manifests, namespaces, repositories, tag_moves, tags
from .words import MANIFEST, REPOSITORY, TAG, clean, manifest_of, repository_of, slices, tag_of

_MOST_REFERRERS = 5_000
_MOST = 100_000
"""Of rows that are given at once, where nobody says how many."""

_PAGE = 500

_repository = repositories.c.name == bindparam("repository")
_of_tags = (tags.c.repository_id == repositories.c.id) & _repository
_of_manifests = (manifests.c.repository_id == repositories.c.id) & _repository
_of_links = (links.c.repository_id == repositories.c.id) & _repository

_REPOSITORY = select(*REPOSITORY).where(_repository)
_RESOLVE = select(*TAG).where(_of_tags, tags.c.name == bindparam("tag"))
_HAS_MANIFEST = select(manifests.c.relied_at).where(
    _of_manifests, manifests.c.digest == bindparam("digest")
)
_MANIFEST = select(*MANIFEST).where(_of_manifests, manifests.c.digest == bindparam("digest"))
_MANIFESTS = (
    select(*MANIFEST)
    .where(_of_manifests, manifests.c.digest > bindparam("last"))
    .order_by(manifests.c.digest)
    .limit(bindparam("count"))
)
_BLOB = select(links.c.size, links.c.relied_at).where(
    _of_links, links.c.digest == bindparam("digest")
)
_TAGS = (
    select(*TAG)
    .where(_of_tags, tags.c.name > bindparam("last"))
    .order_by(tags.c.name)
    .limit(bindparam("count"))
)
# Names alone: SQLite has them in the index by digest, and with more it goes through all tags.
_TAGS_OF = (
    select(tags.c.name)
    .where(_of_tags, tags.c.digest == bindparam("digest"))
    .order_by(tags.c.name)
    .limit(_MOST)
)
_IMAGE_SIZES = select(manifests.c.digest, manifests.c.image_size).where(
    _of_manifests, manifests.c.digest.in_(bindparam("digests", expanding=True))
)
_REFERRERS = (
    select(*MANIFEST)
    .where(_of_manifests, manifests.c.subject == bindparam("subject"))
    .order_by(manifests.c.digest)
    .limit(_MOST_REFERRERS)
)
_HISTORY = (
    select(tag_moves.c.tag, tag_moves.c.digest, tag_moves.c.at, tag_moves.c.by)
    .where(
        tag_moves.c.repository_id == repositories.c.id,
        _repository,
        tag_moves.c.tag == bindparam("tag"),
    )
    .order_by(tag_moves.c.id.desc())
    .limit(bindparam("count"))
)
_OWNERS = (
    select(repositories.c.name)
    .where(links.c.repository_id == repositories.c.id, links.c.digest == bindparam("digest"))
    .order_by(repositories.c.name)
    .limit(bindparam("count"))
)
_USAGE = select(namespaces.c.used).where(namespaces.c.name == bindparam("namespace"))
_QUOTA = _USAGE.add_columns(namespaces.c.quota)


def repository(connection: Connection, name: str) -> HostedRepository | None:
    row = connection.execute(_REPOSITORY, {"repository": name}).first()
    return None if row is None else repository_of(row)


def resolve(connection: Connection, repository: str, tag: str) -> HostedTag | None:
    row = connection.execute(_RESOLVE, {"repository": repository, "tag": tag}).first()
    return None if row is None else tag_of(row)


def manifest_relied_at(connection: Connection, repository: str, digest: Digest) -> float | None:
    """When somebody last relied on the manifest; None where there is none."""
    asked = {"repository": repository, "digest": str(digest)}
    at: float | None = connection.execute(_HAS_MANIFEST, asked).scalar()
    return at


def manifest(connection: Connection, repository: str, digest: Digest) -> HostedManifest | None:
    row = connection.execute(_MANIFEST, {"repository": repository, "digest": str(digest)}).first()
    return None if row is None else manifest_of(row)


def blob(connection: Connection, repository: str, digest: Digest) -> tuple[int, float] | None:
    """Its size, and when somebody last relied on it."""
    row = connection.execute(_BLOB, {"repository": repository, "digest": str(digest)}).first()
    return None if row is None else (row[0], row[1])


def tagged(
    connection: Connection,
    repository: str,
    order: TagOrder,
    count: int,
    after: tuple[str, float] | None,
) -> Sequence[tuple[HostedTag, HostedManifest]]:
    page = select(tags).where(_of_tags).limit(count)
    if order is TagOrder.NAME:
        page = page.order_by(tags.c.name)
        if after is not None:
            page = page.where(tags.c.name > clean(after[0]))
    else:
        page = page.order_by(tags.c.moved_at.desc(), tags.c.name)
        if after is not None:
            name, moved_at = after
            same = (tags.c.moved_at == moved_at) & (tags.c.name > clean(name))
            page = page.where((tags.c.moved_at < moved_at) | same)
    found = page.subquery()
    rows = connection.execute(
        select(found.c.name, found.c.digest, found.c.moved_at, found.c.moved_by, *MANIFEST).where(
            manifests.c.repository_id == found.c.repository_id,
            manifests.c.digest == found.c.digest,
        ),
        {"repository": repository},
    )
    both = [(tag_of(row[:4]), manifest_of(row[4:])) for row in rows]
    if order is TagOrder.NAME:
        return sorted(both, key=lambda each: each[0].name)
    return sorted(both, key=lambda each: (-each[0].moved_at, each[0].name))


def list_manifests(
    connection: Connection, repository: str, count: int | None, after: Digest | None
) -> Sequence[HostedManifest]:
    asked = {
        "repository": repository,
        "last": "" if after is None else str(after),
        "count": _MOST if count is None else max(count, 0),
    }
    return [manifest_of(row) for row in connection.execute(_MANIFESTS, asked)]


def list_tags(
    connection: Connection, repository: str, count: int | None, last: str | None
) -> Sequence[HostedTag]:
    asked = {
        "repository": repository,
        "last": clean(last or ""),
        "count": _MOST if count is None else max(count, 0),
    }
    return [tag_of(row) for row in connection.execute(_TAGS, asked)]


def tags_of(connection: Connection, repository: str, digest: Digest) -> Sequence[str]:
    asked = {"repository": repository, "digest": str(digest)}
    return list(connection.execute(_TAGS_OF, asked).scalars())


def image_sizes(
    connection: Connection, repository: str, digests: Collection[Digest]
) -> Mapping[Digest, int]:
    """A statement for each slice."""
    by_text = {str(each): each for each in digests}
    found: dict[Digest, int] = {}
    for some in slices(list(by_text)):
        rows = connection.execute(_IMAGE_SIZES, {"repository": repository, "digests": some})
        found.update((by_text[digest], size) for digest, size in rows)
    return found


def referrers(
    connection: Connection, repository: str, subject: Digest, artifact_type: str | None
) -> Sequence[HostedManifest]:
    statement = _REFERRERS
    if artifact_type is not None:
        statement = statement.where(manifests.c.artifact_type == clean(artifact_type))
    rows = connection.execute(statement, {"repository": repository, "subject": str(subject)})
    return [manifest_of(row) for row in rows]


def history(connection: Connection, repository: str, tag: str, count: int) -> Sequence[TagMove]:
    rows = connection.execute(
        _HISTORY, {"repository": repository, "tag": clean(tag), "count": count}
    )
    return [
        TagMove(name, None if digest is None else Digest.parse(digest), at, by)
        for name, digest, at, by in rows
    ]


def owners(connection: Connection, digest: Digest, count: int) -> Sequence[str]:
    return list(connection.execute(_OWNERS, {"digest": str(digest), "count": count}).scalars())


def sizes(connection: Connection, names: Sequence[str]) -> Mapping[str, int]:
    """By the names that are there."""
    found: dict[str, int] = {}
    for table in (links, manifests):
        statement = (
            select(repositories.c.name, func.sum(table.c.size))
            .where(repositories.c.name.in_(names), table.c.repository_id == repositories.c.id)
            .group_by(repositories.c.name)
        )
        for name, size in connection.execute(statement):
            found[name] = found.get(name, 0) + int(size)
    return found


def quota(connection: Connection, namespace: str) -> Quota | None:
    found = connection.execute(_QUOTA, {"namespace": namespace}).first()
    return None if found is None or found.quota is None else Quota(found.used, found.quota)


def usage(connection: Connection, namespace: str) -> int:
    return int(connection.execute(_USAGE, {"namespace": namespace}).scalar() or 0)


def list_repositories(
    connection: Connection, seen: Seen, query: str, count: int | None, last: str | None
) -> Sequence[HostedRepository]:
    """Several statements where patterns have to be looked at here."""
    wanted = _MOST if count is None else max(count, 0)
    statement = select(*REPOSITORY, namespaces.c.name).where(
        repositories.c.namespace_id == namespaces.c.id, _is_seen(seen)
    )
    if query:
        text = f"%{_escaped(clean(query).lower())}%"
        statement = statement.where(
            repositories.c.name.like(text, escape="\\")
            | func.lower(repositories.c.description).like(text, escape="\\")
        )
    statement = statement.order_by(repositories.c.name)
    found: list[HostedRepository] = []
    after = clean(last or "")
    while len(found) < wanted:
        page = min(wanted - len(found), _PAGE)
        rows = connection.execute(statement.where(repositories.c.name > after).limit(page)).all()
        found += [
            each
            for each, namespace in ((repository_of(row[:-1]), row[-1]) for row in rows)
            if _shows(seen, each, namespace)
        ]
        if len(rows) < page:
            break
        after = rows[-1][0]
    return found


def _is_seen(seen: Seen) -> ColumnElement[bool]:
    """Those that may be seen, and for a pattern with brackets some more."""
    if seen.everything:
        return true()
    return or_(
        repositories.c.visibility == Visibility.PUBLIC.value,
        namespaces.c.name.in_(sorted(seen.namespaces)) if seen.namespaces else false(),
        *(repositories.c.name.like(_like(each), escape="\\") for each in seen.patterns),
    )


def _shows(seen: Seen, repository: HostedRepository, namespace: str) -> bool:
    return (
        seen.everything
        or repository.visibility is Visibility.PUBLIC
        or namespace in seen.namespaces
        or any(fnmatchcase(repository.name, each) for each in seen.patterns)
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _like(pattern: str) -> str:
    """For LIKE, as much as a pattern means or more: from its first bracket on, anything."""
    plain, bracket, _ = clean(pattern).partition("[")
    return _escaped(plain).replace("*", "%").replace("?", "_") + ("%" if bracket else "")
