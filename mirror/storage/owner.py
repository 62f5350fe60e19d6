"""Whose the files of a store are: what root makes there belongs to the owner of the folder that it
is in. So a command that root runs leaves nothing that the service's user cannot use. (SQLite does
the same for the files beside a database.)

Blocking, all of it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def give(fd: int, folder: Path) -> None:
    """Gives a file, or a folder, that was just made in `folder`. Raises OSError."""
    if os.geteuid() != 0:
        return
    owner, found = folder.stat(), os.fstat(fd)
    if (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid):
        os.fchown(fd, owner.st_uid, owner.st_gid)


def make(path: Path) -> None:
    """Makes an empty file, for its mode and owner, if there is none; else sees to it that only its
    owner may read it, and the files beside it. (SQLite makes these with the database's
    mode, and leaves those of a killed process as they are.) Raises OSError.

    A database that is there must not be opened but by SQLite: closing any descriptor of it would
    drop the locks that this process holds on it (POSIX fcntl).
    """
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):  # it is not there, or somebody else's
                _hide(Path(f"{path}{suffix}"))
        return
    try:
        give(fd, path.parent)
    finally:
        os.close(fd)


def _hide(path: Path) -> None:
    """From all but its owner; earlier versions did not."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
        path.chmod(0o600)


def make_folder(path: Path) -> None:
    """With those above it, if there is none. Raises OSError."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give(fd, path.parent)
    finally:
        os.close(fd)
