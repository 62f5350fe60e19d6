"""The account of what is on the disk: sizes, last use, and which content needs which.

One SQLite database beside the content, shared by all workers. It is a memory, not the truth: the
content is, in files and in small.db (see small_rows.py). A record without content is a miss;
content without a record is rehashed before it is trusted. Losing the database loses the order of
eviction, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import structlog

from ...clock import Clock
from ...contracts.content import Entry, Usage
from ...oci.digest import Digest
from ..shared_database import SharedDatabase, beginning_with
from ..sqlite_files import Rows, rows
from .index_schema import index_schema
from .ingest_key import IngestKey, PartialKey, key_named

log = structlog.get_logger()

# Milliseconds that a write waits for another process's (see Patience).
_BUSY_MS = 2000

_LATEST = "SELECT max(used_at) FROM content WHERE held IS NULL"

_BEFORE = 0.001  # seconds
_CLOCKS_AGREE = 1.0  # seconds: a use that is noted further in the future was noted by a wrong clock

# Whoever is used, all that it needs is used with it, down to the layers: so a child is never older
# than a parent that stays, and evicting the oldest first never breaks an image that stays.
_TOUCH = """
WITH RECURSIVE used (digest) AS (
    VALUES (?2) UNION SELECT child FROM needs JOIN used ON parent = used.digest
)
UPDATE content SET used_at = ?1 WHERE used_at < ?1 AND digest IN (SELECT digest FROM used)
"""

# As _TOUCH, for several, whose own records are as young as that.
_TOUCH_ALL = """
WITH RECURSIVE used (digest) AS (
    SELECT child FROM needs WHERE parent IN (SELECT value FROM json_each(?2))
    UNION SELECT child FROM needs JOIN used ON parent = used.digest
)
UPDATE content SET used_at = ?1 WHERE used_at < ?1 AND digest IN (SELECT digest FROM used)
"""

_RELEASE_ALL = "DELETE FROM reserved WHERE digest IN (SELECT value FROM json_each(?))"

_TAKEN = """
SELECT coalesce(sum((size + block - 1) / block * block), 0) FROM content, totals
WHERE digest IN (SELECT value FROM json_each(?))
"""

_RECORD = """
INSERT INTO content (digest, size, rank, guest, source, used_at, came)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2, ?2
FROM json_each(?1) WHERE true
ON CONFLICT (digest) DO UPDATE SET
    size = excluded.size, rank = excluded.rank, guest = guest AND excluded.guest,
    source = excluded.source, used_at = excluded.used_at, came = excluded.came
"""

_NEED = """
INSERT OR IGNORE INTO needs SELECT value ->> 0, value ->> 1 FROM json_each(?)
"""

_RANK = """
UPDATE content SET rank = 1 + coalesce(
    (SELECT max(child.rank) FROM needs JOIN content AS child ON child.digest = needs.child
     WHERE needs.parent = content.digest), 0)
WHERE digest IN (SELECT value FROM json_each(?))
"""

_RANK_ABOVE = """
UPDATE content SET rank = max(rank, 1 + (
    SELECT max(child.rank) FROM needs JOIN content AS child ON child.digest = needs.child
    WHERE needs.parent = content.digest))
WHERE digest IN (SELECT parent FROM needs WHERE child IN (SELECT value FROM json_each(?)))
"""

_PINNED = """
WITH RECURSIVE pinned (digest) AS (
    SELECT digest FROM pins UNION SELECT child FROM needs JOIN pinned ON parent = pinned.digest
)
"""

_KEPT = """
SELECT coalesce(sum((size + block - 1) / block * block), 0) FROM content, totals
WHERE content.held IS NULL AND digest IN (SELECT digest FROM pinned)
"""

_GUESTS = """
SELECT coalesce(sum((size + block - 1) / block * block), 0) FROM content, totals
WHERE guest AND digest NOT IN (SELECT digest FROM pinned)
"""

# Of the oldest, what is in the second tier goes first: it comes back from there. Only among so many
# times as many as are asked for: where little is there, the oldest go as they always do.
_LOOKED_AT = 4
_FAR_FIRST = """
SELECT digest, size, used_at FROM ({oldest} ORDER BY used_at, rank DESC LIMIT ?1 * ?2)
ORDER BY far = 1 DESC, used_at, rank DESC LIMIT ?1
"""
_OLDEST = _FAR_FIRST.format(
    oldest="""
