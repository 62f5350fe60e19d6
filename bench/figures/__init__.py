"""One module a figure. Each has a TITLE and `measure(house, scale) -> Result`."""

from __future__ import annotations

from typing import Protocol

from ..results import Result
from ..scale import Scale
from ..servers import House
from . import (
    calibration,
    cold,
    cold_tls,
    first_byte,
    fleet,
    growth,
    herd,
    images,
    manifests,
    mixed,
    objects,
    pull,
    pull_cold,
    push,
    ranges,
    slow,
    start,
    wan,
    warm,
    warm_tls,
)


class Figure(Protocol):
    """What a module here is."""

    TITLE: str

    def measure(self, house: House, scale: Scale) -> Result: ...


FIGURES: dict[str, Figure] = {
    "calibration": calibration,
    "warm": warm,
    "warm-tls": warm_tls,
    "cold": cold,
    "cold-tls": cold_tls,
    "first-byte": first_byte,
    "manifests": manifests,
    "ranges": ranges,
    "images": images,
    "pull": pull,
    "pull-cold": pull_cold,
    "push": push,
    "objects": objects,
    "mixed": mixed,
    "herd": herd,
    "fleet": fleet,
    "slow": slow,
    "start": start,
    "growth": growth,
    "wan": wan,
}
