"""What happens in a mirror. Whoever does it emits it (see mirror/events.py), whoever wants to know
listens: metrics, and what may come.

Names of registries, repositories and tags are clients' choice, and unbounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import NamedTuple

from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.reference import Repository

# Requests.


class RequestAnswered(NamedTuple):  # made in a quarter of the time: one each request
    """One request is over. `kind`: blob, manifest, tag, tags, referrers, ping or other; `outcome`:
    see Outcome. `registry`, `repository` and `reference` are "" where the request named none.
    `status` None: the client left before it was answered. `sent`: bytes of a body that were handed
    to the client. Both times are in seconds from the request's arrival.

    `client` is its address. `agent`: the first product of its User-Agent. `digest`: what a tag
    pointed to, and `age` for how many seconds nobody had confirmed that. `error`: why it failed.
    `left`: the client hung up before the end."""

    kind: str
    registry: str
    repository: str
    reference: str
    outcome: str
    status: int | None
    client: str
    sent: int
    first_byte: float
    last_byte: float
    method: str = ""
    request_id: str = ""
    agent: str = ""
    digest: str = ""
    age: float | None = None
    error: str = ""
    left: bool = False


@dataclass(frozen=True, slots=True)
class HitsAnswered:
    """So many requests for what is here are over, each within `within` seconds (a millisecond at
    most), `took` seconds and `sent` bytes of bodies together: those are too many to be told one by
    one. `named`: the repository, the reference and the number of each that named any; `by`: in the
    same order, the method, and the client's address of each of that number."""

    kind: str
    registry: str
    status: int
    count: int
    took: float
    sent: int
    named: Sequence[tuple[str, str, int]] = ()
    by: Sequence[tuple[str, Sequence[str]]] = ()
    within: float = 0.001


@dataclass(frozen=True, slots=True)
class CredentialsDropped:
    """A client sent credentials to the mirror; they went no further."""


# Fills: downloads of blobs. `fill` is a number that tells one process' fills apart.


@dataclass(frozen=True, slots=True)
class FillQueued:
    """A fill waits for a place among those that run: for its first, or again, as it gave its place
    to another."""

    fill: int
    repository: Repository
    digest: Digest


@dataclass(frozen=True, slots=True)
class FillStarted:
    """A fill has a place, and downloads. `waited`: seconds since it was queued."""

    fill: int
    repository: Repository
    digest: Digest
    waited: float


@dataclass(frozen=True, slots=True)
class FillSpilled:
    """The disk takes no more of a fill: who reads it gets the rest through memory, and nobody can
    join it."""

    fill: int
    repository: Repository
    digest: Digest


@dataclass(frozen=True, slots=True)
class FillEnded:
    """A fill is over, whether it had a place or not. `result`: committed, followed (another process
    did), rejected, suspended, failed, or uncached (there was no room). `size`: bytes that are here
    of it now."""

    fill: int
    repository: Repository
    digest: Digest
    result: str
    size: int


@dataclass(frozen=True, slots=True)
class Prefetched:
    """A blob of `size` bytes is here that no client had asked for when its download was begun."""

    repository: Repository
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class PrefetchRead:
    """A client asks for a blob of `size` bytes that was, or is being, fetched ahead: the first that
    does."""

    repository: Repository
    digest: Digest
    size: int


# Content.


@dataclass(frozen=True, slots=True)
class ContentCommitted:
    """Bytes that came from an upstream were proven, and are content of the store from now on.
    `sources`: the endpoints that gave them, as far as this process knows. `media_type`: a
    manifest's; of a blob it is not known. `refers_to`: what a manifest needs."""

    digest: Digest
    size: int
    repository: Repository
    sources: Sequence[str]
    media_type: str
    refers_to: Sequence[Digest]


@dataclass(frozen=True, slots=True)
class ContentEvicted:
    """Content was removed to make room. `size`: bytes, 0 where they are not known. `unused` is how
    many seconds ago it was used last, `age` how many ago it was written; None: not known.
    `is_due`: a second tier, where there is one, was yet to be given it."""

    digest: Digest
    size: int
    unused: float | None = None
    age: float | None = None
    is_due: bool = False


