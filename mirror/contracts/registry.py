"""What a registry is to whoever asks it: the narrow waist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from enum import Enum, StrEnum
from typing import Protocol

from ..frozen import dataclass
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from .context import RequestContext


class Outcome(StrEnum):
    """How an answer came to be: what metrics, logs and the Cache-Status header call it."""

    HIT = "hit"  # from here, the upstream not asked
    PREFETCHED = "prefetched"  # from here, but fetched ahead, and this is the first who reads it
    REVALIDATED = "revalidated"  # the upstream said that what is here is still right
    STALE = "stale"  # from here, older than its TTL: the upstream could not say, or is yet to say
    FILLED = "filled"  # fetched now
    JOINED = "joined"  # being fetched already, for somebody else
    PASSED = "passed"  # handed through, never kept (tag lists)
    REDIRECTED = "redirected"  # the client was sent to where it is
    CHANGED = "changed"  # what was pushed or deleted, as the client wanted it
    FAILED = "failed"


FETCHED = (Outcome.FILLED, Outcome.JOINED)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a tag points to. `age` is in seconds since an upstream last said so."""

    descriptor: Descriptor
    outcome: Outcome
    age: float = 0.0
    fresh_for: float = 0.0
    """For how many seconds more it will be a hit, unless its record is written anew."""
    vouched: bool = False
    """Whether the registry itself said so just now, or delivered the manifest through this
    repository. A tag memory, which may be shared, and an operator's pin only say what the tag is:
    that the repository shows this content is then yet to be proven."""


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Small, whole, verified: a manifest. Its bytes are the upstream's, never re-serialised. Or a
    list of referrers, which may be of several of the upstream's pages, or a part of one."""

    descriptor: Descriptor
    data: bytes
    outcome: Outcome
    vouched: bool = True
    """Whether the registry itself gave it, if it was fetched. An endpoint that is not it proves the
    bytes, and not that the repository shows what they refer to."""
    age: float = 0.0
    """Of a list of referrers: seconds since an upstream last said so. What a digest names is good
    for ever."""
    source: str = ""
    """The endpoint that gave it, if it was fetched."""


class Provenance(Enum):
    """Where the bytes of a blob come from, as far as that tells who may see them."""

    HERE = "here"
    """They were here before, or another repository or another process fetches them."""
    BROUGHT = "brought"
    """All come now, through the very repository through which they were asked for, from an
    endpoint that is not the registry: nothing that was here is given away with them."""
    VOUCHED = "vouched"
    """The registry itself delivers them through that repository: it shows them."""


class FileContent(Protocol):
    """An open file with how far it may be read by now: a hit, or a fill in progress.

    The holder closes it. Until then the descriptor stays good, whatever eviction and commit do.
    Read by offset only (`os.pread`, `os.sendfile`): the file's own position is shared. Ask
    `readable` first, each time: `fileno` is the file that has the bytes behind `beyond`, and may
    be another one after the next ask; it is -1 where no file could be had for them, and `pread`
    alone has them.
    """

    @property
    def descriptor(self) -> Descriptor:
        """`size` is None while a fill whose upstream gave no length has not ended."""

    @property
    def outcome(self) -> Outcome: ...

    @property
    def provenance(self) -> Provenance:
        """As far as it is known by now."""

    async def proven(self) -> None:
        """Returns when all of it is here and its digest is proven, also if nobody reads it. Raises
        RegistryError when that will not be."""

    def fileno(self) -> int: ...

    def pread(self, count: int, offset: int) -> bytes:
        """As os.pread. Blocking; raises OSError."""

    def damaged(self, reason: str) -> None:
        """Tells whoever keeps this content that its file could not be read."""

    async def readable(self, beyond: int) -> int:
        """Waits until bytes after offset `beyond` may be read, or the content is proven and ends
        there; returns the offset up to which bytes may be read (equal to `beyond` only at the end).

        Raises RegistryError when the fill has failed: what was read so far is then worth nothing.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Redirected:
    """A FileContent that is to be fetched from this URL, which is a secret: whoever has it needs no
    login. It has no bytes."""

    descriptor: Descriptor
    location: str = field(repr=False)

    @property
    def outcome(self) -> Outcome:
        return Outcome.REDIRECTED

    @property
    def provenance(self) -> Provenance:
        return Provenance.HERE

    async def proven(self) -> None:
        raise Unavailable("its bytes are elsewhere")

    def fileno(self) -> int:
        return -1

    def pread(self, count: int, offset: int) -> bytes:
        raise OSError("its bytes are elsewhere")

    def damaged(self, reason: str) -> None:
        """There is no file of it here."""

    async def readable(self, beyond: int) -> int:
        raise Unavailable("its bytes are elsewhere")

    def close(self) -> None:
        """Nothing is open."""


Content = BytesContent | FileContent


@dataclass(frozen=True, slots=True)
class TagPage:
    """One page of a repository's tags; `last` is the marker of the next page, None at the end."""

    tags: Sequence[str]
    last: str | None = None


