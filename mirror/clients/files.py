"""Files of the host that is set up: read, and written whole or not at all, with a copy of what was
there. Blocking."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from .plan import Change, Unusable

_LARGEST = 4 << 20  # bytes: no configuration of a client comes near it


class HostFiles:
    """The Files of this host, or of one whose root is another folder (an image that is built)."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self, path: Path) -> str | None:
        place = self._place(path)
        try:
            with open(place, "rb", opener=_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise _unusable(path, "it is no file")
                data = file.read(_LARGEST + 1)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return None
        except OSError as error:
            raise _unusable(path, _words(error)) from None
        if len(data) > _LARGEST:
            raise _unusable(path, "it is larger than any configuration")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start)
            column = error.start - (data.rfind(b"\n", 0, error.start) + 1)
            problem = Unusable("there are bytes that are no UTF-8", line + 1, column + 1)
            problem.path = path
            raise problem from None

    def below(self, folder: Path, suffix: str) -> Sequence[Path]:
        try:
            names = sorted(os.listdir(self._place(folder)))
        except OSError:
            return ()
        return [folder / name for name in names if name.endswith(suffix)]

    def write(self, change: Change, now: float) -> Path | None:
        """Makes the change; gives back the copy of the file that was there. Symbolic links stay.
        Raises Unusable, and leaves the file as it was."""
        place = self._place(change.path)
        if self.read(change.path) != change.before:
            raise _unusable(change.path, "it was changed meanwhile: try again")
        try:
            _make_folder(place.parent)
            if change.before is None:
                _replace(place, change.after, None)
                return None
            copy = _backed_up(place, change.before, now)
            _replace(place, change.after, os.stat(place))
        except OSError as error:
            raise _unusable(change.path, f"it cannot be written: {_words(error)}") from None
        return change.path.with_name(copy.name)

    def _place(self, path: Path) -> Path:
        """Where the file is, behind symbolic links, which must not lead out of the root. Raises
        Unusable."""
        place = Path(os.path.realpath(self._root / path.relative_to(path.anchor)))
        if not place.is_relative_to(os.path.realpath(self._root)):
            raise _unusable(path, f"it is a link that leads out of {self._root}")
        return place


def _at_once(path: str, flags: int) -> int:
    """Opens it without waiting for a pipe's other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _make_folder(folder: Path) -> None:
    """For all to read, whatever the umask: clients run as other users. Raises OSError."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def _backed_up(place: Path, text: str, now: float) -> Path:
    """A new file beside it with the same content, mode and owner. Raises OSError."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = place.with_name(f"{place.name}.{moment}.bak")
    number = 1
    while os.path.lexists(copy):
        number += 1
        copy = place.with_name(f"{place.name}.{moment}-{number}.bak")
    _replace(copy, text, os.stat(place))
    return copy


def _replace(place: Path, text: str, like: os.stat_result | None) -> None:
    """Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(descriptor, 0o644 if like is None else stat.S_IMODE(like.st_mode))
            if like is not None and os.geteuid() == 0:
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fsync(descriptor)
        os.replace(name, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _unusable(path: Path, why: str) -> Unusable:
    problem = Unusable(why)
    problem.path = path
    return problem


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
