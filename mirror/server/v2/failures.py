"""The status of a failure, chosen for the client's sake.

Clients differ in what they survive, and none of them reads the message before it decides:

- A tag's error sends every client to its next mirror, or to the registry itself.
- dockerd asks again for 75 s after a 5xx for a layer, and leaves at once after a 4xx. containerd
  leaves at once after either, for this one request.
- skopeo and podman have no second mirror once they have a tag: every error of a manifest or blob
  ends the pull, save 429, which they wait for as Retry-After says. Nobody else waits for a 429:
  containerd asks six times within milliseconds. They wait for a minute at most, four times: a 429
  that asks for more is four minutes of waiting in vain.
- A 401 with a challenge makes a Docker daemon answer with its user's Docker Hub password: never.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ...frozen import dataclass
from ...oci.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    RateLimited,
    Refused,
    RegistryError,
    Unavailable,
    Unknown,
    Unsupported,
    Untrustworthy,
    render,
)
from ...oci.ranges import format_unsatisfied
from .target import TargetKind

DEFAULT_RETRY_AFTER = 5.0
"""Seconds, where nobody knows better: long enough for a restart, short enough to be waited for."""

READS = "GET, HEAD"

LONGEST_WAIT = 60.0
"""Seconds: the longest Retry-After that clients which wait for a 429 obey (containers/image)."""

# All of them fetch by one library (containers/image).
_WAITS_FOR_429 = re.compile(
    r"(skopeo|containers|libpod|podman|buildah|cri-o)/", re.ASCII | re.IGNORECASE
)
# A list of tags is asked for in the mirror's own name: no client asks another mirror for it.
_NOT_ELSEWHERE = (TargetKind.MANIFEST, TargetKind.BLOB, TargetKind.TAGS)
_UNKNOWN: Mapping[TargetKind, type[Unknown]] = {
    TargetKind.TAG: ManifestUnknown,
    TargetKind.MANIFEST: ManifestUnknown,
    TargetKind.BLOB: BlobUnknown,
}


class _WrongBlob(Untrustworthy):
    code = DigestInvalid.code


class _BadParameters(Refused):
    """`n` and `last` of a list are the client's own: 400, as a registry answers it."""

    code = Unsupported.code


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that says no; `headers` beside those that every answer has."""

    status: int
    code: str
    headers: Mapping[str, str]
    body: bytes


def failure(error: RegistryError, kind: TargetKind, agent: str, request_id: str) -> Failure:
    """How to tell this client (`agent` is its User-Agent) of this error, to this request.

    What is hopeless is 403 or 404, what may come back 503 or 502 with Retry-After, and 429 only
    for the clients that wait for it, of what they cannot get elsewhere.
    """
    status, shown, headers = error.status, error, {}
    match error:
        case Unavailable() | Untrustworthy():
            if isinstance(error, Untrustworthy) and kind is TargetKind.BLOB:
                shown = _WrongBlob(error.message)
            # Wrong bytes count as what may come back: by the next ask, whoever sent them is known.
            seconds = _seconds(error.retry_after)
            headers["Retry-After"] = str(seconds)
            waits = seconds <= LONGEST_WAIT and _WAITS_FOR_429.match(agent)
            if kind in _NOT_ELSEWHERE and waits:
                status, shown = 429, RateLimited(error.message)
        case Refused() if kind in (TargetKind.TAGS, TargetKind.REFERRERS):
            status, shown = 400, _BadParameters(error.message)
        case RangeInvalid():
            headers["Content-Range"] = format_unsatisfied(error.size)
        case Unsupported():
            headers["Allow"] = READS
        case Unknown() if error.code == Unknown.code:
            shown = _UNKNOWN.get(kind, NameUnknown)(error.message)
    return Failure(status, shown.code, headers, render(shown, request_id))


def _seconds(retry_after: float | None) -> int:
    # Rounded up: a client that comes a moment early is refused again.
    return max(1, math.ceil(DEFAULT_RETRY_AFTER if retry_after is None else retry_after))
