"""The tables under the index."""

from __future__ import annotations

from ..sqlite_files import Schema

# What each version added to the one before: a file of an older one is brought up to date.
#
# `totals` is kept by triggers, so that no path through the code can forget to count. `block` is
# what the file system gives a file at least: sizes of content are counted in whole blocks.
# A content's rank is 0 for what refers to nothing, 1 for a manifest, 2 for an index: among equals
# in age, what needs others goes before what is needed. `guest`: see Index. `held`: when content
# was held last, NULL for what may be evicted. What is held is in no index that eviction looks at.
# `source`, `came` and `far`: who brought content, when, and whether it is in the second tier too
# (see far_index.py).
_VERSIONS = (
    """
CREATE TABLE content (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used_at REAL NOT NULL, rank INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX content_by_use ON content (used_at, rank DESC);
CREATE TABLE needs (
    parent TEXT NOT NULL, child TEXT NOT NULL, PRIMARY KEY (parent, child)
) WITHOUT ROWID;
CREATE TABLE reserved (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, total INTEGER
) WITHOUT ROWID;
CREATE TABLE pins (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (bytes INTEGER NOT NULL, entries INTEGER NOT NULL, reserved INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
""",
    """
ALTER TABLE content ADD COLUMN guest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reserved ADD COLUMN guest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN block INTEGER NOT NULL DEFAULT 1;
ALTER TABLE totals ADD COLUMN guests INTEGER NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS needs_by_child ON needs (child);
CREATE INDEX guests_by_use ON content (used_at, rank DESC) WHERE guest;
DROP TRIGGER IF EXISTS content_in;
DROP TRIGGER IF EXISTS content_out;
DROP TRIGGER IF EXISTS reserved_in;
DROP TRIGGER IF EXISTS reserved_change;
DROP TRIGGER IF EXISTS reserved_out;
CREATE TRIGGER content_in AFTER INSERT ON content BEGIN
    UPDATE totals SET entries = entries + 1,
        bytes = bytes + (new.size + block - 1) / block * block,
        guests = guests + new.guest * ((new.size + block - 1) / block * block); END;
CREATE TRIGGER content_out AFTER DELETE ON content BEGIN
    UPDATE totals SET entries = entries - 1,
        bytes = bytes - (old.size + block - 1) / block * block,
        guests = guests - old.guest * ((old.size + block - 1) / block * block);
    DELETE FROM needs WHERE parent = old.digest; END;
CREATE TRIGGER reserved_in AFTER INSERT ON reserved BEGIN
    UPDATE totals SET reserved = reserved + new.size,
        guests = guests + new.guest * new.size; END;
CREATE TRIGGER reserved_change AFTER UPDATE ON reserved BEGIN
    UPDATE totals SET reserved = reserved - old.size + new.size,
        guests = guests - old.guest * old.size + new.guest * new.size; END;
CREATE TRIGGER reserved_out AFTER DELETE ON reserved BEGIN
    UPDATE totals SET reserved = reserved - old.size,
        guests = guests - old.guest * old.size; END;
""",
    """
ALTER TABLE content ADD COLUMN held REAL;
ALTER TABLE totals ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
DROP INDEX content_by_use;
CREATE INDEX content_by_use ON content (used_at, rank DESC) WHERE held IS NULL;
CREATE INDEX held_content ON content (digest) WHERE held IS NOT NULL;
DROP TRIGGER content_in;
DROP TRIGGER content_out;
CREATE TRIGGER content_in AFTER INSERT ON content BEGIN
    UPDATE totals SET entries = entries + 1,
        bytes = bytes + (new.size + block - 1) / block * block,
        guests = guests + new.guest * ((new.size + block - 1) / block * block),
        held = held + (new.held IS NOT NULL) * ((new.size + block - 1) / block * block); END;
CREATE TRIGGER content_change AFTER UPDATE OF size, guest, held ON content BEGIN
    UPDATE totals SET
        bytes = bytes - (old.size + block - 1) / block * block
            + (new.size + block - 1) / block * block,
        guests = guests - old.guest * ((old.size + block - 1) / block * block)
            + new.guest * ((new.size + block - 1) / block * block),
        held = held - (old.held IS NOT NULL) * ((old.size + block - 1) / block * block)
            + (new.held IS NOT NULL) * ((new.size + block - 1) / block * block); END;
CREATE TRIGGER content_out AFTER DELETE ON content BEGIN
    UPDATE totals SET entries = entries - 1,
        bytes = bytes - (old.size + block - 1) / block * block,
        guests = guests - old.guest * ((old.size + block - 1) / block * block),
        held = held - (old.held IS NOT NULL) * ((old.size + block - 1) / block * block);
    DELETE FROM needs WHERE parent = old.digest; END;
""",
    """
ALTER TABLE content ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE content ADD COLUMN came REAL NOT NULL DEFAULT 0;
ALTER TABLE content ADD COLUMN far INTEGER NOT NULL DEFAULT 0;
CREATE INDEX not_far ON content (source, came) WHERE far <> 1 AND NOT guest AND held IS NULL;
""",
)

# Whenever the file system's block is not the one that was counted with: a new database, one of the
# first version, a store that was moved.
_COUNT_ANEW = """
UPDATE totals SET block = ?1,
    held = (SELECT coalesce(sum((size + ?1 - 1) / ?1 * ?1), 0) FROM content
        WHERE held IS NOT NULL),
    bytes = (SELECT coalesce(sum((size + ?1 - 1) / ?1 * ?1), 0) FROM content),
    guests = (SELECT coalesce(sum((size + ?1 - 1) / ?1 * ?1), 0) FROM content WHERE guest)
        + (SELECT coalesce(sum(size), 0) FROM reserved WHERE guest)
WHERE block <> ?1
"""


def index_schema(block: int) -> Schema:
    """`block`: bytes that a file takes at least."""
    return Schema(_VERSIONS, lambda db: db.execute(_COUNT_ANEW, (block,)))
