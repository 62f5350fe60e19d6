"""Partials that no writer has: downloads that were given up, or whose process was killed.

Blocking, all of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from .ingest_key import IngestKey, PartialKey, key_named
from .partial import lock_partial
from .sparse_spans import note_of


@contextlib.contextmanager
def left(path: Path) -> Iterator[tuple[PartialKey, int] | None]:
    """What a partial is, and its size, while no writer can begin; None when it is being
    written, or is no partial. Blocking."""
    try:
        key = key_named(path.parent.name, path.name)
        fd = lock_partial(path, flags=0) if key else None
    except (OSError, DigestInvalid):
        key = fd = None
    if key is None or fd is None:
        yield None
        return
    try:
        yield key, os.fstat(fd).st_size
    finally:
        os.close(fd)


def remove(partial: Path) -> None:
    """With its note. Raises OSError."""
    partial.unlink()
    note_of(partial).unlink(missing_ok=True)


def remove_all(root: Path, digest: Digest) -> list[IngestKey]:
    """Removes what is left of this digest in the store at `root`, from any source; says of which.
    What has a writer stays. Raises OSError."""
    removed = []
    for path in (root / "partials" / digest.algorithm).glob(f"{digest.hex}*"):
        with left(path) as found:
            key = found[0] if found else None
            if isinstance(key, IngestKey) and key.digest == digest:
                remove(path)
                removed.append(key)
    return removed
