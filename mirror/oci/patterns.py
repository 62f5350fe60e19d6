"""Which images a line of the configuration means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from .reference import Repository


class Patterns:
    """Shell-like patterns of images: `library/redis:7`, `library/*:latest`, `ghcr.io/acme/*`.

    `*` stands for anything, `/` included; `?` for one character, `[ab]` for one of these. Without
    a tag, all tags. As in image names everywhere, a first component with a dot or a colon is a
    registry: `ghcr.io/acme/*` is never a repository of that name elsewhere. Without one, any
    registry: but `*/app` may begin in the registry's name too. And `redis` is Docker Hub's
    `library/redis`, too.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._named: list[re.Pattern[str]] = []
        self._anywhere: list[re.Pattern[str]] = []
        for pattern in patterns:
            whole = re.compile(_whole(pattern))
            self._named.append(whole)
            if not _names_registry(pattern):
                self._anywhere.append(whole)
            official = pattern.removeprefix("docker.io/")
            if "/" not in official:
                self._named.append(re.compile(_whole(f"docker.io/library/{official}")))

    def match(self, repository: Repository, tag: str = "") -> bool:
        """Whether any pattern means this image; with no tag, the repository with all its tags."""
        full, name = f"{repository}:{tag}", f"{repository.name}:{tag}"
        return any(pattern.match(full) for pattern in self._named) or any(
            pattern.match(name) for pattern in self._anywhere
        )


def _names_registry(pattern: str) -> bool:
    first, slash, _ = pattern.partition("/")
    return bool(slash) and ("." in first or ":" in first)


def _whole(pattern: str) -> str:
    name = pattern.rpartition("/")[2]
    return translate(pattern if ":" in name else f"{pattern}:*")
