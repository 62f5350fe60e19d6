"""Every number that decides what a client sees after how long. docs/time.md shows what follows.

In seconds. What clients bear was measured with dockerd (20.10 to 28.5), containerd (1.6 to 2.1),
skopeo and podman: none of them ends a request for a manifest or blob by itself, all wait for a
blob's first byte for 35 seconds, and all go elsewhere after a tag's error. podman and skopeo go
nowhere else once a tag was answered: so a tag is refused soon, and what it names is waited for.
"""

from __future__ import annotations

from .frozen import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """After which a request is answered with 503, whatever it waits for; the answers of requests
    that are within what an upstream takes come before."""

    tag: float = 15.0  # the upstream's word (Answers.unknown), and its proof
    manifest: float = 60.0  # as long as one ask may take, and the client may have no second chance
    stat: float = 60.0
    blob: float = 90.0  # until the first byte: a turn (30), trouble (30), and a try under way
    tags: float = 60.0  # some registries take minutes for such a list; no pull needs it
    referrers: float = 15.0
    push: float = 300.0  # what ends a push, its body apart: it may have to be hashed anew


@dataclass(frozen=True, slots=True)
class Answers:
    """`stale`: for the upstream's word on what could be answered stale: below a second, so that
    a pull does not seem to hang. `unknown`: on what is not known here; dockerd gives a whole mirror
    15 seconds to answer `/v2/`. `ask`: for an ask of the upstream with all its tries, which goes on
    when the client was answered, and which others join. `beside`: then who has joined an ask that
    is silent asks beside it."""

    stale: float = 0.8
    unknown: float = 12.0
    ask: float = 60.0
    beside: float = 2.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """How long trouble is waited out. `promised`: of what a manifest names that the client has, a
    pull that has begun; `other`: of anything else. `lagging`: for which a 404 is not believed of
    what was promised: a replica has caught up by then. `limited`: for which a 429 is waited out of
    anything but a blob. `proof`: of whether a repository shows a digest, where that is not known.
    `pause`: before the second ask; then twice as long each time."""

    promised: float = 30.0
    other: float = 2.0
    lagging: float = 8.0
    limited: float = 8.0
    proof: float = 2.0
    pause: float = 0.25


SECRET = 5.0
"""For the file of a secret, or of a note, which may be on a share that is gone."""

