"""What tags pointed to before: how much of it is kept.

What is forgotten for want of room is history of the repository that has most, in the registry that
has most. That something of it is forgotten is remembered, so that what was there before is not
taken for new (see policy/tag_age.py).
"""

from __future__ import annotations

MOST = 32
"""Events of one tag; the oldest go first."""

KEPT = 400 * 86400.0
"""Seconds after which what was not said again is forgotten: "the same day last year" is there."""

MOST_FORGOTTEN = 10_000
"""Repositories of which it is remembered that history was forgotten. Beyond that, only of which
registry."""


def names_of_forgotten(repository: str) -> tuple[str, str]:
    """Under what it is noted that history of this repository is forgotten: its own name, or its
    registry's."""
    return repository, f"{repository.partition('/')[0]}/"
