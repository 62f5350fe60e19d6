"""What goes on in a mirror: its state, the downloads, the last pulls, what has happened. One place
answers for all of its processes; commands, the page, `/api/v1` and the log tell what it says.

Times are seconds since the epoch, durations are seconds, sizes are bytes. Names and reasons come
from clients and registries: they are printable, bounded, and of no more worth than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from ..frozen import dataclass

# The state.


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The last reload. `result`: applied, refused or failed; `words`: the mistakes."""

    at: float
    result: str
    words: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ConfigState:
    """`path` "": there is none, the defaults hold. `changed_at`: when the file was changed since it
    was loaded; None where it is as it was loaded. `is_gone`: it cannot be read any more."""

    path: str
    loaded_at: float
    changed_at: float | None = None
    is_gone: bool = False
    last_reload: Reloaded | None = None


@dataclass(frozen=True, slots=True)
class CacheState:
    """What is here. `images`, `oldest_used_at` and `disk_free` are None where that cannot be said
    now. `pieces`: blobs and manifests."""

    bytes: int
    max_bytes: int
    reserved_bytes: int
    pieces: int
    images: int | None = None
    oldest_used_at: float | None = None
    disk_free: int | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """The last 24 hours, as far as the mirror has run: since `since`.

    `pulls`: see Pull. `without_upstream`: those of them for which no upstream was asked for
    anything. `bytes_served` went to clients, `bytes_fetched` came from upstreams. `p50`: half of
    all requests had their first byte within this; None where there was none. `evicted`: pieces of
    content that made room.
    """

    since: float
    pulls: int = 0
    without_upstream: int = 0
    requests: int = 0
    hits: int = 0
    bytes_served: int = 0
    bytes_fetched: int = 0
    p50: float | None = None
    evicted: int = 0
    evicted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of the last hour: `at` is when it began."""

    at: float
    requests: int
    hits: int
    bytes_served: int
    bytes_fetched: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Of the last few seconds: bytes a second, and what is under way."""

    bytes_out: float = 0.0
    bytes_in: float = 0.0
    requests: float = 0.0
    requests_running: int = 0
    downloads_running: int = 0
    downloads_queued: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """What an endpoint gives to a login ("" for none). `resets_at` None: it has not said."""

    login: str
    limit: int
    remaining: int
    resets_at: float | None = None


@dataclass(frozen=True, slots=True)
class EndpointState:
    """`state`, the worst first: login_refused (with the logins, and its HTTP status as the `reason`
    says it), banned (it sent what was not asked for), down, limited, stepped_back (others go
    first), ok, and unknown: nothing was asked of it yet. `since` None for the last two, where all
    was always well. `latency`: seconds until it answers, as of late; None where that is not known.
    """

    registry: str
    endpoint: str
    url: str
    state: str
    since: float | None = None
    reason: str = ""
    latency: float | None = None
    logins_refused: Sequence[str] = ()
    limits: Sequence[Limit] = ()


