"""What all that a process opens has in common."""

from __future__ import annotations

import os
from dataclasses import field

from ..clock import Clock
from ..config import EnvironmentProxies, environment
from ..events import Events
from ..frozen import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """The bus, the clock, the proxies of the environment, and the names of the registries that are
    configured by now, which a reload changes in place."""

    registries: set[str]
    events: Events = field(default_factory=Events)
    clock: Clock = field(default_factory=Clock)
    proxies: EnvironmentProxies = field(default_factory=lambda: environment(os.environ))
