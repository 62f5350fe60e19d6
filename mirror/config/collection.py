"""The section `hosted.gc`: when what no repository needs any more is removed."""

from __future__ import annotations

from typing import Annotated

from ..oci.errors import quoted
from . import values
from .problems import Mistake
from .section import Read, Section

_MOST = 999_999


def _a_second(value: object) -> float:
    seconds = values.seconds(value)
    if seconds < 1.0:
        raise Mistake(quoted(str(value)), "a time of 1s at least, such as 24h")
    return seconds


class CollectionConfig(Section):
    """Garbage collection. It runs `every` so often. What a push has uploaded, mounted or found here
    stays for `grace` from then on, though no manifest needs it: a push that takes longer fails.
    A run takes out `at_most` so many blobs of repositories, and as many pieces of content."""

    every: Annotated[float, Read(_a_second)] = 86400.0
    grace: Annotated[float, Read(_a_second)] = 86400.0
    at_most: Annotated[int, Read(values.count(_MOST))] = 10_000
