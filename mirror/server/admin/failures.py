"""Why nothing is changed by an admin port that is read-only."""

from __future__ import annotations

from ..browsing.failures import Refused


def read_only() -> Refused:
    return Refused(
        403,
        "READ_ONLY",
        "this admin port is read-only: write `admin: {write: true}` in mirror.yaml, then reload",
    )
