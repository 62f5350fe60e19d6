"""Names and outcomes as people write them."""

from __future__ import annotations

from collections.abc import Mapping

from ..contracts.registry import Outcome
from ..logs.text import printable as printable
from ..oci.registries import short_name

HITS = (Outcome.HIT, Outcome.REVALIDATED)
_MISSES = (Outcome.FILLED, Outcome.JOINED)


def image_name(registry: str, repository: str, reference: str, default_registry: str) -> str:
    """As behind `docker pull`; without a reference, the repository.

    >>> image_name("docker.io", "library/redis", "7", "docker.io")
    'redis:7'
    >>> image_name("ghcr.io", "acme/app", "", "docker.io")
    'ghcr.io/acme/app'
    """
    name = short_name(registry, repository)
    if registry != default_registry:
        name = f"{registry}/{name}"
    if not reference:
        return name
    return f"{name}@{reference}" if ":" in reference else f"{name}:{reference}"


LEFT = "left"
"""What counts as a request's outcome where the client left before it was answered."""


def summary(outcomes: Mapping[str, int]) -> str:
    """What came of the requests of a pull: "HIT 5/5" where all was here, else what was not.

    >>> summary({"hit": 4, "revalidated": 1})
    'HIT 5/5'
    >>> summary({"hit": 3, "stale": 1, "filled": 1, "joined": 1})
    'STALE 1, MISS 2/6'
    """
    total = sum(outcomes.values())
    parts = {
        "FAILED": outcomes.get(Outcome.FAILED, 0),
        "LEFT": outcomes.get(LEFT, 0),
        "STALE": outcomes.get(Outcome.STALE, 0),
        "MISS": sum(outcomes.get(outcome, 0) for outcome in _MISSES),
        "PREFETCHED": outcomes.get(Outcome.PREFETCHED, 0),
        "PASSED": outcomes.get(Outcome.PASSED, 0),
        "REDIRECTED": outcomes.get(Outcome.REDIRECTED, 0),
    }
    told = [f"{word} {count}" for word, count in parts.items() if count]
    if not told:
        told = [f"HIT {sum(outcomes.get(outcome, 0) for outcome in HITS)}"]
    return f"{', '.join(told)}/{total}"
