"""The files of proven content, by their digests: found, opened, set aside.

Blocking, all of it; opening and setting aside take microseconds on a disk that is well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from ...oci.digest import Digest
from ...oci.errors import Unavailable
from .files import words

log = structlog.get_logger()

READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

HELD = stat.S_ISVTX
"""Set in the mode of a file that has to stay: a bit that means nothing to Linux on files."""

# No fault of the content.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class BlobFiles:
    """Those of the store at `root`. `found_damaged` is told of what `open` sets aside."""

    def __init__(self, root: Path, found_damaged: Callable[[Digest], None]) -> None:
        self._root = root
        self._blobs = str(root / "blobs")
        self._found_damaged = found_damaged

    def path(self, digest: Digest) -> Path:
        return Path(self._name(digest))

    def is_here(self, digest: Digest) -> bool:
        """Whether there is content of this name."""
        return self.path(digest).exists()

    def open(self, digest: Digest) -> int | None:
        """A descriptor on the content's file; anything but a regular file there is set aside.
        Raises Unavailable where descriptors or memory have run out."""
        try:
            fd = os.open(self._name(digest), READ_ONLY)
        except FileNotFoundError:
            return None
        except OSError as error:  # a symbolic link (ELOOP), no permission, a failing disk
            if error.errno in _EXHAUSTED:
                raise Unavailable(f"out of means: {words(error)}", retry_after=1) from error
            log.error("content_cannot_be_opened", digest=str(digest), reason=words(error))
            self.set_aside(digest)
            self._found_damaged(digest)
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        log.error("content_is_not_a_regular_file", digest=str(digest))
        self.set_aside(digest)
        self._found_damaged(digest)
        return None

    def is_held(self, digest: Digest) -> bool:
        """Whether the file says that it has to stay. Raises OSError."""
        try:
            return bool(self.path(digest).lstat().st_mode & HELD)
        except FileNotFoundError:
            return False

    def mark(self, digest: Digest, marked: Callable[[int], None]) -> int | None:
        """Has the file say that it is to stay; its size, None when it is not here. `marked` is
        given a descriptor on one that did not say so before, to be closed. Raises OSError."""
        try:
            found = self.path(digest).lstat()
            if not stat.S_ISREG(found.st_mode):
                return None
            if not found.st_mode & HELD:
                fd = os.open(self.path(digest), READ_ONLY)
                marked(fd)
                os.fchmod(fd, stat.S_IMODE(found.st_mode) | HELD)
        except FileNotFoundError:
            return None
        return found.st_size

    def unmark(self, digest: Digest) -> None:
        """The file may go. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            path = self.path(digest)
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~HELD)

    def write_aside(self, digest: Digest, found: bytes) -> None:
        """Writes what was found in this content's place, and in no file, into quarantine."""
        try:
            fd = os.open(self._aside(digest), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "wb") as file:
                file.write(found)
        except OSError as error:
            log.error("content_cannot_be_set_aside", digest=str(digest), reason=words(error))

    def set_aside(self, digest: Digest) -> None:
        """Moves the file into quarantine."""
        try:
            os.rename(self.path(digest), self._aside(digest))
        except FileNotFoundError:
            pass
        except OSError as error:  # a disk that takes nothing any more
            log.error("content_cannot_be_set_aside", digest=str(digest), reason=words(error))

    def _aside(self, digest: Digest) -> Path:
        return self._root / "quarantine" / f"{digest.hex}.{time.time_ns()}"

    def _name(self, digest: Digest) -> str:
        """As `path`. Composed as text: pathlib takes as long as opening the file."""
        return f"{self._blobs}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"