@dataclass(frozen=True, slots=True)
class RepositoryPage:
    """One page of a registry's repositories; `last` is the marker of the next page, None at the
    end."""

    repositories: Sequence[Repository]
    last: str | None = None


# What a registry does for its clients, in the words of the OCI distribution-spec 1.1. Each method
# raises a RegistryError, and its first parameter is the request that it is done for. What a method
# gives to ANONYMOUS it gives to every client; what depends on a principal it gives to that one's
# requests only.


class Reader(Protocol):
    """Pull, and content discovery: everything that can answer for images."""

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        """What this tag points to now."""

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        """A manifest or index, whole and verified."""

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        """What a blob is, without its bytes (HEAD)."""

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        """A blob, verified before its last byte may be read.

        `part` is what will be read of it, None: the whole. A part is given as soon as it is there,
        before the bytes in front of it, and the client has to verify the whole.
        """

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        """The index of manifests whose subject is this digest (distribution-spec, "Listing
        Referrers"); empty when there are none."""

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        """Tags in the upstream's order, at most `count`, after `last`."""


class Body(Protocol):
    """The body of a request, as it comes. Raises Interrupted when it ends before it is whole, and
    SizeInvalid when it is whole and not of the size that the request has announced."""

    @property
    def size(self) -> int | None:
        """Bytes of the whole, None where the client did not say."""

    async def read(self) -> bytes:
        """The next bytes, at most some hundred KiB; b"" at the end."""

    async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
        """Hands what is left of it to `take`, piece by piece and in order, in threads that are not
        the event loop's. A piece is good until `take` returns. Raises what `take` raises; what
        follows is then not taken."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a manifest's PUT is answered with. `subject` is the digest that it refers to, which the
    registry has taken note of (the OCI-Subject header)."""

    descriptor: Descriptor
    subject: Digest | None = None


class Writer(Protocol):
    """Push. What a method has returned for can be read; until then nobody has seen any of it.

    A session is what the specification calls an upload: nobody guesses its id, and it is of one
    repository. A method that is given another raises UploadUnknown.
    """

    async def begin_upload(self, context: RequestContext, repository: Repository) -> str:
        """Opens a session, and gives its id."""

    async def append(
        self,
        context: RequestContext,
        repository: Repository,
        session: str,
        start: int | None,
        data: Body,
    ) -> int:
        """Takes what follows the first `start` bytes of the session; returns how many it has then.
        Without `start` the bytes follow whatever is there. Raises UploadRangeInvalid when the
        session has more or less than `start`, and then has what it had, as where `data` raises
        SizeInvalid. What of `data` has come before its end fails otherwise stays."""

    async def uploaded(self, context: RequestContext, repository: Repository, session: str) -> int:
        """How many bytes the session has, from which an upload that broke goes on."""

    async def finish_upload(
        self, context: RequestContext, repository: Repository, session: str, digest: Digest
    ) -> None:
        """Makes the session's bytes a blob of the repository, and ends it. Raises
        ContentMismatch when they are another than `digest`; the session is ended then too."""

    async def cancel_upload(
        self, context: RequestContext, repository: Repository, session: str
    ) -> None:
        """Ends the session, and keeps nothing of it."""

    async def mount(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        source: Repository | None,
    ) -> bool:
        """Makes a blob that another repository has one of this repository; False where it cannot
        be: the client is to send it. Without `source` any repository that the principal may pull
        from will do."""

    async def put_manifest(
        self,
        context: RequestContext,
        repository: Repository,
        reference: str | Digest,
        data: bytes,
        media_type: str,
    ) -> Stored:
        """Keeps these very bytes; a tag points to them from then on, and to what it pointed to
        before until then. Raises ManifestInvalid for what is none, ContentMismatch when they
        are another than the reference, ManifestBlobUnknown when the repository lacks what they
        refer to."""


class Deleter(Protocol):
    """Content management. What a method has returned for is not answered any more; it raises
    Unknown for what is not there."""

    async def delete_tag(self, context: RequestContext, repository: Repository, tag: str) -> None:
        """Takes the tag away, and leaves what it points to."""

    async def delete_manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        """Takes the manifest out of this repository, with all tags that point to it."""

    async def delete_blob(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        """Takes the blob out of this repository, and of no other."""


class Lister(Protocol):
    """What there is. The specification has no word for it; Docker's registry calls it _catalog."""

    async def repositories(
        self,
        context: RequestContext,
        registry: str,
        count: int | None = None,
        last: str | None = None,
    ) -> RepositoryPage:
        """Repositories of this registry in their names' order, at most `count`, after `last`."""


CONTRACTS = (Reader, Writer, Deleter, Lister)
