"""Images that are brought here before a client asks for them: by the command `warm`, and by the key
`sync`. Commands, the page and `/api/v1` tell the same of it.

Times are seconds since the epoch, durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from ..frozen import dataclass
from ..oci.errors import Unavailable, Unknown
from ..oci.reference import ImageReference, Repository

# What is told while images come.


@dataclass(frozen=True, slots=True)
class WorkBegun:
    """So many images are to be brought, each for its platform. `name`: the entry of `sync` whose
    they are; "" for a command's own."""

    name: str
    images: int


@dataclass(frozen=True, slots=True)
class ImageComing:
    """How much is here by now of an image: `here` of `size` bytes, of the pieces that are known."""

    image: str
    platform: str
    here: int
    size: int


@dataclass(frozen=True, slots=True)
class ImageEnded:
    """What became of an image. `result`:

    - whole: all of it is here, of which `fetched` bytes came now;
    - kept: its tag is gone upstream; what is here of it stays;
    - postponed: it waits for the next run, as the `words` say;
    - failed: for the reason in `words`.
    """

    image: str
    platform: str
    result: str
    words: str = ""
    digest: str = ""
    blobs: int = 0
    size: int = 0
    fetched: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkEnded:
    """All is done, or was stopped. `result`: good; failed (some images); or stopped, for the reason
    in `words`, which goes on at the next run."""

    name: str
    result: str
    words: str = ""
    images: int = 0
    failed: int = 0
    fetched: int = 0
    seconds: float = 0.0


Told = WorkBegun | ImageComing | ImageEnded | WorkEnded

# The entries of `sync`.


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an entry. `due_at`: when it was to begin; `result` as of WorkEnded. `images`: how
    many the entry meant; `whole`: how many of them were here at its end, with so many bytes in all
    (`size`). `failures`: the first images that failed, each with its reason. `goes_on_at`: when it
    is to go on that was stopped; None for one that came to its end."""

    due_at: float
    began_at: float
    ended_at: float
    result: str
    words: str = ""
    images: int = 0
    whole: int = 0
    failed: int = 0
    size: int = 0
    fetched: int = 0
    failures: Sequence[str] = ()
    goes_on_at: float | None = None


@dataclass(frozen=True, slots=True)
class SyncState:
    """An entry of `sync`, as it is configured, and how it goes. `window` "": at any time. `state`:
    waiting; running (then `done` of `images` are); or paused, while the mirror is offline.
    `next_at`: when it runs next; None where it runs now, or is paused."""

    name: str
    wanted: Sequence[str]
    platforms: Sequence[str]
    every: float
    window: str
    spare_quota: float
    state: str
    images: int = 0
    done: int = 0
    next_at: float | None = None
    last: Run | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether all of an image could be served for this platform with no network: what is `missing`
    for that, in words, and why it may not come by itself."""

    image: str
    platform: str
    is_ready: bool
    missing: Sequence[str] = ()


class UnknownEntry(Exception):
    """No entry of `sync` has this name; the message says which there are."""


class Syncing(Protocol):
    """The entries of `sync`, by the process that holds the store."""

    def entries(self) -> Sequence[SyncState]:
        """In the order of the configuration."""

    def run(self, names: Sequence[str]) -> AsyncGenerator[Told, None]:
        """Has these entries run now, all of them where none is named, each whatever its window, and
        tells how they go. A run that goes on is joined; it does not end with whoever is told.
        Raises UnknownEntry."""


# What is needed for it.


@dataclass(frozen=True, slots=True)
class Brought:
    """An image of which all is here: `blobs` and manifests of `size` bytes, of which `fetched` came
    now. `doubt`: why its tag may be something else by now; "" where it is this."""

    digest: str
    blobs: int
    size: int
    fetched: int
    doubt: str = ""


class TagGone(Unknown):
    """The registry does not have this tag any more; what it was stays here, as long as there is
    room."""


class Postponed(Unavailable):
    """It is left to clients, and waits for the next run."""


class Bringing(Protocol):
    """Brings images here, and finds which there are."""

    async def bring(
        self, image: ImageReference, platform: str, progress: Callable[[int, int], None]
    ) -> Brought:
        """Returns when all of the image is here for this platform (`all`: for each). `progress` is
        told how many bytes are here, of how many. Raises RegistryError, of which TagGone and
        Postponed are no failures."""

    async def tags(self, repository: Repository) -> Sequence[str]:
        """All tags of it. Raises RegistryError."""

    async def repositories(self, registry: str) -> Sequence[Repository]:
        """The repositories of it from which something was pulled here: what else it has, few
        registries tell. Raises RegistryError."""


class RunRecords(Protocol):
    """The last run of each entry, over restarts. Its faults are its own."""

    async def read(self) -> Mapping[str, Run]:
        """By the entries' keys."""

    async def write(self, runs: Mapping[str, Run]) -> None:
        """In place of all that were written before."""


def rendered(told: Told | SyncState | Run | Readiness) -> dict[str, Any]:
    """The one JSON of it: for `--json`, the control socket and `/api/v1`. What is told while images
    come has its kind at `told`.

    >>> rendered(WorkBegun("", 3))
    {'told': 'work_begun', 'name': '', 'images': 3}
    """
    found: dict[str, Any] = asdict(told)
    if isinstance(told, Told):
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(told).__name__).lower()
        return {"told": kind, **found}
    return found
