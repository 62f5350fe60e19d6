"""The contracts between the rooms, nothing else.

The narrow waist is `Registry`: the remote registry, the pool of endpoints, the cache in front of
them, each wrapper and the fakes in the tests are all one shape, so they stack.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol, TypeVar

from .oci.descriptor import Descriptor
from .oci.digest import Digest
from .oci.ranges import ByteRange
from .oci.reference import Repository

N = TypeVar("N")


class Asker(Protocol):
    """For whom something is done. Both may change meanwhile: others come to wait for the same."""

    @property
    def client(self) -> str:
        """Whose share of what is scarce it takes: an address, or what stands for a network."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for it. What nobody wants gives way to all."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client; or nobody, for what is done ahead of clients."""

    client: str
    is_wanted: bool = True


NOBODY = Client("")
AHEAD = Client("ahead of clients", is_wanted=False)

CLIENT: ContextVar[Asker] = ContextVar("CLIENT", default=NOBODY)
"""Whose request this is, for sharing fairly what is scarce. Set by the server, by fills and by what
works ahead of clients; it would otherwise be a parameter of every Registry that only the innermost
reads."""


def ahead_of_clients() -> Context:
    """A context for tasks that work ahead of clients."""
    context = Context()
    context.run(CLIENT.set, AHEAD)
    return context


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, passed in so that tests need not sleep.

    `wall` (seconds since the epoch) is only for what is written down and outlives the process;
    everything else ages by `monotonic` (seconds).
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Outcome(StrEnum):
    """How an answer came to be: what metrics, logs and the Cache-Status header call it."""

    HIT = "hit"  # from here, the upstream not asked
    REVALIDATED = "revalidated"  # the upstream said that what is here is still right
    STALE = "stale"  # from here, older than its TTL: the upstream could not say, or is yet to say
    FILLED = "filled"  # fetched now
    JOINED = "joined"  # being fetched already, for somebody else
    PASSED = "passed"  # handed through, never kept (tag lists)
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


class StreamContent(Protocol):
    """A remote's body, unverified: only fills read it. The holder closes it.

    It may change endpoints on its way: `source`, `vouched` and `reject` are those of the endpoint
    whose bytes were read last.
    """

    @property
    def descriptor(self) -> Descriptor:
        """`size` is the whole content's, not this part's; None when the upstream gave none."""

    @property
    def start(self) -> int:
        """The offset of the first byte that comes: 0 when the upstream ignored the range."""

    @property
    def source(self) -> str:
        """The endpoint's name, for messages and metrics."""

    @property
    def vouched(self) -> bool:
        """Whether the endpoint is the registry itself; others' bytes are worth nothing unproven."""

    async def read(self) -> bytes:
        """The next bytes as they come, at most about a MiB; b"" at the end.

        Raises Unavailable when the body was cut, is too slow, or is silent everywhere. Cancelled,
        it may be called again, and no byte is lost.
        """

    def reject(self, reason: str) -> None:
        """Tells whoever gave this stream that its bytes were proven wrong."""

    async def close(self) -> None:
        """Closed again, it stays as it is."""


Content = BytesContent | FileContent


@dataclass(frozen=True, slots=True)
class TagPage:
    """One page of a repository's tags; `last` is the marker of the next page, None at the end."""

    tags: Sequence[str]
    last: str | None = None


class Registry(Protocol):
    """Everything that can answer for images. Each method raises a RegistryError."""

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """What this tag points to now."""

    async def manifest(self, repository: Repository, digest: Digest) -> BytesContent:
        """A manifest or index, whole and verified."""

    async def stat(self, repository: Repository, digest: Digest) -> Descriptor:
        """What a blob is, without its bytes (HEAD)."""

    async def blob(self, repository: Repository, digest: Digest, start: int = 0) -> FileContent:
        """A blob, verified before its last byte may be read.

        `start` is the first byte that will be read: one that is far ahead of a running fill comes
        on its own, and the client has to verify the whole.
        """

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None = None
    ) -> BytesContent:
        """The index of manifests whose subject is this digest (distribution-spec, "Listing
        Referrers"); empty when there are none."""

    async def tags(
        self, repository: Repository, count: int | None = None, last: str | None = None
    ) -> TagPage:
        """Tags in the upstream's order, at most `count`, after `last`."""


