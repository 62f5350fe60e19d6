"""By what requests are answered, until it is replaced."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...contracts.registry import Reader
from .naming import Naming


@dataclass(frozen=True, slots=True)
class Serving:
    """What a request finds when it comes, and keeps to its end. `patience`, in seconds: how long a
    client may take nothing."""

    registry: Reader
    naming: Naming = field(default_factory=Naming)
    patience: float = 60.0