@dataclass(frozen=True, slots=True)
class ContentPurged:
    """Content was removed as somebody wanted it so. `size`: bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class ContentLost:
    """A record of content was forgotten, as there is none: it had gone behind the mirror's back."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class ContentQuarantined:
    """A piece of content was found damaged, and set aside."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class SecondTierGiven:
    """The second tier was to keep a piece of content; whether it does. `sent`: bytes that it was
    given, 0 where it had it. What it does not keep is tried again. Told by the process that keeps
    the store's house, of what all of the node have brought."""

    kept: bool
    digest: Digest
    sent: int = 0


@dataclass(frozen=True, slots=True)
class SecondTierMissed:
    """Content was evicted that the second tier was yet to be given."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class SecondTierBacklog:
    """So many pieces of content are yet to be given to the second tier; the oldest came here so
    many seconds ago, 0 where all of them were here before there was one."""

    count: int
    oldest: float


@dataclass(frozen=True, slots=True)
class SecondTierAsked:
    """Content was wanted of the second tier. `result`: hit, miss, or away, where it gave no answer
    or a refusal, or was not asked since it was away a moment ago."""

    result: str


@dataclass(frozen=True, slots=True)
class SecondTierFailed:
    """An object store that is the second tier did not do what it was asked. `operation`: get, look
    or put."""

    operation: str


@dataclass(frozen=True, slots=True)
class SecondTierWrong:
    """What the second tier has of a digest is wrong. `set_aside`: whether it was moved to where
    nobody reads it."""

    digest: Digest
    set_aside: bool


@dataclass(frozen=True, slots=True)
class SecondTierSwept:
    """A sweep of the object store behind the disk has ended at this time. `objects` and `bytes` of
    content were there; `gone`: objects and bytes that it has removed, by why (old, room, wrong).
    Where it `failed` they are not known."""

    at: float
    failed: bool
    objects: int = 0
    bytes: int = 0
    gone: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlobRedirected:
    """A client was told to fetch a blob from the object store itself. `size`: of the whole."""

    repository: Repository
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class CatalogueDropped:
    """So many things that happened are not in the catalogue: there were too many at once, or it
    could not be written."""

    count: int


# Tags.


@dataclass(frozen=True, slots=True)
class TagMoved:
    """The upstream says that a tag points to something else than what was remembered. `before`
    None: nothing was known of it. `after` None: it is gone. Processes that ask at the same time
    each tell it, with the same `after`: of one move, once a process at most."""

    repository: Repository
    tag: str
    before: Digest | None
    after: Digest | None


@dataclass(frozen=True, slots=True)
class TagChecked:
    """The upstream was asked what a tag points to. `age`: seconds since an upstream had last said
    so, None where nothing was known; `ttl`: for how many that was believed. `took`: seconds until
    it was known, with the manifest in hand. `result`: unchanged, moved, found (nothing was known of
    it), gone, or failed; then `reason` says why."""

    repository: Repository
    tag: str
    age: float | None
    ttl: float
    took: float
    result: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TagStoreFailed:
    """`store`: embedded or redis."""

    store: str
    operation: str


@dataclass(frozen=True, slots=True)
class TagStoreSwitched:
    """From now on the tag memory does, or does not, what it is there for. `ability`: read, write;
    of Redis also reach, history, or share (what nodes tell one another beside tags)."""

    store: str
    ability: str
    works: bool


# Nodes that fetch together.


@dataclass(frozen=True, slots=True)
class LeasesSwitched:
    """From now on it can, or cannot, be said which node fetches what."""

    works: bool


@dataclass(frozen=True, slots=True)
class FleetAsked:
    """Who fetches a content was asked. `result`: fetches (this node does, for all), follows (it
    reads from another), or alone (it fetches for itself: nobody can say, or who does is not
    reached). `waited`: seconds until that had answered."""

    result: str
    waited: float


@dataclass(frozen=True, slots=True)
class FleetWentOn:
    """The node that was read from has failed, or was silent. `result`: who brings the rest, as of
    FleetAsked; `silent`: seconds from its last bytes until that had answered."""

    result: str
    silent: float


# Upstreams. `registry` is whose content was asked for, as the configuration or the client calls it;
# "" for the second tier, which keeps that of all, and for other nodes. `endpoint` is its name in
# the configuration; all that clients have named are one.


@dataclass(frozen=True, slots=True)
class UpstreamAsked:
    """`status` is an HTTP status, or the kind of error: connect, dns, tls, timeout, cut,
    proxy. `took`: seconds until it was known, which is when the head of an answer has come."""

    registry: str
    endpoint: str
    method: str
    status: str
    took: float


@dataclass(frozen=True, slots=True)
class UpstreamRead:
    """So many bytes of a body came."""

    registry: str
    endpoint: str
    count: int


@dataclass(frozen=True, slots=True)
class UpstreamRejected:
    """Bytes from there were not what their digest says."""

    registry: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class UpstreamHedged:
    """This endpoint was asked beside another that was late; whether it answered first."""

    registry: str
    endpoint: str
    won: bool


@dataclass(frozen=True, slots=True)
class BreakerSwitched:
    """An endpoint is passed over for this kind of trouble (fault, limited or wrong) from now on, or
    is not any more."""

    registry: str
    endpoint: str
    trouble: str
    open: bool


@dataclass(frozen=True, slots=True)
class EndpointAnswered:
    """What an endpoint was asked for came after so many seconds; of a blob, its first piece.
    `asked`: tag, stat, list, manifest or blob; `what`: the tag, or the digest."""

    registry: str
    endpoint: str
    repository: Repository
    asked: str
    what: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EndpointTroubled:
    """Other endpoints are asked before this one, for this reason. `repository` "": for all that is
    asked. Told once, until all is well."""

    registry: str
    endpoint: str
    repository: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointRecovered:
    """That is over."""

    registry: str
    endpoint: str
    repository: str


@dataclass(frozen=True, slots=True)
class EndpointBanned:
    """This endpoint sent what was not asked for, and is asked only where nobody else answers, for
    so many seconds. `repository` "": for all."""

    registry: str
    endpoint: str
    repository: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EndpointJoined:
    """From now on this endpoint of the configuration may be asked. Told again of those that stay
    when another configuration counts."""

    registry: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class EndpointLeft:
    """This endpoint is asked no more: another configuration counts, without it, or with another in
    its place."""

    registry: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class QuotaReported:
    """How many manifests the endpoint gives to this login ("" for none), and still gives. `resets`:
    when the window ends in which they were taken, at the latest (seconds since the epoch); 0 where
    none is missing, or the endpoint names no window."""

    registry: str
    endpoint: str
    login: str
    limit: int
    remaining: int
    resets: float


@dataclass(frozen=True, slots=True)
class QuotaPaused:
    """No manifest is asked for before `until` (seconds since the epoch); 0: it may be."""

    registry: str
    endpoint: str
    login: str
    until: float


@dataclass(frozen=True, slots=True)
class LoginJudged:
    """Whether the endpoint, or its token realm, refuses this login; `why`, in its words."""

    registry: str
    endpoint: str
    login: str
    refused: bool
    why: str = ""


# Images brought ahead of clients, by the entries of `sync`.


@dataclass(frozen=True, slots=True)
class SyncBegun:
    """An entry of `sync` runs."""

    name: str


@dataclass(frozen=True, slots=True)
class SyncEnded:
    """A run of an entry has ended, by itself or not. `result`: good, failed (`failed` of its
    `images`), or stopped. `fetched`: bytes that came."""

    name: str
    result: str
    images: int
    failed: int
    fetched: int
    seconds: float


# Repositories of one's own. `by`: the name of the principal that did it.


@dataclass(frozen=True, slots=True)
class BlobPushed:
    """A repository has this blob from now on; also where its bytes were here before."""

    repository: Repository
    digest: Digest
    size: int
    by: str


@dataclass(frozen=True, slots=True)
class ManifestPushed:
    """`tag` points to it from now on, and pointed to `before` until then; "" where it was pushed by
    its digest alone."""

    repository: Repository
    digest: Digest
    media_type: str
    size: int
    tag: str
    before: Digest | None
    by: str


@dataclass(frozen=True, slots=True)
class TagDeleted:
    repository: Repository
    tag: str
    by: str


@dataclass(frozen=True, slots=True)
class ManifestDeleted:
    """With all tags that pointed to it."""

    repository: Repository
    digest: Digest
    by: str


@dataclass(frozen=True, slots=True)
class BlobDeleted:
    repository: Repository
    digest: Digest
    by: str


@dataclass(frozen=True, slots=True)
class RepositoryChanged:
    """Its visibility, its settings; or it was deleted."""

    repository: Repository
    by: str


@dataclass(frozen=True, slots=True)
class CollectionEnded:
    """A garbage collection has ended `at` this time, in seconds since the epoch. `result`: done,
    stopped or failed. It took out so many blobs of repositories, so many repositories, and so many
    pieces of content, which gave back `freed` bytes."""

    result: str
    at: float
    blobs: int
    repositories: int
    content: int
    freed: int


@dataclass(frozen=True, slots=True)
class HeldContentChecked:
    """So many pieces of content that repositories need are not in the store."""

    missing: int


@dataclass(frozen=True, slots=True)
class RetentionEnded:
    """The retention rules of all repositories were followed; `failed`: of so many they could not
    be."""

    at: float
    tags: int
    manifests: int
    failed: int


@dataclass(frozen=True, slots=True)
class WebhookAttempted:
    """A receiver was sent a delivery. `result`: delivered (2xx), refused (it will be refused
    again), later (it is tried again), or unreachable (there was no answer; so it is, too). `ended`:
    it is not tried again. `took`: seconds."""

    result: str
    ended: bool
    took: float


@dataclass(frozen=True, slots=True)
class WebhooksCounted:
    """What waits to be delivered, of all webhooks. `oldest`: for how many seconds the oldest of it
    has, 0 where nothing waits. `dropped`: what found no room in a queue, since ever; `given_up`:
    what became too old, since it was counted before."""

    waiting: int
    oldest: float
    dropped: int
    given_up: int


# The nodes of a fleet.


@dataclass(frozen=True, slots=True)
class FleetNodesCounted:
    """So many nodes are known, this one among them."""

    known: int


@dataclass(frozen=True, slots=True)
class PeerAnswered:
    """Another node was answered at the peer port. `result`: here (from the disk), growing (as it
    came), elsewhere, nothing, cut (in the midst), or refused; then `reason` says why."""

    result: str
    sent: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PeerFollowing:
    """So many more streams of growing content are read by other nodes; -1: one less."""

    more: int


@dataclass(frozen=True, slots=True)
class PeerAsked:
    """Another node was asked for content. `result`: stream, elsewhere, nothing, away, refused, or
    wrong."""

    result: str


# Processes.


@dataclass(frozen=True, slots=True)
class ConfigLoaded:
    """The configuration that runs was read `at` this time, in seconds since the epoch."""

    at: float


@dataclass(frozen=True, slots=True)
class CertificateShown:
    """From now on clients, and nodes, are shown certificates the first of which ends at `expires`
    (seconds since the epoch); 0: the mirror speaks no TLS."""

    expires: float


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """A reload has ended. `result`: applied, refused or failed; `words`: the mistakes, or what has
    not taken it."""

    result: str
    words: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class WorkerReplaced:
    """A worker process ended by itself (`why`: died), or was ended as it hung (hung)."""

    why: str


@dataclass(frozen=True, slots=True)
class UpkeepEnded:
    """Some `work` for the store has ended `at` this time, in seconds since the epoch: mend, tidy,
    settle or scrub. Whether it went well."""

    work: str
    at: float
    went_well: bool
