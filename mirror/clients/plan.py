"""What is to be written for one client, before any of it is."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from ..frozen import dataclass
from ..oci.registries import DOCKER_HUB


@dataclass(frozen=True, slots=True)
class Served:
    """A mirror as its clients see it. `url` is scheme, host and port. `default` is the registry of
    images that are asked for without one. `ca`: a file of PEM with the authority of its
    certificate, where clients do not know it."""

    url: str
    registries: Sequence[str]
    default: str = DOCKER_HUB
    ca: Path | None = None

    @property
    def place(self) -> str:
        """Host and port, as image names begin with them."""
        return urlsplit(self.url).netloc

    @property
    def is_plain(self) -> bool:
        return self.url.startswith("http://")


@dataclass(frozen=True, slots=True)
class Change:
    """A file as it is (None: there is none) and as it is to be."""

    path: Path
    before: str | None
    after: str

    @property
    def is_one(self) -> bool:
        return self.before != self.after

    def diff(self) -> str:
        """Unified."""
        name = str(self.path)
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            "/dev/null" if self.before is None else name,
            name,
        )
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in lines
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """`notes`: what else there is to know or to do, in sentences. `reload`: the command after which
    the client goes by the files, "" where it does so by itself."""

    changes: Sequence[Change]
    notes: Sequence[str] = ()
    reload: str = ""

    @property
    def pending(self) -> Sequence[Change]:
        """The changes that are still to be made."""
        return [change for change in self.changes if change.is_one]


class Unusable(Exception):
    """A file that cannot be edited. `line` and `column` count from 1; 0: of the file as a whole."""

    def __init__(self, why: str, line: int = 0, column: int = 0) -> None:
        super().__init__(why)
        self.why, self.line, self.column = why, line, column
        self.path: Path | None = None

    def __str__(self) -> str:
        place = "" if self.path is None else str(self.path)
        if self.line:
            place += f":{self.line}:{self.column}"
        return f"{place}: {self.why}" if place else self.why

    @classmethod
    def at(cls, text: str, index: int, why: str) -> Unusable:
        """Of the character at this index of the text."""
        line = text.count("\n", 0, index)
        return cls(why, line + 1, index - (text.rfind("\n", 0, index) + 1) + 1)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An Unusable from within is of this file, unless it says of which it is."""
    try:
        yield
    except Unusable as error:
        error.path = error.path or path
        raise


class Files(Protocol):
    """The files of the host that is set up."""

    def read(self, path: Path) -> str | None:
        """Its text; None where there is no such file. Raises Unusable."""

    def below(self, folder: Path, suffix: str) -> Sequence[Path]:
        """The files of this folder whose names end so, in the order of their names."""


def by_hand(text: str) -> str:
    """What is said where a text cannot be inserted safely."""
    lines = "".join(f"\n    {line}" for line in text.strip().splitlines())
    return f"it cannot be edited safely; add this to it by hand:{lines}"


def authority(given: Path, path: Path, files: Files) -> Change:
    """The authority's file, put where a client looks for it. Raises Unusable."""
    text = files.read(given)
    if text is None:
        raise Unusable(f"{given} is not there")
    return Change(path, files.read(path), text)
