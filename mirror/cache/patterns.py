"""Which images a line of the configuration means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from ..oci.reference import Repository


class Patterns:
    """Shell-like patterns (`*`, `?`, `[ab]`) of images: `library/redis:7`, `library/*:latest`,
    `ghcr.io/acme/*`. Without a registry, of any; without a tag, all tags."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [re.compile(_whole(pattern)) for pattern in patterns]

    def match(self, repository: Repository, tag: str) -> bool:
        """Whether any pattern means this image."""
        names = (f"{repository.name}:{tag}", f"{repository}:{tag}")
        return any(pattern.match(name) for pattern in self._patterns for name in names)


def _whole(pattern: str) -> str:
    name = pattern.rpartition("/")[2]
    return translate(pattern if ":" in name else f"{pattern}:*")
