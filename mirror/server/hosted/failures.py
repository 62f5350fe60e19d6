"""The status of a failure at a hosted name, in one pure function.

Clients of a push know no second place to go to: each failure is what the specification says ("Error
Codes"), and what may come back says when. dockerd tries a layer again after a 5xx or a 429, and a
401 with a challenge has it, and all others, log in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...frozen import dataclass
from ...oci.errors import (
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    RateLimited,
    RegistryError,
    StorageFull,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsupported,
    render,
)
from ...oci.ranges import format_unsatisfied
from ..v2.target import TargetKind

RETRY_AFTER = 5.0
"""Seconds, where nobody knows better."""

_UNKNOWN: Mapping[TargetKind, type[Unknown]] = {
    TargetKind.TAG: ManifestUnknown,
    TargetKind.MANIFEST: ManifestUnknown,
    TargetKind.BLOB: BlobUnknown,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that says no; `headers` beside those that every answer has."""

    status: int
    code: str
    headers: Mapping[str, str]
    body: bytes


def failure(
    error: RegistryError,
    kind: TargetKind,
    request_id: str,
    *,
    methods: Sequence[str] = (),
    challenge: str = "",
) -> Failure:
    """How to tell of this error. `methods`: those that the endpoint knows; `challenge`: how a
    client may log in (RFC 9110, 11.6.1)."""
    status, shown = error.status, error
    headers: dict[str, str] = {}
    match error:
        case Unauthorized() if error.retry_after:
            # Of a login that fails too often the next is not looked at: to try at once is in vain.
            status, shown = 429, RateLimited(error.message)
            headers["Retry-After"] = _seconds(error.retry_after)
        case Unauthorized():
            headers["WWW-Authenticate"] = challenge
        case RateLimited():
            status = 429
            headers["Retry-After"] = _seconds(error.retry_after)
        case Unavailable() | StorageFull():
            headers["Retry-After"] = _seconds(error.retry_after)
        case RangeInvalid():
            headers["Content-Range"] = format_unsatisfied(error.size)
        case Unsupported():
            headers["Allow"] = ", ".join(methods)
        case Unknown() if error.code == Unknown.code:
            shown = _UNKNOWN.get(kind, NameUnknown)(error.message)
    return Failure(status, shown.code, headers, render(shown, request_id))


def _seconds(retry_after: float | None) -> str:
    # Rounded up: a client that comes a moment early is refused again.
    return str(max(1, math.ceil(RETRY_AFTER if retry_after is None else retry_after)))