class Upstream(Protocol):
    """A Registry that is far away: its blobs are streams, to be verified by who reads them."""

    async def resolve(
        self, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        """What the tag points to, asked with a HEAD where that suffices: it is not counted
        against Docker Hub's limits. A digest in the tag's place asks whether it is there.

        An endpoint that names one of `passed_over` counts as one that gave no answer: nobody has
        the manifest that it names, or that is none."""

    async def manifest(self, repository: Repository, digest: Digest) -> BytesContent: ...

    async def stat(self, repository: Repository, digest: Digest) -> Descriptor: ...

    async def blob(
        self,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        """`vouched`: only from the registry itself (see StreamContent)."""

    async def referrers(self, repository: Repository, digest: Digest) -> bytes:
        """The whole index of manifests whose subject is this digest. Raises Unknown where there is
        none: a registry without that API does not say whether there could be one."""

    async def tags(
        self, repository: Repository, count: int | None = None, last: str | None = None
    ) -> TagPage: ...


class Budgeted(Protocol):
    """What an Upstream may offer besides: whether it should be asked."""

    def away(self, repository: Repository, tag: str) -> bool:
        """Whether nobody who may say what this tag points to was there lately, or could say it: an
        ask fails at once, or takes its time to."""

    def scarce(self) -> bool:
        """Whether little is left of what the upstream gives (Docker Hub counts GETs of manifests):
        who can wait should, and nothing should be fetched that nobody has asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of content in a store. `size` in bytes, `used_at` in seconds since the epoch."""

    digest: Digest
    size: int
    used_at: float


class StoreFull(Exception):
    """There is no room for these bytes: under the configured size, or on the disk. Or they cannot
    be counted, which comes to the same."""


class Partial(Protocol):
    """Content being written: append-only, hashed as it is written, visible to nobody by name.

    One writer a digest, across processes. Readers hold a descriptor of their own (`open()`) and
    read below `offset`.
    """

    @property
    def digest(self) -> Digest: ...

    size: int | None
    """Of the whole, as it was announced, by an earlier writer if need be."""

    trusted: bool
    """Whether the size is the registry's own word. Else room is made for what comes within a share:
    what others may evict with bytes that prove to be wrong is little."""

    @property
    def offset(self) -> int:
        """Bytes written and hashed: where a resumed download goes on."""

    async def announce(self, size: int) -> None:
        """The whole will have `size` bytes. Room is made as they come; raises StoreFull for more
        than could ever be kept."""

    async def append(self, pieces: Sequence[bytes]) -> None:
        """Writes and hashes these pieces, off the event loop.

        Raises StoreFull when there is no room for them, OSError for other faults of the disk. Then
        `offset` tells how much was taken all the same.
        """

    @property
    def ahead(self) -> Sequence[tuple[int, int]]:
        """What was placed behind `offset`: spans of bytes, in order, none of which touch."""

    async def place(self, at: int, pieces: Sequence[bytes]) -> None:
        """Writes these pieces behind `offset`, as one of several streams brings them: `offset`
        moves over them when what is missing before them has come. Errors as `append`."""

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        """Makes the content visible under its digest, durably.

        `refers_to` is what this content needs to be of use: it is kept as long as this is kept.
        Raises Untrustworthy, and removes what was written, when the bytes are not those that the
        digest names.
        """

    async def suspend(self) -> None:
        """Stops writing and keeps what is there, to be resumed by whoever asks next."""

    async def discard(self) -> None:
        """Removes what was written."""

    def open(self) -> int:
        """A descriptor of its own on the growing file, for a reader to keep and close."""

    def hasher(self) -> Hasher:
        """The hash of the bytes up to `offset`, to be continued elsewhere."""


class Followed(Protocol):
    """Content that another process is writing, seen from here."""

    @property
    def size(self) -> int | None:
        """The size of the whole, as its writer announced it; None when it has not."""

    def written(self) -> int:
        """Bytes written by now, not yet proven."""

    def state(self) -> WriterState:
        """What has become of it."""

    def open(self) -> int:
        """As Partial.open."""

    def close(self) -> None: ...


class WriterState(Enum):
    WRITING = "writing"  # or killed: who gets the lock (`partial`) knows
    PROVEN = "proven"  # it has its name now
    GONE = "gone"  # removed: it was wrong, or there was no room


class Hasher(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store holds: bytes and entries of content, bytes reserved for what is coming."""

    content_bytes: int
    entries: int
    reserved_bytes: int
    max_bytes: int


class ContentStore(Protocol):
    """Holds verified bytes only; a caller cannot make it hold anything else."""

    async def open(self, digest: Digest, outcome: Outcome = Outcome.HIT) -> FileContent | None:
        """The content, if it is here. The handle stays good after eviction unlinks it.

        `outcome` is what the content is to say of how it came to be here."""

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a small content, if it is here; its digest is proven again.

        What is damaged, or larger than `limit` bytes, is not here.
        """

    async def put(
        self, digest: Digest, data: bytes, refers_to: Sequence[Digest] = (), source: str = ""
    ) -> None:
        """Keeps small content whose bytes are all here, as this source gave them; see
        Partial.commit. Nothing, where somebody else is just writing it. Raises StoreFull, OSError,
        Untrustworthy."""

    async def partial(self, digest: Digest, source: str = "") -> Partial | None:
        """Begins or resumes writing what comes from this source; None when somebody else is writing
        it. What other sources send is neither seen nor touched: nothing of it is proven."""

    async def follow(self, digest: Digest, source: str = "") -> Followed | None:
        """What another process is writing of this source; None when nobody is."""

    def touch(self, digest: Digest) -> None:
        """Notes that this content was used now, and with it what it refers to."""

    def is_needed(self, digest: Digest) -> bool:
        """Whether content that is here refers to this as what it needs. A few microseconds."""

    async def pin(self, name: str, digest: Digest) -> None:
        """Keeps this content, and all that it needs, whatever its age; in place of what was kept
        under this name before."""

    async def delete(self, digest: Digest) -> None: ...

    def scan(self) -> AsyncIterator[Entry]: ...

    def usage(self) -> Usage: ...


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What a tag pointed to. `descriptor` None: the upstream said that there is no such tag.

    `checked_at` is when an upstream last said so, in seconds since the epoch.
    """

    descriptor: Descriptor | None
    checked_at: float


@dataclass(frozen=True, slots=True)
class TagEvent:
    """What a tag pointed to for a while; `digest` None: there was no such tag any more.

    When that was first and last said, in seconds since the epoch. By clocks that may have been
    wrong: events are in the order in which they were noted, whatever their times.
    """

    digest: Digest | None
    first_seen: float
    last_seen: float


class TagStore(Protocol):
    """Small records that age. A store that cannot answer raises TagStoreError, in bounded time."""

    async def get(self, repository: Repository, tag: str) -> TagRecord | None: ...

    async def put(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        """Remembers for `keep_for` seconds, and forgets by itself; notes it in the history."""

    async def delete(self, repository: Repository, tag: str) -> None:
        """Forgets the record. The history stays."""

    async def history(self, repository: Repository, tag: str) -> Sequence[TagEvent]:
        """What the tag pointed to, the newest first.

        Kept far longer than records, within bounds of its own. Saying the same again is no new
        event. A tag that never was has no history, however often that was said.
        """

    async def has_forgotten(self, repository: Repository) -> bool:
        """Whether, for want of room, some of this repository's history was forgotten: a tag whose
        history says nothing may then have been known."""

    async def freeze(self, repository: Repository, tag: str, digest: Digest) -> None:
        """Makes this what `frozen` says, on all nodes that share the store within a second, until
        it is unfrozen."""

    async def unfreeze(self, repository: Repository, tag: str) -> bool:
        """Whether it was frozen."""

    async def frozen(self, repository: Repository, tag: str) -> Digest | None:
        """What the tag is frozen to. Asked at every pull by tag: cheap."""

    async def close(self) -> None: ...


class Links(Protocol):
    """Which repositories have shown which digests: content is shared by all, but given only through
    those. Bounded, and it outlives the process. Its faults are its own: what it cannot say, it
    does not know."""

    async def add(self, repository: Repository, digests: Sequence[Digest]) -> None:
        """This repository shows these now. On return, other processes know it too."""

    async def seen(self, repository: Repository, digest: Digest) -> float | None:
        """When the repository was last known to show it, in seconds since the epoch. A few
        microseconds."""

    async def is_shown(self, digest: Digest) -> bool:
        """Whether any repository is known to show it."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ReferrerList:
    """The referrers of a subject: an OCI index with so many entries; when an upstream last said so,
    in seconds since the epoch."""

    data: bytes
    count: int
    checked_at: float


class ReferrerLists(Protocol):
    """The lists of referrers that upstreams gave. Bounded, and it outlives the process. Its faults
    are its own: what it cannot say, it does not know."""

    async def get(self, repository: Repository, subject: Digest) -> ReferrerList | None: ...

    async def put(self, repository: Repository, subject: Digest, kept: ReferrerList) -> None:
        """On return, other processes know it too; unless it is too long to be kept."""

    async def close(self) -> None: ...


class NoReferrerLists:
    """Keeps none."""

    async def get(self, repository: Repository, subject: Digest) -> ReferrerList | None:
        return None

    async def put(self, repository: Repository, subject: Digest, kept: ReferrerList) -> None: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class QuotaRecord:
    """What an endpoint said of the manifests that it gives to one login: so many in `window`
    seconds, so many left; `source` is whom it counts, "" when it does not say.

    Times are in seconds since the epoch. Before `pulls_at` no manifest is pulled, because the count
    was used up where it was `counted`; before `asks_at` none is asked for at all.
    """

    limit: int | None
    remaining: int | None
    window: float | None
    source: str
    said_at: float
    pulls_at: float
    counted: bool
    asks_at: float


@dataclass(frozen=True, slots=True)
class RefusedLogin:
    """That an endpoint, or its token realm, refuses a login of ours, and `why`; "" when it is good
    again. Before `until` (seconds since the epoch) it is not shown. `secret` tells whether it is
    still the same one; "" where that cannot be told."""

    endpoint: str
    login: str
    why: str
    until: float
    secret: str


class Notes(Protocol[N]):
    """What the processes of one node tell each other of one login at one endpoint. Its faults are
    its own: what it cannot say, it does not know."""

    def heard(self) -> N | None:
        """What another has noted since this was last asked; None: nothing new. A few
        microseconds."""

    def note(self, record: N) -> None:
        """Tells the others, soon."""


class AccountNotes(Protocol):
    """Notes of all logins, each by an endpoint's URL and a login, in words that are always the
    same."""

    def quota(self, account: str) -> Notes[QuotaRecord]: ...

    def login(self, account: str) -> Notes[RefusedLogin]: ...


class TagStoreError(Exception):
    """The tag memory does not answer. Never a reason to fail a pull."""


class Meter(Protocol):
    """What happens inside, told to whoever counts it. Every label is from a bounded set."""

    def upstream_request(self, endpoint: str, method: str, status: str) -> None:
        """`status` is an HTTP status, or the kind of error: connect, dns, tls, timeout, cut."""

    def upstream_bytes(self, endpoint: str, count: int) -> None: ...

    def upstream_rejected(self, endpoint: str) -> None:
        """Bytes from there were not what their digest says."""

    def upstream_hedged(self, endpoint: str, won: bool) -> None:
        """This one was asked besides another that was late; whether it answered first."""

    def upstream_breaker(self, endpoint: str, trouble: str, open: bool) -> None:
        """`trouble`: fault, limited, or wrong."""

    def upstream_quota(self, endpoint: str, login: str, limit: int, remaining: int) -> None:
        """How many manifests the endpoint gives to this login ("" for none), and still gives."""

    def upstream_quota_until(self, endpoint: str, login: str, until: float) -> None:
        """No manifest is asked for before (seconds since the epoch); 0: it may be."""

    def upstream_login_refused(self, endpoint: str, login: str, refused: bool) -> None:
        """Whether the endpoint, or its token realm, refuses this login."""

    def fill_started(self) -> None: ...

    def fill_ended(self, result: str) -> None:
        """`result`: committed, followed (another process did), rejected, suspended, failed, or
        uncached (there was no room)."""

    def tag_store_error(self, store: str, operation: str) -> None: ...

    def content_rotten(self) -> None:
        """A piece of content was found damaged, and set aside."""

    def credentials_dropped(self) -> None:
        """A client sent credentials to the mirror; they went no further."""

    def sent(self, kind: str, count: int) -> None:
        """Bytes of a body handed to a client."""

    def answered(
        self, kind: str, outcome: str, status: int, first_byte: float, last_byte: float
    ) -> None:
        """One request is over; both times in seconds from its arrival."""

    def answered_at_once(
        self, kind: str, outcome: str, status: int, count: int, took: float
    ) -> None:
        """So many requests are over, each within a millisecond; `took` seconds together."""


class NoMeter:
    """Counts nothing: for tests, and for commands that run beside a server."""

    def upstream_request(self, endpoint: str, method: str, status: str) -> None: ...
    def upstream_bytes(self, endpoint: str, count: int) -> None: ...
    def upstream_rejected(self, endpoint: str) -> None: ...
    def upstream_hedged(self, endpoint: str, won: bool) -> None: ...
    def upstream_breaker(self, endpoint: str, trouble: str, open: bool) -> None: ...
    def upstream_quota(self, endpoint: str, login: str, limit: int, remaining: int) -> None: ...
    def upstream_quota_until(self, endpoint: str, login: str, until: float) -> None: ...
    def upstream_login_refused(self, endpoint: str, login: str, refused: bool) -> None: ...
    def fill_started(self) -> None: ...
    def fill_ended(self, result: str) -> None: ...
    def tag_store_error(self, store: str, operation: str) -> None: ...
    def content_rotten(self) -> None: ...
    def credentials_dropped(self) -> None: ...
    def sent(self, kind: str, count: int) -> None: ...
    def answered(
        self, kind: str, outcome: str, status: int, first_byte: float, last_byte: float
    ) -> None: ...
    def answered_at_once(
        self, kind: str, outcome: str, status: int, count: int, took: float
    ) -> None: ...
