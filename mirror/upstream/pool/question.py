"""What an endpoint may be asked."""

from __future__ import annotations

from enum import Enum

from ...frozen import dataclass
from ...oci.reference import Repository


class Asked(Enum):
    """What kind of thing is asked for. Each has its own latency, its own limit by 429, and its own
    share of the connections."""

    TAG = "tag"
    STAT = "stat"
    LIST = "list"  # tags, referrers
    MANIFEST = "manifest"
    BLOB = "blob"

    @property
    def is_content(self) -> bool:
        """Whether a digest proves the answer. All other answers are the endpoint's word."""
        return self in (Asked.MANIFEST, Asked.BLOB)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for. `what` is all that a client had a choice in, beside the repository: a tag,
    a digest, a part of it, the parameters of a list."""

    asked: Asked
    repository: Repository
    what: str
