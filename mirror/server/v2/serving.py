"""By what requests are answered, until it is replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from ...contracts.registry import Reader
from ...frozen import dataclass
from ...oci.reference import Repository
from .naming import Naming


@dataclass(frozen=True, slots=True)
class Serving:
    """What a request finds when it comes, and keeps to its end. `patience`, in seconds: how long a
    client may take nothing. `still`, of a repository before it is read: what tells whether it is
    as it was then; None for a mirrored one, of which nobody here can know."""

    registry: Reader
    naming: Naming = field(default_factory=Naming)
    patience: float = 60.0
    still: Callable[[Repository], Callable[[], bool] | None] = lambda _: None
