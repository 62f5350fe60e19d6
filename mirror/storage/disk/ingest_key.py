"""What is on its way to the disk: content of a digest, from one source; or an upload, whose digest
nobody knows yet.

Until it is proven, what a source has sent is that source's word. So each goes on only with what it
has sent itself: strangers who answer for the same digest neither spoil what others read, nor read
what others may.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Self

from ...contracts.hosted import HOSTED
from ...frozen import dataclass
from ...oci.digest import ALGORITHMS, Digest
from ...oci.reference import namespace_of

_NAME = re.compile(r"([0-9a-f]+)(?:\.([0-9a-f]{16}))?")
_SESSION = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{16}-[0-9a-f]{16})")

UPLOADS = "uploads"
FOLDERS = (*ALGORITHMS, UPLOADS)
"""Of partials: those of each kind."""


def _mark(name: str) -> str:
    """Of any name, fit for a file's."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


PUSHED = _mark(HOSTED)
"""The source of what was pushed here, or has come from where all nodes keep what was."""


@dataclass(frozen=True, slots=True)
class IngestKey:
    """`source` is a mark of it; "" where all the bytes are here at once."""

    digest: Digest
    source: str = ""

    @classmethod
    def of(cls, digest: Digest, source: str) -> Self:
        """Of a source with this name, which may be any."""
        return cls(digest, _mark(source) if source else "")

    @classmethod
    def named(cls, algorithm: str, name: str) -> Self | None:
        """What a file of this name is; None when it is nothing of the kind.

        Raises DigestInvalid when there is no such digest.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(Digest.parse(f"{algorithm}:{found[1]}"), found[2] or "")

    @property
    def folder(self) -> str:
        return self.digest.algorithm

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.digest.hex}.{self.source}" if self.source else self.digest.hex

    def __str__(self) -> str:
        return f"{self.folder}:{self.name}"


def namespace_mark(repository: str) -> str:
    """Of the namespace of this repository: the first part of its name."""
    return _mark(namespace_of(repository))


def _repository_mark(repository: str) -> str:
    return f"{namespace_mark(repository)}-{_mark(repository)}"


@dataclass(frozen=True, slots=True)
class SessionKey:
    """An upload. `repository` is a mark of its namespace and of its name: whoever names another
    finds no session."""

    session: str
    repository: str

    @classmethod
    def new(cls, repository: str) -> Self:
        return cls(secrets.token_hex(16), _repository_mark(repository))

    @classmethod
    def of(cls, session: str, repository: str) -> Self | None:
        """None where a session's id is not of this form."""
        return cls.named(f"{session}.{_repository_mark(repository)}")

    @classmethod
    def named(cls, name: str) -> Self | None:
        """What a file of this name is; None when it is nothing of the kind."""
        found = _SESSION.fullmatch(name)
        return cls(found[1], found[2]) if found else None

    @property
    def folder(self) -> str:
        return UPLOADS

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.session}.{self.repository}"

    def __str__(self) -> str:
        return f"{self.folder}:{self.name}"


PartialKey = IngestKey | SessionKey


def key_named(folder: str, name: str) -> PartialKey | None:
    """What a file of this name in this folder is; None when it is nothing of the kind.

    Raises DigestInvalid when there is no such digest.
    """
    return SessionKey.named(name) if folder == UPLOADS else IngestKey.named(folder, name)