SELECT digest, size, used_at, rank, far FROM content
WHERE held IS NULL AND digest NOT IN (SELECT digest FROM pinned)
"""
)
_OLDEST_GUESTS = _FAR_FIRST.format(
    oldest="""
SELECT digest, size, used_at, rank, far FROM content
WHERE guest AND digest NOT IN (SELECT digest FROM pinned)
"""
)


class Exceeded(Exception):
    """So many bytes more than there may be: `lacking` have to go first. `there` are counted now."""

    def __init__(self, lacking: int, there: int) -> None:
        super().__init__(lacking, there)
        self.lacking = lacking
        self.there = there


class Index:
    """Not for the event loop, but for `size`, `is_needed` and `usage`, which take microseconds,
    whatever other threads do meanwhile.

    Every method may be called from any thread. Errors of the database (`apsw.Error`) are the
    caller's to survive. Bytes are those that files take on the disk, in whole blocks of it, and of
    small content that is no file as many: a row takes about that at most. An entry's size is its
    content's.

    A guest is content, or a reservation, of a source that is not to have much of the others' room.
    """

    def __init__(self, path: Path, max_bytes: int, block: int = 1) -> None:
        """`block`: bytes that a file takes at least. Never fails: where the database cannot be
        opened, what it holds is read into memory (see `is_away`)."""
        self.max_bytes = max_bytes
        self.block = block
        self.database = SharedDatabase(path, index_schema(block), _BUSY_MS, Clock(), what="index")
        self.database.open_for_reading()

    @property
    def is_away(self) -> bool:
        """Whether this is a copy in memory: it tells what is there, and no other process sees what
        is noted in it."""
        return self.database.identity is None

    def close(self) -> None:
        self.database.close()

    def taken(self, size: int) -> int:
        """What a file of so many bytes takes on the disk."""
        return -(-size // self.block) * self.block

    def size(self, digest: Digest) -> int | None:
        """The recorded size in bytes, None when there is no record."""
        found = self.database.read("SELECT size FROM content WHERE digest = ?", str(digest))
        return found[0][0] if found else None

    def entry(self, digest: Digest) -> Entry | None:
        """Its record."""
        found = self.database.read(
            "SELECT digest, size, used_at FROM content WHERE digest = ?", str(digest)
        )
        return _entries(found)[0] if found else None

    def is_needed(self, digest: Digest) -> bool:
        """Whether any content that is recorded needs this."""
        return bool(self.database.read("SELECT 1 FROM needs WHERE child = ? LIMIT 1", str(digest)))

    def usage(self) -> Usage:
        [(content, entries, reserved)] = self.database.read(
            "SELECT bytes, entries, reserved FROM totals"
        )
        return Usage(content, entries, reserved, self.max_bytes)

    def guests(self) -> int:
        """Bytes that guests have, with what is reserved for them."""
        [(size,)] = self.database.read("SELECT guests FROM totals")
        return int(size)

    def entries(self, after: str = "", count: int = 500) -> list[Entry]:
        """A page of the content in the order of digests, for scans that must not hold a lock."""
        return _entries(
            self.database.read(
                "SELECT digest, size, used_at FROM content WHERE digest > ? "
                "ORDER BY digest LIMIT ?",
                after,
                count,
            )
        )

    def recorded(self, prefix: str) -> set[str]:
        """Digests that begin so. Not for the event loop, whose reads come between its pages."""
        return set(beginning_with(self.database.read, "content", prefix))

    def add(
        self,
        digest: Digest,
        size: int,
        now: float,
        needs: Sequence[Digest] = (),
        came: IngestKey | None = None,
        *,
        guest: bool = False,
    ) -> None:
        """Records content that is visible now; the reservation ends of what `came`."""
        key = came or IngestKey(digest)
        with self.database.transaction() as db:
            db.execute("DELETE FROM reserved WHERE digest = ?", (str(key),))
            record(db, [Arrival(digest, size, needs, key.source, guest)], now)

    def admit(self, arrivals: Sequence[Arrival], now: float, ceiling: int = 0) -> None:
        """As `add`, for several pieces of content that will be visible in a moment: they need no
        reservation, and those of their digests alone end.

        Raises Exceeded as `reserve`; then nothing is recorded.
        """
        names = json.dumps([str(each.digest) for each in arrivals])
        with self.database.transaction() as db:
            db.execute(_RELEASE_ALL, (names,))
            [(there,)] = rows(db, _TAKEN, names)
            size = sum(self.taken(each.size) for each in arrivals)
            if size > there:
                self.refuse_more(db, size, there, ceiling)
            record(db, arrivals, now)

    def remove(self, digests: Sequence[Digest]) -> int:
        """Forgets this content; returns the bytes of it that were recorded."""
        with self.database.transaction() as db:
            sizes = [
                size
                for digest in digests
                for (size,) in rows(
                    db, "DELETE FROM content WHERE digest = ? RETURNING size", str(digest)
                )
            ]
        return sum(map(self.taken, sizes))

    def touch(self, uses: Sequence[tuple[Digest, float]], now: float) -> None:
        """Notes when content, and with it all that it needs, was last used."""
        with self.database.transaction() as db:
            _none_in_the_future(db, now, min([now, *(when for _, when in uses)]))
            db.executemany(_TOUCH, [(when, str(digest)) for digest, when in uses])

    def held_bytes(self) -> int:
        """Bytes of what is held."""
        [(size,)] = self.database.read("SELECT held FROM totals")
        return int(size)

    def oldest_use(self) -> float | None:
        """When what was not used for longest, and may be evicted, was used, in seconds since the
        epoch."""
        [(oldest,)] = self.database.read("SELECT min(used_at) FROM content WHERE held IS NULL")
        return float(oldest) if oldest is not None else None

    def has_clock(self, now: float) -> None:
        """Sees to it that no content was used later than now: the clock may have been set back."""
        [(latest,)] = self.database.read(_LATEST)
        if latest is not None and latest > now + _CLOCKS_AGREE:
            with self.database.transaction() as db:
                _none_in_the_future(db, now, now)

    def reserve(
        self,
        key: PartialKey,
        size: int,
        total: int | None,
        ceiling: int = 0,
        *,
        guest: bool = False,
    ) -> None:
        """Reserves `size` bytes in all for a partial, which will have `total` when whole.

        Raises Exceeded when they do not fit beside what is there: evict, and ask again. Where
        there is more than there may be (that was lowered), there may be as much as there is, the
        `ceiling`, until the rest has gone too.
        """
        size = self.taken(size)
        with self.database.transaction() as db:
            [(held,)] = rows(
                db, "SELECT coalesce(max(size), 0) FROM reserved WHERE digest = ?", str(key)
            )
            if size > held:
                self.refuse_more(db, size, held, ceiling)
            db.execute(
                "INSERT INTO reserved VALUES (?1, ?2, ?3, ?4) ON CONFLICT (digest) "
                "DO UPDATE SET size = ?2, total = coalesce(?3, total), guest = ?4",
                (str(key), size, total, guest),
            )

    def keep(self, key: PartialKey, size: int) -> None:
        """Reserves what is there of a partial whose writer has stopped, whether it fits or not."""
        with self.database.transaction() as db:
            db.execute(
                "INSERT INTO reserved (digest, size) VALUES (?1, ?2) "
                "ON CONFLICT (digest) DO UPDATE SET size = ?2",
                (str(key), self.taken(size)),
            )

    def release(self, key: PartialKey) -> None:
        """Gives a reservation back."""
        with self.database.transaction() as db:
            db.execute("DELETE FROM reserved WHERE digest = ?", (str(key),))

    def held(self, key: PartialKey) -> int:
        """Bytes that are reserved for this."""
        found = self.database.read("SELECT size FROM reserved WHERE digest = ?", str(key))
        return found[0][0] if found else 0

    def others(self, key: PartialKey) -> int:
        """Bytes of all content, and of what is reserved for anything but this."""
        [(size,)] = self.database.read(
            "SELECT bytes + reserved - coalesce((SELECT size FROM reserved WHERE digest = ?), 0) "
            "FROM totals",
            str(key),
        )
        return int(size)

    def announced(self, key: IngestKey) -> int | None:
        """The size of the whole of what is being written, None when it is not known."""
        found = self.database.read("SELECT total FROM reserved WHERE digest = ?", str(key))
        return found[0][0] if found else None

    def reservations(self) -> list[PartialKey]:
        found = self.database.read("SELECT digest FROM reserved")
        names = [key_named(*name.split(":", 1)) for (name,) in found]
        return [key for key in names if key is not None]

    def evictable(self, guests: bool = False) -> int:
        """Bytes of content that is neither held nor pinned: of all, or of guests alone."""
        if guests:
            [(size,)] = self.database.scan(_PINNED + _GUESTS)
            return int(size)
        [(kept,)] = self.database.scan(_PINNED + _KEPT)
        return self.usage().content_bytes - self.held_bytes() - int(kept)

    def oldest(self, count: int = 64, guests: bool = False) -> list[Entry]:
        """The least recently used content, what needs others before what is needed, and what is
        in the second tier before what is not yet; without what is held or pinned."""
        query = _PINNED + (_OLDEST_GUESTS if guests else _OLDEST)
        return _entries(self.database.scan(query, count, _LOOKED_AT))

    def pin(self, name: str, digest: Digest | None) -> None:
        """Keeps this content, and all that it needs, whatever its age; in place of what was kept
        under this name. None: keeps nothing under it any more."""
        with self.database.transaction() as db:
            if digest is None:
                db.execute("DELETE FROM pins WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO pins VALUES (?, ?)", (name, str(digest)))

    def pins(self) -> dict[str, Digest]:
        """What is kept, by the names under which it is."""
        found = self.database.scan("SELECT name, digest FROM pins ORDER BY name")
        return {str(name): Digest.parse(str(digest)) for name, digest in found}

    def refuse_more(self, db: apsw.Connection, size: int, held: int, ceiling: int) -> None:
        """Within a transaction. Raises Exceeded when `size` bytes, in place of the `held`, are too
        many."""
        [(there,)] = rows(db, "SELECT bytes + reserved FROM totals")
        excess = there - held + size - max(self.max_bytes, ceiling)
        if excess > 0:
            raise Exceeded(min(excess, size - held), there)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Content that is recorded: what it needs, and whose it is, a mark of its source, "" where that
    is not known. `guest`: see Index."""

    digest: Digest
    size: int
    needs: Sequence[Digest] = ()
    source: str = ""
    guest: bool = False


