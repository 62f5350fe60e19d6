"""What an operator should know of a store's room before anybody asks for any."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import apsw

from ...contracts.content import Usage
from ...quantities import binary_size, part_of
from .free_space import FreeSpace
from .space import Bounds, floor_of


def shortages(root: Path, bounds: Bounds, usage: Usage) -> Sequence[str]:
    """In sentences; none where nothing is short."""
    try:
        space = FreeSpace.at(root)
    except OSError as error:
        return [f"it cannot be told how much there is: {error}"]
    found = []
    if bounds.min_free >= space.total:
        found.append(
            f"storage.min_free is {bounds.min_free} bytes, and the whole file system has "
            f"{space.total}: nothing will be kept"
        )
    elif space.free < bounds.min_free:
        found.append(
            f"{space.free} bytes are free, and storage.min_free is {bounds.min_free}: nothing "
            "is kept until others leave as much free, or eviction makes it"
        )
    elif space.free < floor_of(bounds, space):
        found.append(
            f"the file system is full: {space.free} bytes are free. What is kept is served, "
            "the rest passes through, where eviction cannot make room"
        )
    if space.files == 0:
        found.append("the file system takes no other file: it has no inodes left")
    excess = usage.content_bytes + usage.reserved_bytes - bounds.max_size
    if excess > 0:
        there = usage.content_bytes + usage.reserved_bytes
        found.append(
            f"storage.max_size is {binary_size(bounds.max_size)}, and more is here: "
            f"{part_of(excess, there)}, what was used longest ago, will be evicted"
        )
    return found


def bytes_kept(root: Path) -> int:
    """What content takes in the store in this folder, which may be another process's; 0 where there
    is none, or it cannot be told. Blocking."""
    try:
        with contextlib.closing(
            apsw.Connection(str(root / "index.db"), flags=apsw.SQLITE_OPEN_READONLY)
        ) as db:
            [(kept,)] = db.execute("SELECT bytes FROM totals").fetchall()
            return kept if isinstance(kept, int) else 0
    except (apsw.Error, ValueError, TypeError):
        return 0