@dataclass(frozen=True, slots=True)
class LogState:
    """How the log is written. `until`: when `level` falls back to `configured_level`; None where it
    does not."""

    format: str
    level: str
    requests: str
    configured_level: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The mirror as a whole. `pids`: of the workers, or of the one process. `serving`: how many of
    them answer. `listen`: addresses on which pulls are taken."""

    version: str
    pid: int
    pids: Sequence[int]
    serving: int
    started_at: float
    now: float
    listen: Sequence[str]
    admin: str
    store: str
    config: ConfigState
    cache: CacheState
    day: Day
    rates: Rates
    log: LogState
    endpoints: Sequence[EndpointState] = ()


# What is under way, and what was.


@dataclass(frozen=True, slots=True)
class Download:
    """A blob on its way here. `image`: as people write the image for which it was begun, where that
    is known; else the repository. `state`: queued or running. `here`: bytes that have come, of
    `size`, which is None where the upstream has not said it. `speed`: bytes a second, as of late.
    `readers`: clients that read of it while it comes; 0 of what is fetched ahead of them."""

    id: str
    image: str
    registry: str
    repository: str
    digest: str
    state: str
    here: int
    size: int | None
    speed: float
    readers: int
    started_at: float
    queued: float = 0.0
    endpoints: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PullRequest:
    """One request of a pull, or `count` of the same which were answered out of memory: then the
    times are the mean of one, and `sent` is of all.

    `at`: when it came. `outcome`: see mirror/contracts/registry.py. `status` None: the client left
    before it was answered. `queued`: how long the download waited for its turn. `upstream`: seconds
    from when the endpoint was asked until it answered; None where none was asked. `why`: in words,
    why it was no hit. `is_running`: it has not ended yet, and of its end nothing is known.
    """

    at: float
    request_id: str
    client: str
    agent: str
    method: str
    kind: str
    reference: str
    outcome: str
    status: int | None
    first_byte: float
    last_byte: float
    sent: int
    count: int = 1
    endpoint: str = ""
    queued: float | None = None
    upstream: float | None = None
    speed: float | None = None
    why: str = ""
    error: str = ""
    left: bool = False
    is_running: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """The requests by which one client, or several behind one address, took one image within a
    short time.

    `image`: as people write it (`redis:7`). `pulls`: how many took it at once from this address.
    `ended_at` None: it goes on. `outcomes`: how many requests had each outcome; `summary` says it
    in words: "HIT 5/5", "STALE 1, MISS 2/6". `failure`: why it, or a request of it, failed.
    `requests`: its first ones; `more` is how many are not kept.
    """

    id: str
    client: str
    agent: str
    image: str
    registry: str
    repository: str
    reference: str
    pulls: int
    began_at: float
    ended_at: float | None
    seconds: float
    bytes: int
    outcomes: Mapping[str, int]
    summary: str
    failure: str = ""
    requests: Sequence[PullRequest] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class Happening:
    """Something to know of. `kind`: evicted, endpoint_banned, endpoint_stepped_back, endpoint_back,
    login_refused, login_accepted, quota_paused, tag_moved, config_applied, config_refused,
    config_failed, worker_replaced, content_damaged, log_level. `level`: info, warning or error.
    `count`: of how many the same is said, the last one `at`. `subject`: an endpoint, an image, a
    digest, a file; "" for the mirror itself. `words`: a sentence for people."""

    number: int
    at: float
    kind: str
    level: str
    subject: str
    words: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Client:
    """What one address has asked for in the last ten minutes."""

    client: str
    requests: int
    misses: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SlowAnswer:
    """One of the slowest answers of the last ten minutes, by `first_byte`."""

    image: str
    request: PullRequest


@dataclass(frozen=True, slots=True)
class Top:
    """What goes on at this moment."""

    now: float
    rates: Rates
    downloads: Sequence[Download] = ()
    slowest: Sequence[SlowAnswer] = ()
    busiest: Sequence[Client] = ()
    pulls: Sequence[Pull] = ()


# Why.


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an image that is not here. `role`: manifest, config or layer."""

    role: str
    digest: str
    size: int | None
    why: str


@dataclass(frozen=True, slots=True)
class ImageHere:
    """What is known of an image. `digest`: what its tag points to, "" if that is not known. `age`:
    seconds since an upstream last said so. `ttl`: seconds for which that is believed. `would`: in
    words, what a pull would meet with now."""

    image: str
    digest: str
    age: float | None
    ttl: float | None
    would: str
    missing: Sequence[Piece] = ()


@dataclass(frozen=True, slots=True)
class Why:
    """Of an image, or of the request with this id: what was asked lately, newest first; and of an
    image, what is here."""

    subject: str
    pulls: Sequence[Pull] = ()
    here: ImageHere | None = None


class UnknownSubject(Exception):
    """It is no image, and no request of late has this id; the message says so."""


class Activity(Protocol):
    """Of all processes of the mirror. Whatever is given is bounded; no method waits for long."""

    async def status(self) -> Status: ...

    def top(self) -> Top: ...

    def minutes(self) -> Sequence[Minute]:
        """The last hour, oldest first; the minute that runs is the last one."""

    def downloads(self) -> Sequence[Download]:
        """The longest running first; then those that wait."""

    def pulls(self, limit: int = 50, like: str = "") -> Sequence[Pull]:
        """The newest first: those whose image, client or outcomes contain these words."""

    def happenings(self, limit: int = 50) -> Sequence[Happening]:
        """The newest first."""

    async def why(self, subject: str) -> Why:
        """Of an image (`redis:7`), or of a request's id. Raises UnknownSubject."""

    async def changed(self, than: int, within: float) -> int:
        """Returns the number of the present state, when it is another `than` this, or after so many
        seconds. The number grows once a second at most."""


class LogControl(Protocol):
    """How all processes of the mirror log, until the configuration is read again."""

    @property
    def state(self) -> LogState: ...

    async def level(self, level: str, seconds: float | None) -> LogState:
        """From now on, or for so many seconds: debug, info, warning or error."""

    async def requests(self, requests: str) -> LogState:
        """Which requests are told: all, misses or none."""


Told = Status | Top | Minute | Download | Pull | Happening | Client | SlowAnswer | Why | LogState


def rendered(told: Told) -> dict[str, Any]:
    """The one JSON of it: for `--json`, the control socket and `/api/v1`.

    >>> rendered(Minute(60.0, requests=3, hits=2, bytes_served=10, bytes_fetched=0))["hits"]
    2
    """
    found: dict[str, Any] = asdict(told)
    return found