def record(db: apsw.Connection, arrivals: Sequence[Arrival], now: float) -> None:
    """Within a transaction. Of content that was recorded before it stays as it was whether it is
    held, and in the second tier (see far_index.py); what was another's before is no guest's.

    A few statements for however many: at each of them, the interpreter's lock is given away.
    """
    made = json.dumps(
        [
            (str(each.digest), each.size, bool(each.needs), each.guest, each.source)
            for each in arrivals
        ]
    )
    db.execute(_RECORD, (made, now))
    needs = [(str(each.digest), str(child)) for each in arrivals for child in each.needs]
    if not needs:
        return
    parents = json.dumps([str(each.digest) for each in arrivals if each.needs])
    db.execute(_NEED, (json.dumps(needs),))
    db.execute(_RANK, (parents,))
    # An index comes before its manifests, and ranks above them all the same.
    db.execute(_RANK_ABOVE, (parents,))
    db.execute(_TOUCH_ALL, (now, parents))


def _none_in_the_future(db: apsw.Connection, now: float, used: float) -> None:
    """Moves what a clock that was ahead has noted back, in the order in which it was used: it was
    used before whatever is `used` from now on."""
    [(latest,)] = rows(db, _LATEST)
    if latest is not None and latest > now + _CLOCKS_AGREE:
        log.warning("clock_set_back", seconds=round(latest - now))
        db.execute(
            "UPDATE content SET used_at = used_at - ?2 WHERE held IS NULL AND used_at > ?1",
            (now, latest - used + _BEFORE),
        )


def _entries(found: Rows) -> list[Entry]:
    return [Entry(Digest.parse(digest), size, used_at) for digest, size, used_at in found]