HELPER = 10.0
"""For a credential helper, which may ask its cloud: shorter than the tag that waits for it."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """One exchange with an endpoint. `headers`: from asking to the answer's headers, connecting
    included: longer than clients were seen to wait, since another ask is sent beside one that is
    late, and nothing is gained by giving up the first. `head_silent`: for a tag's HEAD, tokens
    and retries included; then its GET is sent instead, unless the registry counts those; less than
    a turn among clients. `answer`: to the final headers: tokens,
    redirects and retries together. `realm`: for a token, which many may wait for, and for the turn
    to ask for it; `realm_silent`: then the same is asked for beside. `body`: of a manifest or list,
    whole; `unwanted`: of a redirect or an error. `connection`: for one of the connections that the
    host bears."""

    dns: float = 5.0
    connect: float = 5.0
    headers: float = 45.0
    head_silent: float = 1.5
    answer: float = 60.0
    realm: float = 15.0
    realm_silent: float = 2.0
    body: float = 30.0
    unwanted: float = 1.0
    connection: float = 60.0


@dataclass(frozen=True, slots=True)
class Hedges:
    """When another ask is sent beside one that is late. An answer is late after `factor` times what
    is usual for its endpoint, between `least` and `most`; after `unmeasured` where nothing is
    known. Where no other endpoint is left, the same is asked once more: `again` after the first
    ask, then after twice as long each time, for `again_for` in all."""

    factor: float = 3.0
    least: float = 0.5
    most: float = 10.0
    unmeasured: float = 2.0
    again: float = 2.0
    again_for: float = 30.0


@dataclass(frozen=True, slots=True)
class Bodies:
    """A blob's body. `silent`: then the rest is asked for beside it. `alone`: where no connection
    is free for that, it is given up. `longest`: then, of all its connections. `doubt`: of dripping;
    then the rest is asked for beside. `slow`: below the least speed, over all its connections."""

    silent: float = 2.0
    alone: float = 6.0
    longest: float = 45.0
    doubt: float = 1.5
    slow: float = 30.0


@dataclass(frozen=True, slots=True)
class Downloads:
    """A download over all its tries. `first_byte`: no try is begun later than that without any
    progress, and one that is under way ends by itself; `stalled`: since the last progress. It is
    two tries, of which each is silent for as long as a body may be. `doubt`: for which bytes that
    nobody vouches for wait for their proof. `size`: for the registry to say how long a blob is that
    others bring. A pause doubles from `pause` up to `longest_pause`."""

    first_byte: float = 30.0
    stalled: float = 90.0
    doubt: float = 20.0
    size: float = 5.0
    pause: float = 0.25
    longest_pause: float = 5.0


@dataclass(frozen=True, slots=True)
class Turns:
    """Places of which there are too few (see mirror/places.py). `quantum`: after which a holder
    gives its place to another who waits; a multiple of it where few wait, so that all who wait have
    had a turn within `round`. `leaves`: for giving it, before another holder is asked."""

    quantum: float = 2.0
    round: float = 20.0
    leaves: float = 1.0


@dataclass(frozen=True, slots=True)
class Stores:
    """What is beside the path of bytes. `redis`: for one exchange; then the local memory answers.
    `list`: for all pages of a list of referrers. `tier`: for whether the second tier has a content,
    `tier_silent` for its bytes, beyond what they take at the least speed, and `tier_once` for some
    of them; then the upstream is asked, and the tier not for `tier_rests`; `tier_opened`: for which
    a stream that it has given waits for its reader. `recheck`: after a check of a tag behind the
    answer has failed; then twice as long each time, up to `longest_recheck`. `descriptors`: for a
    free one, where this process has none left. Of an S3 store: `far_connect` to reach it,
    `far_answer` for what it says to one request, `far_silent` for bytes under way, and `far_again`,
    within which a request that failed is sent again; `far_rests`: for which one that nobody has
    answered is not asked; whoever waits for it mostly gives it up sooner."""

    redis: float = 0.25
    list: float = 30.0
    tier: float = 0.5
    tier_silent: float = 1.0
    tier_once: float = 2.0
    tier_rests: float = 30.0
    tier_opened: float = 2.0
    far_connect: float = 2.0
    far_answer: float = 20.0
    far_silent: float = 60.0
    far_again: float = 5.0
    far_rests: float = 5.0
    recheck: float = 1.0
    longest_recheck: float = 300.0
    descriptors: float = 20.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Nodes that fetch together. `lease`: after which a holder that is silent is none any more, and
    `renew`: between two times that it says it is there; a pause of others' clients stays below 3 s
    by them. `connect`: to another node, before it counts as gone; `rests`: for which one that did
    not answer is not asked. `silent`: half of it for a node's next bytes, then as long for a word
    that it lives, while its lease is looked at every `again`. `here`: for which others are sent to
    who has just fetched a content. `small`: for which a manifest or a small blob is waited for at
    its holder; `beside`: for what another process of that node may fetch. `look`: between two looks
    at which nodes there are, and between two times that a node enters itself; `listed`: for which
    it is one of them then, and `forgotten`: after which its entry is taken out."""

    lease: float = 1.5
    renew: float = 0.4
    connect: float = 0.5
    rests: float = 5.0
    silent: float = 2.0
    again: float = 0.25
    here: float = 600.0
    small: float = 5.0
    beside: float = 1.0
    look: float = 5.0
    listed: float = 15.0
    forgotten: float = 60.0


DEADLINES = Deadlines()
ANSWERS = Answers()
TROUBLE = Trouble()
EXCHANGES = Exchanges()
HEDGES = Hedges()
BODIES = Bodies()
DOWNLOADS = Downloads()
TURNS = Turns()
STORES = Stores()
FLEET = Fleet()
