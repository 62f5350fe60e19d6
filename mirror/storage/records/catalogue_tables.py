"""The tables of the catalogue, and how changes are written to them. For a thread."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from ...contracts.catalogue import Change, Kept, Pulled, Removed, Tagged, Unshown
from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.reference import ImageReference
from ..shares import surplus_of_repositories
from ..sqlite_files import rows
from .catalogue_walk import digest_of, key_of

# Content by number: its digest is in each row only once. `size` is NULL of what is not here, but is
# what a manifest that is here refers to. Images by name: `registry/name:tag` or `…@digest`; their
# `digest` is the number of a manifest, which may not be here.
TABLES = """
CREATE TABLE content (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, size INTEGER,
    media_type TEXT NOT NULL DEFAULT '', noted_at REAL NOT NULL DEFAULT 0);
CREATE TABLE needs (parent INTEGER NOT NULL, child INTEGER NOT NULL, PRIMARY KEY (parent, child))
    WITHOUT ROWID;
CREATE INDEX needs_by_child ON needs (child);
CREATE TABLE images (name TEXT PRIMARY KEY, repository TEXT NOT NULL, tag TEXT,
    digest INTEGER NOT NULL, used_at REAL NOT NULL DEFAULT 0, pulls INTEGER NOT NULL DEFAULT 0,
    noted_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX images_of_repository ON images (repository, name);
CREATE INDEX images_by_digest ON images (digest, repository);
CREATE INDEX content_not_here ON content (id) WHERE size IS NULL;
CREATE INDEX content_by_age ON content (noted_at) WHERE size IS NOT NULL;
CREATE TABLE losses (latest INTEGER NOT NULL, made_good INTEGER NOT NULL);
INSERT INTO losses VALUES (abs(random()) >> 1, 0);
"""

# `losses`: `latest` is the number of the latest loss, `made_good` of the one up to which all was
# found again. A new catalogue lacks everything; its first number is any, so that it is not another
# catalogue's.

_KEEP = """
INSERT INTO content (digest, size, media_type, noted_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (digest) DO UPDATE SET size = ?2, noted_at = max(noted_at, ?4),
    media_type = CASE ?3 WHEN '' THEN media_type ELSE ?3 END
RETURNING id
"""

# A new row keeps what was counted under its name.
_SHOW = """
INSERT INTO images (name, repository, tag, digest, noted_at) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (name) DO UPDATE SET digest = ?4, noted_at = max(noted_at, ?5)
"""

_PULLED = "UPDATE images SET pulls = pulls + ?2, used_at = max(used_at, ?3) WHERE name = ?1"

# What is not here is known only as long as something that is known refers to it.
_NOT_HERE = "SELECT id FROM content WHERE size IS NULL AND id > ? ORDER BY id LIMIT ?"
_UNKNOWN = """
DELETE FROM content WHERE size IS NULL AND id = ?
    AND NOT EXISTS (SELECT 1 FROM needs WHERE child = id)
    AND NOT EXISTS (SELECT 1 FROM images WHERE images.digest = id)
"""

_AT_ONCE = 500
"""Rows that one transaction looks at: others write meanwhile."""


@dataclass(frozen=True, slots=True)
class CatalogueBounds:
    """Of all images and of all rows of content, what one manifest is known to refer to, and after
    how many changes the bounds are looked at."""

    images: int = 100_000
    content: int = 1_000_000
    needs_of_one: int = 1024
    tidy_every: int = 4096


class Writer:
    """Writes within one transaction on `db`. `is_full`: new content is not taken."""

    def __init__(self, db: apsw.Connection, bounds: CatalogueBounds, is_full: bool) -> None:
        self._db = db
        self._bounds = bounds
        self._is_full = is_full

    def note(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Kept):
                self._keep(change)
            elif isinstance(change, Removed):
                self._remove(change.digest)
            elif isinstance(change, Tagged):
                self._tag(change)
            elif isinstance(change, Unshown):
                self._hide(ImageReference(change.repository, change.digest))
            else:
                self._pull(change)

    def forget_older(self, than: float) -> bool:
        """Forgets some of the content that was last noted before then; whether there may be more
        of it."""
        select = "SELECT digest FROM content WHERE size IS NOT NULL AND noted_at < ? LIMIT ?"
        found = rows(self._db, select, than, _AT_ONCE)
        for (key,) in found:
            self._remove(digest_of(key))
        return bool(found)

    def forget_unknown(self, after: int) -> int | None:
        """Forgets what is not here and nothing refers to, among some rows after this number; the
        number to go on after. What is not here is known only as long as something that is known
        refers to it."""
        found = rows(self._db, _NOT_HERE, after, _AT_ONCE)
        self._db.executemany(_UNKNOWN, found)
        return found[-1][0] if found else None

    def forget_images(self) -> None:
        """Forgets images beyond the bound."""
        excess = count_of(self._db, "images") - self._bounds.images
        if excess <= 0:
            return
        counts = rows(self._db, "SELECT repository, count(*) FROM images GROUP BY repository")
        given = surplus_of_repositories(dict(counts), excess)
        self._db.executemany(
            "DELETE FROM images WHERE name IN (SELECT name FROM images WHERE repository = ? "
            "ORDER BY max(used_at, noted_at), name LIMIT ?)",
            list(given.items()),
        )

    def _keep(self, kept: Kept) -> None:
        if self._is_full and self._number(kept.digest) is None:
            return
        [(number,)] = rows(
            self._db, _KEEP, key_of(kept.digest), kept.size, kept.media_type, kept.at
        )
        few = kept.refers_to[: self._bounds.needs_of_one]
        self._db.executemany(
            "INSERT OR IGNORE INTO needs VALUES (?, ?)",
            [(number, self._known(child)) for child in few],
        )
        if kept.media_type and kept.repository is not None:
            self._show(ImageReference(kept.repository, kept.digest), kept.digest, kept.at)

    def _remove(self, digest: Digest) -> None:
        number = self._number(digest)
        if number is not None:
            self._db.execute(
                "UPDATE content SET size = NULL, media_type = '' WHERE id = ?", (number,)
            )
            self._db.execute("DELETE FROM needs WHERE parent = ?", (number,))
            self._db.execute("DELETE FROM images WHERE digest = ? AND tag IS NULL", (number,))

    def _tag(self, tagged: Tagged) -> None:
        image = ImageReference(tagged.repository, tagged.tag)
        if tagged.digest is None:
            self._hide(image)
        else:
            self._show(image, tagged.digest, tagged.at)

    def _pull(self, pulled: Pulled) -> None:
        image = ImageReference(pulled.repository, pulled.reference)
        if isinstance(pulled.reference, Digest) and self._is_manifest(pulled.reference):
            self._show(image, pulled.reference, pulled.at)
        self._db.execute(_PULLED, (str(image), pulled.count, pulled.at))

    def _show(self, image: ImageReference, digest: Digest, at: float) -> None:
        tag = image.reference if isinstance(image.reference, str) else None
        values = (str(image), str(image.repository), tag, self._known(digest), at)
        self._db.execute(_SHOW, values)

    def _hide(self, image: ImageReference) -> None:
        self._db.execute("DELETE FROM images WHERE name = ?", (str(image),))

    def _is_manifest(self, digest: Digest) -> bool:
        query = "SELECT 1 FROM content WHERE digest = ? AND size IS NOT NULL AND media_type != ''"
        return bool(rows(self._db, query, key_of(digest)))

    def _number(self, digest: Digest) -> int | None:
        found = rows(self._db, "SELECT id FROM content WHERE digest = ?", key_of(digest))
        return found[0][0] if found else None

    def _known(self, digest: Digest) -> int:
        """Its number, from now on if need be."""
        number = self._number(digest)
        if number is None:
            self._db.execute("INSERT INTO content (digest) VALUES (?)", (key_of(digest),))
            number = self._db.last_insert_rowid()
        return number


def count_of(db: apsw.Connection, table: str) -> int:
    [(count,)] = rows(db, f"SELECT count(*) FROM {table}")  # noqa: S608 - all words of ours
    return int(count)


def losses(db: apsw.Connection) -> tuple[int, int]:
    """The latest, and the one up to which all was found again. Raises CorruptError."""
    found = rows(db, "SELECT latest, made_good FROM losses")
    if len(found) != 1:
        raise apsw.CorruptError(f"the catalogue has {len(found)} rows of losses")
    [(latest, made_good)] = found
    return int(latest), int(made_good)


def note_loss(db: apsw.Connection) -> int:
    """Raises CorruptError."""
    db.execute("UPDATE losses SET latest = latest + 1")
    return losses(db)[0]


def note_made_good(db: apsw.Connection, number: int) -> None:
    db.execute("UPDATE losses SET made_good = ?", (number,))
